//! `check`: is a configuration right, and what else is worth knowing about it?

use std::{io, path::PathBuf, process::ExitCode};

use super::Format;
use crate::config::{self, Environment, Loaded, Options, Problems};

/// `check -c FILE`
#[derive(Debug, Clone, clap::Args)]
pub struct CheckArgs {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE", env = "EDUHAM_EDGE_CONFIG")]
    pub config: PathBuf,
    /// How the findings are printed.
    #[arg(long, value_enum, default_value_t, env = "EDUHAM_EDGE_FORMAT")]
    pub format: Format,
    /// Do not open the certificates, secrets and other files that the configuration names.
    #[arg(long, env = "EDUHAM_EDGE_NO_FILES")]
    pub no_files: bool,
}

/// Checks a configuration and writes every finding to `out`. The exit code is 1 when there is a problem.
///
/// # Errors
/// When `out` cannot be written to.
pub fn check(args: &CheckArgs, environment: &dyn Environment, out: &mut dyn io::Write) -> io::Result<ExitCode> {
    let result = config::load_with(&args.config, environment, Options { no_files: args.no_files });
    match args.format {
        Format::Text => text(args, &result, out)?,
        Format::Json => json(&result, out)?,
    }
    Ok(if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(args: &CheckArgs, result: &Result<Loaded, Problems>, out: &mut dyn io::Write) -> io::Result<()> {
    match result {
        Ok(loaded) => {
            writeln!(out, "{}: OK, configuration {}", args.config.display(), loaded.hash)?;
            for warning in &loaded.warnings {
                writeln!(out, "warning: {warning}")?;
            }
            for note in &loaded.notes {
                writeln!(out, "note: {note}")?;
            }
            Ok(())
        }
        Err(problems) => writeln!(out, "{problems}"),
    }
}

fn json(result: &Result<Loaded, Problems>, out: &mut dyn io::Write) -> io::Result<()> {
    let report = match result {
        Ok(Loaded { hash, warnings, notes, .. }) => {
            serde_json::json!({ "ok": true, "hash": hash, "problems": [], "warnings": warnings, "notes": notes })
        }
        Err(problems) => serde_json::json!({ "ok": false, "problems": problems, "warnings": [], "notes": [] }),
    };
    writeln!(out, "{report:#}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FixedEnvironment;

    fn run(text: &str, format: Format) -> (ExitCode, String) {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("edge.yaml");
        std::fs::write(&config, text).unwrap();
        let mut out = Vec::new();
        let args = CheckArgs { config, format, no_files: false };
        let code = check(&args, &FixedEnvironment::default(), &mut out).unwrap();
        (code, String::from_utf8(out).unwrap().replace(&dir.path().display().to_string(), "DIR"))
    }

    const GOOD: &str = "version: 1\nserver: { listeners: [ { address: 127.0.0.1:8080 } ] }\n";

    #[test]
    fn a_good_file_is_ok_and_what_is_not_in_effect_is_listed() {
        let (code, out) = run(GOOD, Format::Text);
        assert_eq!(code, ExitCode::SUCCESS);
        assert!(out.starts_with("DIR/edge.yaml: OK, configuration "), "{out}");
        assert!(out.contains("note: server.drain.jitter: default 20% not in effect yet\n"), "{out}");
    }

    #[test]
    fn every_problem_of_a_bad_file_is_printed_and_the_exit_code_is_1() {
        let (code, out) = run("version: 1\nservr: {}\n", Format::Text);
        assert_eq!(code, ExitCode::FAILURE);
        assert!(out.starts_with("2 problems\nDIR/edge.yaml:1:1: server.listeners: found no listener"), "{out}");
        assert!(out.contains("DIR/edge.yaml:2:1: servr: found an unknown key"), "{out}");
    }

    #[test]
    fn programs_get_the_same_as_json() {
        let (_, good) = run(GOOD, Format::Json);
        let good: serde_json::Value = serde_json::from_str(&good).unwrap();
        assert_eq!(good["ok"], true);
        let (_, bad) = run("version: 2\n", Format::Json);
        let bad: serde_json::Value = serde_json::from_str(&bad).unwrap();
        assert_eq!(bad["ok"], false);
        assert_eq!(bad["problems"][1]["path"], "version");
        assert_eq!(bad["problems"][1]["line"], 1);
    }
}

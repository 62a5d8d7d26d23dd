//! Diagnostics: `tracing` to stderr, with what pingora says through `log` bridged in.

use std::{io::IsTerminal, sync::OnceLock};

use tracing_subscriber::{EnvFilter, filter::ParseError, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// Targets that report at `info` and `debug` what the access record already tells, per connection. Held at `warn` unless `log.level`
/// names them.
const NOISY: [&str; 4] = ["pingora_core", "pingora_pool", "pingora_runtime", "h2"];

/// Who changed what through the control listener. Written at every level unless `log.level` names it.
pub const AUDIT: &str = "audit";

#[derive(Debug, thiserror::Error)]
pub enum DiagnosticsError {
    #[error("log.level: `{level}` is not a filter such as `info` or `warn,eduham_edge=debug`: {source}")]
    Filter { level: String, source: ParseError },
    #[error("another subscriber for diagnostics is installed already: {0}")]
    Installed(#[from] tracing_subscriber::util::TryInitError),
}

/// Sends diagnostics of `level` and above to stderr. A second call changes nothing.
///
/// # Errors
/// When `level` is no filter, or another part of the process has installed a subscriber.
pub fn install(level: &str) -> Result<(), DiagnosticsError> {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    let filter = filter(level)?;
    if INSTALLED.set(()).is_err() {
        return Ok(());
    }
    let layer = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    // `try_init` also makes `log` records events (tracing-log).
    tracing_subscriber::registry().with(filter).with(layer).try_init()?;
    Ok(())
}

/// What `level` lets through, with the noisy held and the audit kept.
///
/// # Errors
/// When `level` is no filter.
pub fn filter(level: &str) -> Result<EnvFilter, DiagnosticsError> {
    let names =
        |target: &str| level.split(',').any(|part| part.split(['=', '[']).next().map(str::trim) == Some(target));
    let error = |source| DiagnosticsError::Filter { level: level.to_owned(), source };
    let mut filter = EnvFilter::builder().parse(level).map_err(error)?;
    let verbose = filter.max_level_hint().is_none_or(|most| most >= tracing::level_filters::LevelFilter::INFO);
    for target in NOISY.iter().filter(|target| verbose && !names(target)) {
        filter = filter.add_directive(format!("{target}=warn").parse().map_err(error)?);
    }
    if !names(AUDIT) {
        filter = filter.add_directive(format!("{AUDIT}=info").parse().map_err(error)?);
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noisy_targets_are_held_at_warn_and_the_audit_is_kept_unless_named() {
        let rows = [
            ("info", "pingora_core=warn", true),
            ("debug", "pingora_core=warn", true),
            ("debug,pingora_core=trace", "pingora_core=trace", true),
            ("debug,pingora_core=trace", "pingora_core=warn", false),
            ("error", "pingora_core=warn", false),
            ("error", "audit=info", true),
            ("info,audit=off", "audit=off", true),
            ("info,audit=off", "audit=info", false),
        ];
        for (level, directive, expected) in rows {
            let shown = filter(level).unwrap().to_string();
            assert_eq!(shown.split(',').any(|part| part == directive), expected, "`{level}` became `{shown}`");
        }
    }

    #[test]
    fn a_level_that_is_no_filter_is_refused_with_a_way_out() {
        let error = filter("info,=loud=").unwrap_err().to_string();
        assert!(error.starts_with("log.level: `info,=loud=` is not a filter such as `info`"), "{error}");
    }
}

//! The environment, read once into types: every problem at once, each with what to do.
//!
//! A service lists its settings in one function; what is wrong is collected and said together, so that an operator
//! corrects all of it in one go:
//!
//! ```
//! # use eduham_platform::settings::Environment;
//! # use std::net::SocketAddr;
//! struct Settings { listen: SocketAddr }
//!
//! let mut env = Environment::of([("EDUHAM_LISTEN", "8101")]);
//! let listen = env.value("EDUHAM_LISTEN", SocketAddr::from(([127, 0, 0, 1], 8101)), "an address such as 127.0.0.1:8101");
//! let problems = env.finish(Settings { listen }).err().expect("8101 is not an address");
//! assert!(problems.to_string().contains("EDUHAM_LISTEN is \"8101\""));
//! ```

use std::{collections::BTreeMap, ffi::OsString, fmt, str::FromStr, time::Duration};

/// One setting that cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{name} is {found}: {why}; it must be {expects}")]
pub struct Problem {
    /// The environment variable.
    pub name: String,
    /// What it holds, quoted; a secret is not shown.
    pub found: String,
    /// Why that cannot be used.
    pub why: String,
    /// What would be right.
    pub expects: String,
}

/// Every setting that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the environment cannot be used:\n{}", .0.iter().map(|p| format!("  - {p}")).collect::<Vec<_>>().join("\n"))]
pub struct Problems(pub Vec<Problem>);

/// A reader of environment variables that collects what is wrong.
#[derive(Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, OsString>,
    problems: Vec<Problem>,
}

impl Environment {
    /// The environment of this process, as it is now.
    #[must_use]
    pub fn of_process() -> Self {
        let named = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        Self { variables: named.collect(), problems: Vec::new() }
    }

    /// An environment with just these variables.
    pub fn of<N: Into<String>, V: Into<OsString>>(variables: impl IntoIterator<Item = (N, V)>) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { variables, problems: Vec::new() }
    }

    /// The value of `name`, or `default` where it is unset or empty. `expects` completes "it must be ...".
    pub fn value<T>(&mut self, name: &str, default: T, expects: &str) -> T
    where
        T: FromStr<Err: fmt::Display>,
    {
        self.optional(name, expects).unwrap_or(default)
    }

    /// The value of `name`, if it is set and not empty.
    pub fn optional<T>(&mut self, name: &str, expects: &str) -> Option<T>
    where
        T: FromStr<Err: fmt::Display>,
    {
        let text = self.text(name, expects)?;
        self.parse(name, &text, expects)
    }

    /// The comma-separated values of `name`; unset is an empty list.
    pub fn list<T>(&mut self, name: &str, expects: &str) -> Vec<T>
    where
        T: FromStr<Err: fmt::Display>,
    {
        let Some(text) = self.text(name, expects) else { return Vec::new() };
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        items.filter_map(|item| self.parse(name, item, expects)).collect()
    }

    /// The secret in `name`; its value is never shown.
    pub fn secret(&mut self, name: &str) -> Option<Secret> {
        self.text(name, "printable text").map(Secret)
    }

    /// `settings`, if everything read so far could be used.
    ///
    /// # Errors
    /// All problems, in the order in which the variables were read.
    pub fn finish<S>(self, settings: S) -> Result<S, Problems> {
        if self.problems.is_empty() { Ok(settings) } else { Err(Problems(self.problems)) }
    }

    fn text(&mut self, name: &str, expects: &str) -> Option<String> {
        let raw = self.variables.get(name)?;
        let Some(text) = raw.to_str() else {
            self.problem(name, "not shown".into(), "it is not UTF-8".into(), expects);
            return None;
        };
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    fn parse<T>(&mut self, name: &str, text: &str, expects: &str) -> Option<T>
    where
        T: FromStr<Err: fmt::Display>,
    {
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(name, format!("{text:?}"), error.to_string(), expects);
                None
            }
        }
    }

    fn problem(&mut self, name: &str, found: String, why: String, expects: &str) {
        self.problems.push(Problem { name: name.into(), found, why, expects: expects.into() });
    }
}

/// A value that is not shown in logs.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(String);

impl Secret {
    /// The value itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self(value.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(not shown)")
    }
}

/// A length of time as written in settings: `250ms`, `10s`, `5m`, `1h`, or `0`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Span(pub Duration);

/// Why a [`Span`] could not be read.
#[derive(Debug, thiserror::Error)]
#[error("not a number followed by ms, s, m or h")]
pub struct NotASpan;

impl FromStr for Span {
    type Err = NotASpan;

    fn from_str(text: &str) -> Result<Self, NotASpan> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| NotASpan)?;
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "" if number == 0 => 0,
            _ => return Err(NotASpan),
        };
        number.checked_mul(unit_ms).map(|ms| Self(Duration::from_millis(ms))).ok_or(NotASpan)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn every_problem_is_said_at_once() {
        let mut env =
            Environment::of([("LISTEN", "8101"), ("EDGES", "127.0.0.1:1, nowhere,127.0.0.1:2"), ("DRAIN", "5 s")]);
        let listen = env.value("LISTEN", SocketAddr::from(([127, 0, 0, 1], 1)), "an address");
        let edges: Vec<SocketAddr> = env.list("EDGES", "addresses");
        let drain = env.value("DRAIN", Span(Duration::ZERO), "a duration such as 5s");
        let problems = env.finish((listen, edges, drain)).expect_err("three are wrong").0;
        assert_eq!(problems.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["LISTEN", "EDGES", "DRAIN"]);
        assert!(problems[1].to_string().starts_with("EDGES is \"nowhere\": "), "{}", problems[1]);
    }

    #[test]
    fn an_unset_or_empty_variable_means_the_default() {
        let mut env = Environment::of([("EMPTY", "  ")]);
        assert_eq!(env.value("EMPTY", 7, "a number"), 7);
        assert_eq!(env.optional::<u32>("UNSET", "a number"), None);
        assert!(env.secret("UNSET").is_none());
        assert!(env.finish(()).is_ok());
    }

    #[test]
    fn a_secret_is_not_shown() {
        let mut env = Environment::of([("TOKEN", "hunter2")]);
        let secret = env.secret("TOKEN").expect("set");
        assert_eq!(secret.reveal(), "hunter2");
        assert!(!format!("{secret:?}").contains("hunter2"));
    }

    #[test]
    fn spans_are_read_with_their_unit() {
        for (text, ms) in [("250ms", 250), ("10s", 10_000), ("5m", 300_000), ("1h", 3_600_000), ("0", 0)] {
            assert_eq!(text.parse::<Span>().expect(text), Span(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "5", "5 s", "-1s", "1d", "99999999999999999999s", "18446744073709551615h"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }
}

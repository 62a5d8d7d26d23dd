//! `${VAR}`, `${VAR:-default}` and `$$` in scalar values.

use super::environment::Environment;

/// Longest value after expansion: a variable is a word, not a document.
const EXPANDED_BYTES_MAX: usize = 64 << 10;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Expansion {
    Unchanged,
    Changed(String),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ExpandError {
    #[error("found ${{{0}}}, expected a variable that is set")]
    Unset(String),
    #[error("found ${{ without }}, expected ${{NAME}} or ${{NAME:-default}}")]
    Unclosed,
    #[error("found ${{{0}}}, expected ${{NAME}} or ${{NAME:-default}}")]
    Name(String),
    #[error("found a lone $, expected ${{NAME}} or $$")]
    Lone,
    #[error("found more than {EXPANDED_BYTES_MAX} bytes after expansion, expected fewer")]
    TooLong,
}

impl ExpandError {
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::Unset(name) => Some(format!("set {name}, or write ${{{name}:-default}}")),
            Self::Lone => Some("a $ that means itself is written $$".to_owned()),
            Self::Unclosed | Self::Name(_) | Self::TooLong => None,
        }
    }
}

pub(super) fn expand(text: &str, environment: &dyn Environment) -> Result<Expansion, ExpandError> {
    if !text.contains('$') {
        return Ok(Expansion::Unchanged);
    }
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        rest = if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            after
        } else if let Some(after) = after.strip_prefix('{') {
            let end = after.find('}').ok_or(ExpandError::Unclosed)?;
            out.push_str(&variable(&after[..end], environment)?);
            &after[end + 1..]
        } else {
            return Err(ExpandError::Lone);
        };
        if out.len() > EXPANDED_BYTES_MAX {
            return Err(ExpandError::TooLong);
        }
    }
    out.push_str(rest);
    Ok(Expansion::Changed(out))
}

/// The default also stands in for a variable that is set to nothing, as in a shell.
fn variable(inner: &str, environment: &dyn Environment) -> Result<String, ExpandError> {
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    let valid = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !valid {
        return Err(ExpandError::Name(inner.to_owned()));
    }
    match (environment.variable(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(ExpandError::Unset(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FixedEnvironment;

    #[test]
    fn variables_defaults_and_dollars() {
        let variables = [("PORT", "8080"), ("EMPTY", "")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let environment = FixedEnvironment { variables: variables.into(), ..FixedEnvironment::default() };
        for (text, expected) in [
            ("plain", Ok(Expansion::Unchanged)),
            ("127.0.0.1:${PORT}", Ok(Expansion::Changed("127.0.0.1:8080".into()))),
            ("${HOST:-localhost}:${PORT}", Ok(Expansion::Changed("localhost:8080".into()))),
            ("${EMPTY:-x}${EMPTY}", Ok(Expansion::Changed("x".into()))),
            ("$${PORT}", Ok(Expansion::Changed("${PORT}".into()))),
            ("${NONE:-}", Ok(Expansion::Changed(String::new()))),
            ("${NONE}", Err(ExpandError::Unset("NONE".into()))),
            ("${PORT", Err(ExpandError::Unclosed)),
            ("${a b}", Err(ExpandError::Name("a b".into()))),
            ("5$", Err(ExpandError::Lone)),
        ] {
            assert_eq!(expand(text, &environment), expected, "{text}");
        }
    }
}

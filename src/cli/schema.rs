//! `schema`: the JSON Schema of the configuration.

use std::io;

use crate::config;

/// Writes the JSON Schema to `out`.
///
/// # Errors
/// When `out` cannot be written to.
pub fn schema(out: &mut dyn io::Write) -> io::Result<()> {
    writeln!(out, "{:#}", config::schema())
}

//! The reference of the configuration, printed from the table.

/// `docs/configuration.md`
pub fn reference_markdown() -> String {
    String::new()
}

//! Weights in negotiation fields: `;q=0.8` (RFC 9110 12.4.2).

/// `0.8` is 800; `None` for what is no weight.
pub(super) fn thousandths(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !matches!(whole, "0" | "1") || fraction.len() > 3 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let fraction: u16 = format!("{fraction:0<3}").parse().ok()?;
    let value = if whole == "1" { 1000 + fraction } else { fraction };
    (value <= 1000).then_some(value)
}

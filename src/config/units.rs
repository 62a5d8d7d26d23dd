//! Sizes, durations and shares, as operators write them.

use std::time::Duration;

/// Longest duration that may be written, in milliseconds: 100 years of 365 days.
const DURATION_MAX_MS: u64 = 100 * 365 * 86_400_000;

/// Size units, largest first; printing takes the first that divides.
const SIZES: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Duration units in milliseconds, in the order in which they may follow each other.
const DURATIONS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Bytes of `4KiB`, `1MiB`, `2GB`; a bare integer is bytes.
pub(super) fn size(text: &str) -> Result<u64, &'static str> {
    let (digits, unit) = split(text);
    let number: u64 = digits.parse().map_err(|_| "a size is a whole number and a unit, as 256MiB")?;
    let factor = match unit {
        "" => 1,
        unit => SIZES
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, factor)| *factor)
            .ok_or("the units are B, kB, MB, GB, KiB, MiB, GiB")?,
    };
    number.checked_mul(factor).ok_or("the size is too large")
}

/// `250ms`, `10s`, `1h30m`, `7d`, and a bare `0`.
pub(crate) fn duration(text: &str) -> Result<Duration, &'static str> {
    const SHAPE: &str = "a duration is whole numbers and units, as 250ms, 10s, 1h30m or 7d";
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut total, mut smallest) = (text, 0_u64, u64::MAX);
    while !rest.is_empty() {
        let (digits, after) = split(rest);
        let number: u64 = digits.parse().map_err(|_| SHAPE)?;
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        if unit.is_empty() {
            return Err("a duration needs its unit: ms, s, m, h or d");
        }
        let factor = DURATIONS.iter().find(|(name, _)| *name == unit).ok_or("the units are ms, s, m, h and d")?.1;
        if factor >= smallest {
            return Err("units go from large to small, each once");
        }
        smallest = factor;
        total = number.checked_mul(factor).and_then(|ms| total.checked_add(ms)).ok_or("the duration is too long")?;
        rest = next;
    }
    match total {
        _ if text.is_empty() => Err(SHAPE),
        ms if ms > DURATION_MAX_MS => Err("the duration is longer than 100 years"),
        ms => Ok(Duration::from_millis(ms)),
    }
}

/// Percent of `20%` or `0.5%`, 0 to 100.
pub(super) fn share(text: &str) -> Result<f64, &'static str> {
    const SHAPE: &str = "a share is a number from 0 to 100 and %, as 20%";
    let number = text.strip_suffix('%').ok_or(SHAPE)?;
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(SHAPE);
    }
    match number.parse() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err(SHAPE),
    }
}

/// The shortest exact way to write a size.
pub(crate) fn print_size(bytes: u64) -> String {
    match SIZES[..4].iter().find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => bytes.to_string(),
    }
}

fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn sizes_are_read_in_both_families_of_units() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("4KiB", 4096),
            ("1MiB", 1 << 20),
            ("2GiB", 2 << 30),
            ("3kB", 3000),
            ("1GB", 1_000_000_000),
            ("5B", 5),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "1.5MiB", "MiB", "-1", "1 MiB", "1mib", "99999999999TiB", "1MiBB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_need_units_and_go_from_large_to_small() {
        for (text, ms) in [
            ("0", 0),
            ("0s", 0),
            ("250ms", 250),
            ("10s", 10_000),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
            ("1s5ms", 1005),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in [
            "",
            "10",
            "1.5s",
            "s",
            "30m1h",
            "1s1s",
            "1w",
            "-1s",
            "36501d",
            "99999999999999999999d",
            "9999999999999999999d",
            "1h30",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shares_lie_between_nothing_and_all() {
        for (text, percent) in [("0%", 0.0), ("20%", 20.0), ("0.5%", 0.5), ("100%", 100.0)] {
            assert_eq!(share(text), Ok(percent), "{text}");
        }
        for text in ["20", "%", "101%", "-1%", "1e1%", "1.2.3%", "nan%"] {
            assert!(share(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_printed_size_reads_back() {
        for bytes in [0, 1, 1000, 1024, 1536, 64 << 20, 1 << 40] {
            assert_eq!(size(&print_size(bytes)), Ok(bytes));
        }
    }
}

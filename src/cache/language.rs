//! `Accept-Language` taken for one of the languages that a site has (RFC 9110 12.5.4, RFC 4647).

use http::{HeaderMap, header};

use super::quality::thousandths;

/// Ranges of one field that are looked at; browsers send a handful.
const RANGES_MAX: usize = 32;

/// The language of `languages` that fits best, by q and then by order; the first where none fits or nothing is said.
/// A range fits a language that it is a prefix of, and one that is a prefix of it: `de-CH` fits `de`, `de` fits `de-CH`.
pub fn preferred<'a>(fields: &HeaderMap, languages: &'a [Box<str>]) -> Option<&'a str> {
    let lines = fields.get_all(header::ACCEPT_LANGUAGE).iter().filter_map(|line| line.to_str().ok());
    let mut ranges: Vec<(&str, u16)> = lines
        .flat_map(|line| line.split(','))
        .filter_map(|member| {
            let mut parts = member.split(';').map(str::trim);
            let range = parts.next().filter(|range| !range.is_empty())?;
            let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            Some((range, quality.map_or(Some(1000), thousandths)?))
        })
        .take(RANGES_MAX)
        .collect();
    let refused: Vec<&str> = ranges.iter().filter(|(_, quality)| *quality == 0).map(|(range, _)| *range).collect();
    // Stable: of equal ones the first.
    ranges.sort_by_key(|(_, quality)| std::cmp::Reverse(*quality));
    let all = || languages.iter().map(|language| &**language);
    let acceptable = |language: &&str| !refused.iter().any(|range| is_prefix(range, language));
    ranges
        .iter()
        .filter(|(_, quality)| *quality > 0)
        .find_map(|(range, _)| {
            if *range == "*" {
                return all().find(acceptable);
            }
            let exact = all().find(|language| language.eq_ignore_ascii_case(range));
            let wider =
                || all().filter(acceptable).filter(|language| is_prefix(language, range)).max_by_key(|l| l.len());
            let narrower = || all().filter(acceptable).find(|language| is_prefix(range, language));
            exact.or_else(wider).or_else(narrower)
        })
        .or(languages.first().map(|language| &**language))
}

/// `de` of `de-CH`, not of `den`.
fn is_prefix(prefix: &str, of: &str) -> bool {
    let (prefix, of) = (prefix.as_bytes(), of.as_bytes());
    of.len() >= prefix.len()
        && of[..prefix.len()].eq_ignore_ascii_case(prefix)
        && matches!(of.get(prefix.len()), None | Some(b'-'))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_best_that_there_is_is_chosen() {
        let languages = ["en", "de", "fr-CA", "zh-Hant"].map(Box::from);
        for (accept, expected) in [
            ("de", "de"),
            ("de-CH", "de"),
            ("DE-ch, en;q=0.5", "de"),
            ("en;q=0.5, de;q=0.9", "de"),
            ("fr", "fr-CA"),
            ("fr-CA", "fr-CA"),
            ("it, de;q=0.1", "de"),
            ("it", "en"),
            ("*", "en"),
            ("en;q=0, *", "de"),
            ("zh-Hant-TW, en;q=0.9", "zh-Hant"),
            ("den", "en"),
            ("de;q=2, fr;q=0.1", "fr-CA"),
            ("", "en"),
        ] {
            let mut fields = HeaderMap::new();
            fields.insert(header::ACCEPT_LANGUAGE, HeaderValue::from_static(accept));
            assert_eq!(preferred(&fields, &languages), Some(expected), "{accept}");
        }
        assert_eq!(preferred(&HeaderMap::new(), &languages), Some("en"));
        assert_eq!(preferred(&HeaderMap::new(), &[]), None);
    }
}

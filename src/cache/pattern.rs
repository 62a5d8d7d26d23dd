//! Names with `*` in them, as the configuration writes them.

/// A glob over names: `*` stands for any run of characters, everything else for itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Glob(Box<str>);

impl Glob {
    /// Every string is a glob.
    pub fn new(pattern: &str) -> Self {
        Self(pattern.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Does `name` match, case-sensitively? Linear in both lengths: one star is remembered at a time.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut p, mut n) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while n < name.len() {
            if p < pattern.len() && pattern[p] == b'*' {
                star = Some((p, n));
                p += 1;
            } else if p < pattern.len() && pattern[p] == name[n] {
                p += 1;
                n += 1;
            } else if let Some((at, from)) = star {
                star = Some((at, from + 1));
                p = at + 1;
                n = from + 1;
            } else {
                return false;
            }
        }
        pattern[p..].iter().all(|&b| b == b'*')
    }
}

/// A path as the configuration writes it: `/a/{name}/b`, `/a/{*rest}`. `{name}` is one segment that is not empty,
/// `{*rest}` everything below, also nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathRule {
    /// `None`: a parameter.
    segments: Vec<Option<Box<str>>>,
    and_below: bool,
}

impl PathRule {
    /// `segments`: text as request paths have it, `None` for a parameter.
    pub fn new(segments: Vec<Option<Box<str>>>, and_below: bool) -> Self {
        Self { segments, and_below }
    }

    pub fn matches(&self, path: &str) -> bool {
        let mut rest = path.strip_prefix('/');
        for segment in &self.segments {
            let Some(here) = rest else { return false };
            let (text, below) = here.split_once('/').map_or((here, None), |(text, below)| (text, Some(below)));
            match segment {
                Some(literal) if **literal != *text => return false,
                None if text.is_empty() => return false,
                _ => rest = below,
            }
        }
        self.and_below == rest.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::{Glob, PathRule};

    #[test]
    fn a_path_rule_matches_segment_by_segment() {
        let literal = |text: &str| Some(Box::from(text));
        let exact = PathRule::new(vec![literal("a"), None, literal("b")], false);
        let below = PathRule::new(vec![literal("a")], true);
        for (rule, path, expected) in [
            (&exact, "/a/x/b", true),
            (&exact, "/a//b", false),
            (&exact, "/a/x/b/", false),
            (&exact, "/a/x", false),
            (&below, "/a/", true),
            (&below, "/a/b/c", true),
            (&below, "/a", false),
            (&below, "/ab/c", false),
        ] {
            assert_eq!(rule.matches(path), expected, "{rule:?} {path}");
        }
    }

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        for (pattern, name, expected) in [
            ("utm_*", "utm_source", true),
            ("utm_*", "utm", false),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b", false),
            ("", "a", false),
            ("id", "id", true),
            ("id", "Id", false),
        ] {
            assert_eq!(Glob::new(pattern).matches(name), expected, "{pattern} on {name}");
        }
    }
}

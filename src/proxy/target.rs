//! The request target in the one form that routing, key, purge, log and origin see.

use std::borrow::Cow;

/// Path and query of a request, normalised once, before routing.
///
/// Equal resources get equal targets as far as RFC 3986 section 6.2.2 goes: octets that need no encoding are decoded,
/// hexadecimal digits are upper case, dot segments of the path are removed. `%2F` and `%5C` stay data, `//` is kept,
/// a query keeps its order and its emptiness. Normalising a target again changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    received: Box<str>,
    /// `None` when the received form is normal, as most are.
    normal: Option<Box<str>>,
    path_length: usize,
}

/// Why a target is refused with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum BadTarget {
    #[error("the target does not begin with a slash")]
    NoSlash,
    #[error("the target holds a control byte, a space or a byte above 0x7E; encode it as %XX")]
    Control,
    #[error("the target holds a fragment; encode a # that is data as %23")]
    Fragment,
    #[error("the target holds a backslash; encode one that is data as %5C")]
    Backslash,
    #[error("the target holds %00")]
    Nul,
    #[error("a percent sign in the path is not followed by two hexadecimal digits")]
    Percent,
    #[error("the path leads above the root")]
    AboveRoot,
}

impl Target {
    /// Normalises `raw`, a path with maybe a query as a client sent it.
    ///
    /// A percent sign without two hexadecimal digits is refused in a path; in a query, where people type it, it becomes
    /// `%25`.
    ///
    /// # Errors
    /// See [`BadTarget`].
    pub fn parse(raw: &str) -> Result<Self, BadTarget> {
        Self::of(raw.into())
    }

    /// [`Target::parse`] of what is kept then.
    ///
    /// # Errors
    /// See [`BadTarget`].
    pub fn of(received: Box<str>) -> Result<Self, BadTarget> {
        let raw = &*received;
        if !raw.starts_with('/') {
            return Err(BadTarget::NoSlash);
        }
        let (mut percent, mut previous, mut dotted, mut mark) = (false, b'/', false, None);
        for (at, byte) in raw.bytes().enumerate() {
            match byte {
                b'#' => return Err(BadTarget::Fragment),
                b'\\' => return Err(BadTarget::Backslash),
                b'%' => percent = true,
                b'?' => mark = mark.or(Some(at)),
                b'.' if previous == b'/' => dotted = true,
                byte if !byte.is_ascii_graphic() => return Err(BadTarget::Control),
                _ => {}
            }
            previous = byte;
        }
        let (path, query) = match mark {
            Some(at) => (&raw[..at], Some(&raw[at + 1..])),
            None => (raw, None),
        };
        if !percent && !dotted {
            let path_length = path.len();
            return Ok(Self { received, normal: None, path_length });
        }
        let mut normal = without_dot_segments(&decode(path, Stray::Refuse)?)?;
        let path_length = normal.len();
        if let Some(query) = query {
            normal.push('?');
            normal.push_str(&decode(query, Stray::Encode)?);
        }
        let normal = (normal != raw).then(|| normal.into_boxed_str());
        Ok(Self { received, normal, path_length })
    }

    /// `/`
    #[must_use]
    pub fn root() -> Self {
        Self { received: "/".into(), normal: None, path_length: 1 }
    }

    /// The path, beginning with `/`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path_and_query()[..self.path_length]
    }

    /// What follows the first `?`, which may be empty.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.path_and_query()[self.path_length..].strip_prefix('?')
    }

    /// The whole normal form.
    #[must_use]
    pub fn path_and_query(&self) -> &str {
        self.normal.as_deref().unwrap_or(&self.received)
    }

    /// What the client sent, for signatures over it.
    #[must_use]
    pub fn received(&self) -> &str {
        &self.received
    }
}

impl BadTarget {
    /// Its name in metrics and logs, in kebab case.
    #[must_use]
    pub fn reason(self) -> &'static str {
        self.into()
    }
}

/// What to do with a percent sign that encodes nothing.
#[derive(Clone, Copy)]
enum Stray {
    Refuse,
    Encode,
}

/// Decodes unreserved octets (RFC 3986 section 2.3) and writes the other triplets in upper case. One pass from the
/// left: what a decoded octet forms with its neighbours is never decoded again.
fn decode(text: &str, stray: Stray) -> Result<Cow<'_, str>, BadTarget> {
    let mut pieces = text.split('%');
    let Some(first) = pieces.next().filter(|first| first.len() < text.len()) else { return Ok(text.into()) };
    let mut out = String::with_capacity(text.len());
    out.push_str(first);
    for piece in pieces {
        let octet = piece.get(..2).filter(|hex| hex.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match (octet.and_then(|hex| u8::from_str_radix(hex, 16).ok()), stray) {
            (Some(0), _) => return Err(BadTarget::Nul),
            (Some(octet), _) => {
                if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
                    out.push(char::from(octet));
                } else {
                    out.push('%');
                    out.push_str(&piece[..2].to_ascii_uppercase());
                }
                out.push_str(&piece[2..]);
            }
            (None, Stray::Refuse) => return Err(BadTarget::Percent),
            (None, Stray::Encode) => {
                out.push_str("%25");
                out.push_str(piece);
            }
        }
    }
    Ok(out.into())
}

/// Removes `.` and `..` (RFC 3986 section 5.2.4), but does not let a path climb above the root.
fn without_dot_segments(path: &str) -> Result<String, BadTarget> {
    let mut out = String::with_capacity(path.len());
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    let parent = out.rfind('/').ok_or(BadTarget::AboveRoot)?;
                    out.truncate(parent);
                }
                if last {
                    out.push('/');
                }
            }
            _ => {
                out.push('/');
                out.push_str(segment);
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[rustfmt::skip]
    const NORMAL: &[(&str, &str)] = &[
        ("/", "/"),
        ("/a/b?c=d&c", "/a/b?c=d&c"),
        ("/%41%7e%2D%2e%5F", "/A~-._"),
        ("/%c3%a9%2f%5c%25", "/%C3%A9%2F%5C%25"),
        ("/a/./b", "/a/b"),
        ("/a/.", "/a/"),
        ("/./", "/"),
        ("/a/../b", "/b"),
        ("/a/b/..", "/a/"),
        ("/a/..", "/"),
        ("/a/b/../../c", "/c"),
        ("/a/%2e%2E/b", "/b"),
        ("/a/.%2e/b", "/b"),
        ("/a/%2e/b", "/a/b"),
        ("/a/.../b", "/a/.../b"),
        ("/a/..b/.c", "/a/..b/.c"),
        ("/a/%252e%252e/b", "/a/%252e%252e/b"),
        ("/a/..%2fb", "/a/..%2Fb"),
        ("/a/..;/b", "/a/..;/b"),
        ("//a//b//", "//a//b//"),
        ("//", "//"),
        ("/a//../b", "/a/b"),
        ("/.//a", "//a"),
        ("//../a", "/a"),
        ("/a?", "/a?"),
        ("/a?/../b/./c", "/a?/../b/./c"),
        ("/a?%7e%2f%zz%", "/a?~%2F%25zz%25"),
        ("/a?%%34%31", "/a?%2541"),
        ("/a??b?c", "/a??b?c"),
        ("/a%3Fb?c", "/a%3Fb?c"),
        ("/a%23b", "/a%23b"),
        ("/a:b@c;d=e,f!$&'()*+|^`{}\"<>[]", "/a:b@c;d=e,f!$&'()*+|^`{}\"<>[]"),
    ];

    const REFUSED: &[(&str, BadTarget)] = &[
        ("", BadTarget::NoSlash),
        ("a/b", BadTarget::NoSlash),
        ("http://a/", BadTarget::NoSlash),
        ("/..", BadTarget::AboveRoot),
        ("/../a", BadTarget::AboveRoot),
        ("/a/../../b", BadTarget::AboveRoot),
        ("/%2e%2e/a", BadTarget::AboveRoot),
        ("/./../a", BadTarget::AboveRoot),
        ("/%00", BadTarget::Nul),
        ("/a?b=%00", BadTarget::Nul),
        ("/a\\b", BadTarget::Backslash),
        ("/a?\\", BadTarget::Backslash),
        ("/a#b", BadTarget::Fragment),
        ("/a b", BadTarget::Control),
        ("/a\tb", BadTarget::Control),
        ("/\u{7f}", BadTarget::Control),
        ("/\u{e9}", BadTarget::Control),
        ("/100%", BadTarget::Percent),
        ("/%4", BadTarget::Percent),
        ("/%4g", BadTarget::Percent),
        ("/%%41", BadTarget::Percent),
        ("/%+1", BadTarget::Percent),
    ];

    #[test]
    fn a_target_has_one_normal_form() {
        for (raw, normal) in NORMAL {
            let target = Target::parse(raw).unwrap_or_else(|bad| panic!("{raw}: {bad}"));
            assert_eq!(target.path_and_query(), *normal, "{raw}");
            assert_eq!(target.received(), *raw);
            let query = normal.split_once('?').map(|(_, query)| query);
            assert_eq!((target.query(), target.path()), (query, normal.split('?').next().unwrap()), "{raw}");
        }
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for (raw, bad) in REFUSED {
            assert_eq!(Target::parse(raw), Err(*bad), "{raw}");
        }
    }

    /// The path as RFC 3986 section 5.2.4 says it, on a stack of segments; `None` above the root.
    fn resolved(path: &str) -> Option<String> {
        let mut stack = Vec::new();
        let segments: Vec<&str> = path[1..].split('/').collect();
        for (at, segment) in segments.iter().enumerate() {
            match *segment {
                "." => {}
                ".." => drop(stack.pop()?),
                segment => stack.push(segment),
            }
            if at + 1 == segments.len() && [".", ".."].contains(segment) {
                stack.push("");
            }
        }
        Some(format!("/{}", stack.join("/")))
    }

    /// Every spelling of a byte: as it is, and encoded with either case of digits.
    fn spelled(text: &str) -> impl Strategy<Value = String> + use<> {
        let spellings: Vec<_> = text
            .bytes()
            .map(|byte| {
                let plain = char::from(byte).to_string();
                if byte == b'/' {
                    return Just(plain).boxed(); // an encoded slash is another byte
                }
                prop_oneof![Just(plain), Just(format!("%{byte:02x}")), Just(format!("%{byte:02X}"))].boxed()
            })
            .collect();
        spellings.prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn dot_segments_go_however_they_are_spelled(
            (plain, spelled) in "/([.a]{0,3}/){0,4}[.a]{0,3}".prop_flat_map(|plain| {
                let spelled = spelled(&plain);
                (Just(plain), spelled)
            })
        ) {
            match (Target::parse(&spelled), resolved(&plain)) {
                (Ok(target), Some(path)) => prop_assert_eq!(target.path(), path),
                (Err(bad), None) => prop_assert_eq!(bad, BadTarget::AboveRoot),
                (target, path) => prop_assert!(false, "{:?} but {:?}", target, path),
            }
        }

        #[test]
        fn a_normal_form_is_normal(raw in "/[-a./%?0-9A-F;~]{0,40}") {
            if let Ok(target) = Target::parse(&raw) {
                let again = Target::parse(target.path_and_query());
                prop_assert_eq!(again.as_ref().map(Target::path_and_query), Ok(target.path_and_query()));
                prop_assert_eq!(again.as_ref().map(Target::path), Ok(target.path()));
                prop_assert!(target.path().split('/').all(|segment| !matches!(segment, "." | "..")));
                prop_assert!(!target.path_and_query().contains("%2E") && !target.path_and_query().contains("%2e"));
            }
        }
    }
}

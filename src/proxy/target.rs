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
        if !raw.starts_with('/') {
            return Err(BadTarget::NoSlash);
        }
        let (mut percent, mut previous, mut dotted) = (false, b'/', false);
        for byte in raw.bytes() {
            match byte {
                b'#' => return Err(BadTarget::Fragment),
                b'\\' => return Err(BadTarget::Backslash),
                b'%' => percent = true,
                b'.' if previous == b'/' => dotted = true,
                byte if !byte.is_ascii_graphic() => return Err(BadTarget::Control),
                _ => {}
            }
            previous = byte;
        }
        let (path, query) = match raw.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (raw, None),
        };
        if !percent && !dotted {
            return Ok(Self { received: raw.into(), normal: None, path_length: path.len() });
        }
        let mut normal = without_dot_segments(&decode(path, Stray::Refuse)?)?;
        let path_length = normal.len();
        if let Some(query) = query {
            normal.push('?');
            normal.push_str(&decode(query, Stray::Encode)?);
        }
        let normal = (normal != raw).then(|| normal.into_boxed_str());
        Ok(Self { received: raw.into(), normal, path_length })
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

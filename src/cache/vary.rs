//! `Vary`: which fields of the request select among the variants of a key (RFC 9111 4.1).

use http::{HeaderMap, HeaderName, header};

use super::directives::quoted_length;

/// Names in one `Vary`; a longer one is taken for `*`.
const VARY_NAMES_MAX: usize = 32;

/// Members of one negotiation field that are put in order; a longer one is compared as it is.
const SORTED_MEMBERS_MAX: usize = 32;

/// What `Vary` of a response says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Vary {
    /// No field of the request matters.
    None,
    /// Something that is not in the request matters: matches nothing.
    Star,
    /// These fields matter; sorted, each once.
    Fields(Vec<HeaderName>),
}

impl Vary {
    /// Reads all lines; what cannot be read is [`Vary::Star`].
    pub fn parse(fields: &HeaderMap) -> Self {
        let mut names = Vec::new();
        for member in fields.get_all(header::VARY).iter().flat_map(|line| line.as_bytes().split(|&b| b == b',')) {
            let member = member.trim_ascii();
            if member.is_empty() {
                continue;
            }
            match HeaderName::from_bytes(member) {
                Ok(name) if member != b"*" && names.len() < VARY_NAMES_MAX => names.push(name),
                _ => return Self::Star,
            }
        }
        if names.is_empty() {
            return Self::None;
        }
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        Self::Fields(names)
    }

    /// The selecting fields.
    pub fn names(&self) -> &[HeaderName] {
        match self {
            Self::None | Self::Star => &[],
            Self::Fields(names) => names,
        }
    }
}

/// The selecting fields of one request, in canonical spelling: equal keys are the same variant.
///
/// Lines of a field are combined, white space around commas does not count, and `Accept-Language` and
/// `Accept-Encoding` are compared without regard to case and order, which have no meaning there (RFC 9110 12.5).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VariantKey(Box<[u8]>);

impl VariantKey {
    /// Of the request that a response with this `Vary` answers.
    pub fn of(vary: &Vary, request: &HeaderMap) -> Self {
        let mut text = Vec::new();
        let _ = canonical(vary, request, &mut |part| {
            text.extend_from_slice(part);
            true
        });
        Self(text.into())
    }

    /// Is this the key of that request? As comparing with [`VariantKey::of`], without building it. `Star` never is.
    pub fn matches(&self, vary: &Vary, request: &HeaderMap) -> bool {
        let mut rest = &*self.0;
        let same = canonical(vary, request, &mut |part| match rest.strip_prefix(part) {
            Some(after) => {
                rest = after;
                true
            }
            None => false,
        });
        *vary != Vary::Star && same && rest.is_empty()
    }

    /// What [`VariantKey::as_bytes`] gave, as a tier kept it.
    pub fn restored(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// For people and records: `name=value`, `name absent`, and `name not shown` where the value is somebody's secret.
    pub fn shown(&self) -> impl Iterator<Item = String> {
        let text = String::from_utf8_lossy(&self.0).into_owned();
        let lines: Vec<_> = text.lines().map(shown).collect();
        lines.into_iter()
    }
}

/// A line of [`canonical`]. Any field may bring a secret, an address with a ticket in it, or a key; only of those that say what a
/// client can read and draw, or where a page came from, the value is shown.
fn shown(line: &str) -> String {
    let is_harmless = |name: &str| {
        ["accept", "sec-ch-", "sec-fetch-"].iter().any(|beginning| name.starts_with(beginning))
            || matches!(name, "origin" | "x-requested-with" | "save-data" | "dpr" | "user-agent" | "x-forwarded-proto")
    };
    match line.split_once('=') {
        Some((name, value)) if is_harmless(name) => format!("{name}={}", value.trim_end_matches(',')),
        Some((name, _)) => format!("{name} not shown"),
        None => format!("{} absent", line.trim_end_matches('!')),
    }
}

/// Writes `name=value` or, for an absent field, `name!`, each ended by a line feed, which no field value can hold.
/// Stops and is false as soon as `write` is.
fn canonical(vary: &Vary, request: &HeaderMap, write: &mut impl FnMut(&[u8]) -> bool) -> bool {
    vary.names().iter().all(|name| {
        write(name.as_str().as_bytes())
            && if request.contains_key(name) { write(b"=") && value(name, request, write) } else { write(b"!") }
            && write(b"\n")
    })
}

fn value(name: &HeaderName, request: &HeaderMap, write: &mut impl FnMut(&[u8]) -> bool) -> bool {
    let members = || request.get_all(name).iter().flat_map(|line| Members(Some(line.as_bytes())));
    if (name == header::ACCEPT_LANGUAGE || name == header::ACCEPT_ENCODING)
        && members().nth(SORTED_MEMBERS_MAX).is_none()
    {
        let mut sorted = [&[][..]; SORTED_MEMBERS_MAX];
        let mut count = 0;
        for member in members().filter(|member| !member.is_empty()) {
            sorted[count] = member;
            count += 1;
        }
        let sorted = &mut sorted[..count];
        sorted.sort_unstable_by(|a, b| folded(a).cmp(folded(b)));
        return sorted.iter().all(|member| folded(member).all(|b| write(&[b])) && write(b","));
    }
    members().enumerate().all(|(at, member)| (at == 0 || write(b",")) && write(member))
}

/// In lower case and without white space.
fn folded(member: &[u8]) -> impl Iterator<Item = u8> {
    member.iter().filter(|b| !matches!(b, b' ' | b'\t')).map(u8::to_ascii_lowercase)
}

/// What stands between commas, trimmed; commas in quoted strings do not part.
struct Members<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Members<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let text = self.0?;
        let mut at = 0;
        while at < text.len() && text[at] != b',' {
            at += if text[at] == b'"' { quoted_length(&text[at..]).unwrap_or(1) } else { 1 };
        }
        self.0 = text.get(at + 1..);
        Some(text[..at].trim_ascii())
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn people_see_what_picked_a_variant_and_no_secrets() {
        let (mut response, mut request) = (HeaderMap::new(), HeaderMap::new());
        let names = "Accept-Language, Origin, Save-Data, Referer, Cookie, Authorization, X-Api-Key";
        response.insert(header::VARY, HeaderValue::from_static(names));
        for (name, value) in [
            ("accept-language", "de, en;q=0.5"),
            ("origin", "https://a.test"),
            ("referer", "https://a.test/join?ticket=secret"),
            ("cookie", "session=secret"),
            ("authorization", "Bearer secret"),
            ("x-api-key", "secret"),
        ] {
            request.insert(name, HeaderValue::from_static(value));
        }
        let shown: Vec<_> = VariantKey::of(&Vary::parse(&response), &request).shown().collect();
        let shown = shown.join("; ");
        assert!(!shown.contains("secret"), "{shown}");
        for part in ["accept-language=de,en;q=0.5", "origin=https://a.test", "save-data absent", "referer not shown"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }
}

//! Conditional requests answered from a stored response (RFC 9110 section 13, RFC 9111 4.3.2).

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::{
    date,
    directives::quoted_length,
    meta::Meta,
    storable::RequestView,
    validation::{is_weak, opaque},
};

/// What the preconditions of a request make of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// Answer as if there were none.
    Proceed,
    /// 304 with [`not_modified_fields`].
    NotModified,
    /// `If-Match` or `If-Unmodified-Since` is false of the stored response. These are for the origin (RFC 9111
    /// 4.3.2): ask it instead of answering 412.
    Failed,
}

/// In the order of RFC 9110 13.2.2. Only a stored response with a 2xx status has preconditions at all (13.2.1).
pub fn evaluate(request: &RequestView<'_>, meta: &Meta) -> Precondition {
    let fields = request.fields;
    // A look at each name costs less than to look up four that are not there.
    let is_conditional = || fields.keys().any(|name| name.as_str().starts_with("if-"));
    if !meta.status.is_success() || !is_conditional() {
        return Precondition::Proceed;
    }
    if fields.contains_key(header::IF_MATCH) {
        if !any_tag(fields, &header::IF_MATCH, |tag| strong_match(tag, meta)) {
            return Precondition::Failed;
        }
    } else if let Some(since) = sole_date(fields, &header::IF_UNMODIFIED_SINCE)
        && meta.last_modified.unwrap_or(meta.date) > since
    {
        return Precondition::Failed;
    }
    if fields.contains_key(header::IF_NONE_MATCH) {
        let stored = meta.etag().map(|etag| opaque(etag.as_bytes()));
        return match any_tag(fields, &header::IF_NONE_MATCH, |tag| stored == Some(opaque(tag))) {
            true => Precondition::NotModified,
            false => Precondition::Proceed,
        };
    }
    let gets = request.method == Method::GET || request.method == Method::HEAD;
    match sole_date(fields, &header::IF_MODIFIED_SINCE) {
        // Without `Last-Modified`, `Date` is compared (RFC 9111 4.3.2).
        Some(since) if gets && meta.last_modified.unwrap_or(meta.date) <= since => Precondition::NotModified,
        _ => Precondition::Proceed,
    }
}

/// The fields of a 304: all but those that describe the body which is not sent (RFC 9110 15.4.5).
/// `Last-Modified` goes only where there is no `ETag`.
pub fn not_modified_fields(meta: &Meta) -> HeaderMap {
    let describes_body = |name: &HeaderName| {
        matches!(
            name.as_str(),
            "accept-ranges"
                | "content-digest"
                | "content-disposition"
                | "content-encoding"
                | "content-language"
                | "content-length"
                | "content-md5"
                | "content-range"
                | "content-type"
                | "digest"
                | "repr-digest"
        ) || (*name == header::LAST_MODIFIED && meta.etag().is_some())
    };
    let mut fields = HeaderMap::with_capacity(meta.fields.len());
    for (name, value) in meta.fields.iter().filter(|(name, _)| !describes_body(name)) {
        fields.append(name.clone(), value.clone());
    }
    fields
}

/// Strong comparison (RFC 9110 8.8.3.2).
pub(super) fn strong_match(tag: &[u8], meta: &Meta) -> bool {
    meta.etag().is_some_and(|etag| !is_weak(etag) && etag.as_bytes() == tag)
}

/// The date of a field that has one line and is a date; else the field is ignored (RFC 9110 13.1.3, 13.1.4).
fn sole_date(fields: &HeaderMap, name: &HeaderName) -> Option<std::time::SystemTime> {
    let mut lines = fields.get_all(name).iter();
    let line: &HeaderValue = lines.next()?;
    if lines.next().is_some() { None } else { date::parse(line) }
}

/// `*`, or a member of the list for which `matches` holds.
fn any_tag(fields: &HeaderMap, name: &HeaderName, matches: impl Fn(&[u8]) -> bool) -> bool {
    fields.get_all(name).iter().any(|line| line.as_bytes().trim_ascii() == b"*" || Tags(line.as_bytes()).any(&matches))
}

/// The entity tags between commas; a comma may be part of an opaque tag. An entity tag has no escapes, but a
/// backslash before the closing quote is rare enough to be read as one.
struct Tags<'a>(&'a [u8]);

impl<'a> Iterator for Tags<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let start = self.0.iter().position(|b| !matches!(b, b',' | b' ' | b'\t'))?;
        let text = &self.0[start..];
        let mut end = 0;
        while end < text.len() && text[end] != b',' {
            end += if text[end] == b'"' { quoted_length(&text[end..]).unwrap_or(1) } else { 1 };
        }
        self.0 = &text[end..];
        Some(text[..end].trim_ascii())
    }
}

//! Content codings: what a client accepts, which of ours it gets, what is worth one, and the head of a coded copy
//! (RFC 9110 8.4, 12.5.3).

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::{
    date,
    directives::{RequestDirectives, ResponseDirectives, Scope},
    meta::Meta,
    pattern::Glob,
    quality::thousandths,
    validation::is_weak,
    vary::Vary,
};

/// Members of one `Accept-Encoding` that are looked at; no client has so many codings.
const MEMBERS_MAX: usize = 32;

/// Bytes of the largest body that is coded: both bodies are in memory while it is.
pub const CODED_MAX: u64 = 16 * 1024 * 1024;

/// Statuses of which copies are made: others have no body, some of one, or are too rare to matter.
pub static CODED_STATUSES: [StatusCode; 4] =
    [StatusCode::OK, StatusCode::NON_AUTHORITATIVE_INFORMATION, StatusCode::NOT_FOUND, StatusCode::GONE];

/// Fields that speak of the very bytes which the origin sent (RFC 9530, RFC 9421, and what came before them). A coded
/// copy would make them wrong, and without them it would be less than what the origin gave: it is not made.
static SPEAK_OF_BYTES: [HeaderName; 5] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("signature"),
];

/// `compress` of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compress {
    /// The best first, each once.
    pub prefer: Vec<Coding>,
    /// Media types, lower-case.
    pub types: Vec<Glob>,
    /// Bytes of the smallest body that is compressed.
    pub min_size: u64,
}

/// A coding that this cache makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::EnumCount, strum::EnumIter)]
pub enum Coding {
    /// RFC 7932.
    Brotli,
    /// RFC 8878, as RFC 9659 narrows it: a window of at most 8 MiB.
    Zstd,
    /// RFC 1952.
    Gzip,
}

/// What client and policy agree on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Negotiated {
    /// Nothing: the policy does not compress, or the cache has no part in the request.
    #[default]
    Nothing,
    /// The bytes as they are: the client accepts no coding of ours, or wants some of the bytes.
    Identity,
    /// This coding, where there is a copy in it.
    Coding(Coding),
}

impl Coding {
    /// Its registered name (RFC 9110 18.6).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    fn named(name: &str) -> Option<Self> {
        // RFC 9110 8.4.1.3: the old name is the same coding.
        let names = [("br", Self::Brotli), ("zstd", Self::Zstd), ("gzip", Self::Gzip), ("x-gzip", Self::Gzip)];
        names.into_iter().find(|(own, _)| name.eq_ignore_ascii_case(own)).map(|(_, coding)| coding)
    }
}

impl Compress {
    /// The coding that the client wants most, ours first where it does not care; `None`: the identity. Without
    /// `Accept-Encoding` anything would do, and the identity is what everybody can read.
    pub fn choose(&self, request: &HeaderMap) -> Option<Coding> {
        let accepted = Accepted::parse(request);
        // Not named it is acceptable, and less than anything that is named.
        let mut best = (None, accepted.identity.unwrap_or(0).max(1));
        for &coding in &self.prefer {
            let weight = accepted.weight(coding);
            let beats = if best.0.is_none() { weight >= best.1 } else { weight > best.1 };
            if beats {
                best = (Some(coding), weight);
            }
        }
        best.0
    }

    /// Settles what this request gets, and takes its `Accept-Encoding` for just that: keys, variants and the origin see
    /// the one coding or `identity`, so that the spellings of browsers are at most one variant for each coding.
    ///
    /// Coded copies are for whole answers. A range is one of the identity; `If-Match` compares tags that a copy does not
    /// have; and a client may forbid to transform (RFC 9111 5.2.1.6). A date in `If-Range` cannot tell which of the two
    /// the client has begun to read: nothing is joined under it, the whole is sent (RFC 9110 14.2 allows that).
    pub fn negotiate(&self, request: &mut HeaderMap, directives: &RequestDirectives) -> Negotiated {
        let chosen = self.choose(request);
        let name = chosen.map_or("identity", Coding::name);
        request.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(name));
        let Some(coding) = chosen else { return Negotiated::Identity };
        if request.get(header::IF_RANGE).and_then(date::parse).is_some() {
            request.remove(header::IF_RANGE);
            request.remove(header::RANGE);
        }
        let wants_identity =
            directives.no_transform || request.contains_key(header::RANGE) || request.contains_key(header::IF_MATCH);
        if wants_identity { Negotiated::Identity } else { Negotiated::Coding(coding) }
    }

    /// May such a response have coded copies, and are they worth it? `length`: of the body, where it is known.
    pub fn applies(&self, status: StatusCode, fields: &HeaderMap, length: Option<u64>) -> bool {
        self.why_not(status, fields, length).is_none()
    }

    /// Why such a response has no coded copies, if it has none.
    pub fn why_not(&self, status: StatusCode, fields: &HeaderMap, length: Option<u64>) -> Option<Uncoded> {
        self.not_wanted(fields, length).or_else(|| not_allowed(status, fields))
    }

    /// The policy's part of [`applies`](Self::applies).
    pub fn wants(&self, fields: &HeaderMap, length: Option<u64>) -> bool {
        self.not_wanted(fields, length).is_none()
    }

    fn not_wanted(&self, fields: &HeaderMap, length: Option<u64>) -> Option<Uncoded> {
        let max = self.min_size.max(1)..=CODED_MAX;
        if length.is_some_and(|length| !max.contains(&length)) {
            return Some(Uncoded::Size);
        }
        let is_of_types = media_type(fields).is_some_and(|name| self.types.iter().any(|glob| glob.matches(&name)));
        (!is_of_types).then_some(Uncoded::Type)
    }
}

/// Why a response has no coded copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Uncoded {
    /// Its body is smaller than the policy's `min_size`, or larger than [`CODED_MAX`].
    Size,
    /// The policy's `types` do not have its media type, or it has none.
    Type,
    /// Its status is none of [`CODED_STATUSES`].
    Status,
    /// Its type is compressed already, or is read while it comes.
    NeverCoded,
    /// The origin has coded it.
    Coded,
    /// It is a part of a body.
    Partial,
    /// A field speaks of the very bytes that the origin sent.
    SpeaksOfBytes,
    /// It is for one person, or the origin forbids to transform it (`no-transform`, RFC 9111 5.2.2.6).
    NotForAll,
}

/// The origin's part of [`Compress::applies`]: it is a whole answer for everybody, of a type that shrinks, not coded yet, and
/// nobody forbade it.
pub fn may_be_coded(status: StatusCode, fields: &HeaderMap) -> bool {
    not_allowed(status, fields).is_none()
}

fn not_allowed(status: StatusCode, fields: &HeaderMap) -> Option<Uncoded> {
    let is_for_all = || {
        is_for_all(&ResponseDirectives::parse(fields))
            && ResponseDirectives::targeted(fields).is_none_or(|directives| is_for_all(&directives))
    };
    if !CODED_STATUSES.contains(&status) {
        Some(Uncoded::Status)
    } else if media_type(fields).is_none_or(|name| is_never_coded(&name)) {
        Some(Uncoded::NeverCoded)
    } else if fields.contains_key(header::CONTENT_ENCODING) {
        Some(Uncoded::Coded)
    } else if fields.contains_key(header::CONTENT_RANGE) {
        Some(Uncoded::Partial)
    } else if SPEAK_OF_BYTES.iter().any(|name| fields.contains_key(name)) {
        Some(Uncoded::SpeaksOfBytes)
    } else if !is_for_all() {
        Some(Uncoded::NotForAll)
    } else {
        None
    }
}

/// May caches transform it? What is one person's is not coded even where a policy stores it: the length of a coded body
/// tells of what is in it.
fn is_for_all(directives: &ResponseDirectives) -> bool {
    !directives.no_transform && !directives.no_store && directives.private != Scope::Whole
}

/// Types that are never coded, whatever a policy says: their bytes are compressed already, or are read while they come. `name`
/// is lower-case and without parameters.
pub fn is_never_coded(name: &str) -> bool {
    let (kind, subtype) = name.split_once('/').unwrap_or((name, ""));
    match kind {
        "audio" | "video" | "multipart" => true,
        "image" => !matches!(subtype, "svg+xml" | "bmp" | "x-icon" | "vnd.microsoft.icon"),
        "font" => matches!(subtype, "woff" | "woff2"),
        "text" => subtype == "event-stream",
        "application" => {
            subtype.ends_with("+zip")
                || subtype.ends_with("+gzip")
                || subtype.ends_with("+zstd")
                || subtype.starts_with("grpc")
                || matches!(
                    subtype,
                    "zip"
                        | "gzip"
                        | "x-gzip"
                        | "zstd"
                        | "x-7z-compressed"
                        | "x-bzip2"
                        | "x-xz"
                        | "vnd.rar"
                        | "x-rar-compressed"
                        | "font-woff"
                        | "pdf"
                )
        }
        _ => false,
    }
}

/// The head of a copy in this coding: the same content in other bytes. Its tag is weak, so that it validates and never
/// joins ranges of the two (RFC 9110 8.8.3.3); it has no ranges of its own.
pub fn coded(meta: &Meta, coding: Coding) -> Meta {
    let mut meta = meta.clone();
    meta.fields.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    meta.fields.remove(header::ACCEPT_RANGES);
    weak_tag(&mut meta.fields);
    meta
}

/// Makes the entity tag weak.
pub fn weak_tag(fields: &mut HeaderMap) {
    if let Some(etag) = fields.get_mut(header::ETAG)
        && !is_weak(etag)
        && let Ok(weak) = HeaderValue::try_from([b"W/", etag.as_bytes()].concat())
    {
        *etag = weak;
    }
}

/// Says that `Accept-Encoding` selects among representations (RFC 9110 12.5.5), where that is not said yet.
pub fn vary_on_encoding(fields: &mut HeaderMap) {
    let said = match Vary::parse(fields) {
        Vary::Star => true,
        vary => vary.names().contains(&header::ACCEPT_ENCODING),
    };
    if !said {
        fields.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

/// Lower-case, without parameters.
fn media_type(fields: &HeaderMap) -> Option<Cow<'_, str>> {
    let value = fields.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let name = value.split(';').next()?.trim();
    if name.is_empty() {
        return None;
    }
    let is_lower = !name.bytes().any(|b| b.is_ascii_uppercase());
    Some(if is_lower { Cow::Borrowed(name) } else { Cow::Owned(name.to_ascii_lowercase()) })
}

/// `Accept-Encoding`, weights in thousandths. What cannot be read counts as not said; of what is said twice the less counts.
#[derive(Default)]
struct Accepted {
    brotli: Option<u16>,
    zstd: Option<u16>,
    gzip: Option<u16>,
    identity: Option<u16>,
    any: Option<u16>,
}

impl Accepted {
    fn parse(request: &HeaderMap) -> Self {
        let mut accepted = Self::default();
        let lines = request.get_all(header::ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
        for member in lines.flat_map(|line| line.split(',')).take(MEMBERS_MAX) {
            let mut parts = member.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let slot = match Coding::named(name) {
                Some(coding) => accepted.slot(coding),
                None if name.eq_ignore_ascii_case("identity") => &mut accepted.identity,
                None if name == "*" => &mut accepted.any,
                None => continue,
            };
            let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            if let Some(weight) = quality.map_or(Some(1000), thousandths) {
                *slot = Some(slot.map_or(weight, |other| weight.min(other)));
            }
        }
        accepted
    }

    fn slot(&mut self, coding: Coding) -> &mut Option<u16> {
        match coding {
            Coding::Brotli => &mut self.brotli,
            Coding::Zstd => &mut self.zstd,
            Coding::Gzip => &mut self.gzip,
        }
    }

    fn weight(&self, coding: Coding) -> u16 {
        let own = match coding {
            Coding::Brotli => self.brotli,
            Coding::Zstd => self.zstd,
            Coding::Gzip => self.gzip,
        };
        own.or(self.any).unwrap_or(0)
    }
}

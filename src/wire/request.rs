//! A complete request head becomes values (RFC 9112 sections 3, 5 and 6).

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, Method, header};
use memchr::memchr;

use super::{
    authority::Authority,
    error::BadRequest,
    fields::{self, FieldLines, SpaceBeforeColon},
    framing::{self, BadLength, Coding, Framing, Version},
    head::{HeadLimits, HeadReader, METHOD_MAX, UnderscoreHeaders},
};

/// What a client asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestHead {
    /// Case-sensitive, unchanged.
    pub method: Method,
    pub target: RawTarget,
    pub version: Version,
    /// Of the absolute form if the target has one, else of `Host`; `None` only for HTTP/1.0 without either.
    pub authority: Option<Authority>,
    /// All but `Host`, `Content-Length` and `Transfer-Encoding`, in the order received. Shared with the requests of a
    /// connection that have the same ones.
    pub fields: Arc<HeaderMap>,
    pub framing: Framing,
    /// The client wants to send another request on this connection.
    pub keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
}

/// The request target in its four forms (RFC 9112 section 3.2), the absolute form reduced to the origin form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawTarget {
    /// Path and query as received, beginning with `/`; visible ASCII without `#`.
    Origin(Box<str>),
    /// `OPTIONS *`
    Asterisk,
    /// `CONNECT host:port`; the authority holds what it names.
    Authority,
}

/// [`HeadReader::request`] for a head that is not read in pieces.
///
/// # Errors
/// See [`BadRequest`].
pub fn parse_request(buf: &mut BytesMut, limits: &HeadLimits) -> Result<Option<RequestHead>, BadRequest> {
    HeadReader::new(*limits).request(buf)
}

/// A request line longer than its limit: the method or the target, decided by the first bytes alone.
pub(super) fn too_long(line: &[u8]) -> BadRequest {
    match memchr(b' ', &line[..line.len().min(METHOD_MAX + 1)]) {
        Some(_) => BadRequest::TargetTooLong,
        None => BadRequest::MethodTooLong,
    }
}

/// What a request line says.
pub(super) struct RequestLine {
    method: Method,
    target: RawTarget,
    named: Option<Authority>,
    pub(super) version: Version,
}

impl RequestLine {
    /// `line` is without its CRLF.
    pub(super) fn parse(line: &[u8], limits: &HeadLimits) -> Result<Self, BadRequest> {
        let (method, raw_target, version) = request_line(line)?;
        if raw_target.len() > limits.target_bytes {
            return Err(BadRequest::TargetTooLong);
        }
        let (target, named) = target(&method, raw_target)?;
        Ok(Self { method, target, named, version })
    }

    /// The head that this line begins and these fields end.
    pub(super) fn with(self, section: &Section) -> Result<RequestHead, BadRequest> {
        let Self { method, target, named, version } = self;
        let framing = section.framing(&method, version)?;
        Ok(RequestHead {
            method,
            target,
            version,
            authority: named.or_else(|| section.host.clone()),
            fields: Arc::clone(&section.fields),
            framing,
            keep_alive: !section.close && (section.keep_alive || version == Version::Http11),
            expect_continue: section.expect_continue && !matches!(framing, Framing::None | Framing::Length(0)),
        })
    }
}

/// What the field lines of a request say.
#[derive(Debug, Clone)]
pub(super) struct Section {
    host: Option<Authority>,
    fields: Arc<HeaderMap>,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expect_continue: bool,
}

impl Section {
    /// How a request with these fields is framed.
    fn framing(&self, method: &Method, version: Version) -> Result<Framing, BadRequest> {
        if self.host.is_none() && version != Version::Http10 {
            return Err(BadRequest::MissingHost);
        }
        Ok(match (self.length, self.chunked) {
            (_, true) if version == Version::Http10 => return Err(BadRequest::TransferEncodingInHttp10),
            (Some(_), true) => return Err(BadRequest::LengthAndTransferEncoding),
            (None, true) => Framing::Chunked,
            (Some(length), false) => Framing::Length(length),
            // RFC 1945 section 8.3; such a client ends its body by closing, and then cannot be answered.
            (None, false) if version == Version::Http10 && *method == Method::POST => {
                return Err(BadRequest::LengthRequired);
            }
            (None, false) => Framing::None,
        })
    }
}

/// `head` is complete: lines that end in CRLF, the last one empty; `count` field lines, the first one at `at`.
pub(super) fn section(
    head: &Bytes,
    at: usize,
    count: usize,
    version: Version,
    limits: &HeadLimits,
) -> Result<Section, BadRequest> {
    // `Host` is not among them.
    let mut head_fields =
        HeaderMap::try_with_capacity(count.saturating_sub(1)).map_err(|_| BadRequest::TooManyFields)?;
    let mut host: Option<Authority> = None;
    let mut length: Option<u64> = None;
    let mut chunked = false;
    let (mut close, mut keep_alive, mut expect_continue) = (false, false, false);

    for field in FieldLines::new(head, at, SpaceBeforeColon::Refuse) {
        let field = field?;
        let value = field.bytes();
        // A known name is compared as a number.
        if field.name == header::HOST {
            if host.is_some() {
                return Err(BadRequest::DuplicateHost);
            }
            let text = std::str::from_utf8(value).map_err(|_| BadRequest::Host)?;
            host = Some(Authority::parse(text).map_err(|_| BadRequest::Host)?);
            continue;
        } else if field.name == header::CONTENT_LENGTH {
            if length.is_some() {
                return Err(BadRequest::DuplicateContentLength);
            }
            length = Some(framing::content_length(value).map_err(|bad| match bad {
                BadLength::Syntax => BadRequest::ContentLength,
                BadLength::Overflow => BadRequest::ContentLengthOverflow,
            })?);
            continue;
        } else if field.name == header::TRANSFER_ENCODING {
            if chunked {
                return Err(BadRequest::DuplicateTransferEncoding);
            }
            match framing::transfer_coding(value) {
                Coding::Chunked => chunked = true,
                Coding::Unsupported => return Err(BadRequest::UnsupportedTransferEncoding),
                Coding::Malformed => return Err(BadRequest::TransferEncoding),
            }
            continue;
        } else if field.name == header::CONNECTION {
            for option in fields::list(value) {
                close |= option.eq_ignore_ascii_case(b"close");
                keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if field.name == header::EXPECT {
            // HTTP/1.0 has no expectations: the field is ignored, and not passed on to a server that would not ignore
            // it (RFC 9110 section 10.1.1).
            if version == Version::Http10 {
                field.value()?;
                continue;
            }
            if !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(BadRequest::Expectation);
            }
            expect_continue = true;
        } else if limits.underscore_headers != UnderscoreHeaders::Pass && has_underscore(&field.name) {
            field.value()?;
            match limits.underscore_headers {
                UnderscoreHeaders::Reject => return Err(BadRequest::UnderscoreField),
                UnderscoreHeaders::Drop | UnderscoreHeaders::Pass => continue,
            }
        }
        let value = field.value()?;
        head_fields.try_append(field.name, value).map_err(|_| BadRequest::TooManyFields)?;
    }

    let fields = Arc::new(head_fields);
    Ok(Section { host, fields, length, chunked, close, keep_alive, expect_continue })
}

fn has_underscore(name: &HeaderName) -> bool {
    memchr(b'_', name.as_str().as_bytes()).is_some()
}

/// `method SP request-target SP HTTP-version` (RFC 9112 section 3), with exactly these spaces.
fn request_line(line: &[u8]) -> Result<(Method, &str, Version), BadRequest> {
    let space = memchr(b' ', line).ok_or(BadRequest::RequestLine)?;
    let (method, rest) = (&line[..space], &line[space + 1..]);
    if !fields::is_token(method) {
        return Err(BadRequest::Method);
    }
    if method.len() > METHOD_MAX {
        return Err(BadRequest::MethodTooLong);
    }
    let method = Method::from_bytes(method).map_err(|_| BadRequest::Method)?;
    let space = memchr(b' ', rest).ok_or(BadRequest::RequestLine)?;
    let (target, version) = (&rest[..space], &rest[space + 1..]);
    let version = match version {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            match major {
                b'1' => Version::Http11,
                _ => return Err(BadRequest::UnsupportedVersion),
            }
        }
        _ => return Err(BadRequest::Version),
    };
    // A fragment is never sent; `#` inside would cut the target short for whoever parses it as a URI reference.
    if target.is_empty() || !target.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#') {
        return Err(BadRequest::Target);
    }
    let target = std::str::from_utf8(target).map_err(|_| BadRequest::Target)?;
    Ok((method, target, version))
}

/// The form of the target, and the authority that it names (RFC 9112 section 3.2).
fn target(method: &Method, raw: &str) -> Result<(RawTarget, Option<Authority>), BadRequest> {
    if *method == Method::CONNECT {
        let authority = Authority::parse(raw).map_err(|_| BadRequest::Target)?;
        return if authority.port.is_some() {
            Ok((RawTarget::Authority, Some(authority)))
        } else {
            Err(BadRequest::Target)
        };
    }
    if raw.starts_with('/') {
        return Ok((RawTarget::Origin(raw.into()), None));
    }
    if raw == "*" && *method == Method::OPTIONS {
        return Ok((RawTarget::Asterisk, None));
    }
    let (scheme, rest) = raw.split_once("://").ok_or(BadRequest::Target)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(BadRequest::Target);
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let authority = Authority::parse(authority).map_err(|_| BadRequest::Target)?;
    let target = match path {
        // RFC 9112 section 3.2.4: the last proxy turns it into `*`.
        "" if *method == Method::OPTIONS => RawTarget::Asterisk,
        "" => RawTarget::Origin("/".into()),
        path if path.starts_with('?') => RawTarget::Origin(format!("/{path}").into()),
        path => RawTarget::Origin(path.into()),
    };
    Ok((target, Some(authority)))
}

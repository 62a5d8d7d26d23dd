//! A complete response head becomes values (RFC 9112 sections 4, 5 and 6).

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, header};
use memchr::memchr;

use super::{
    error::BadResponse,
    fields::{self, FieldLines, SpaceBeforeColon},
    framing::{self, Coding, Framing, Version},
    head::{HeadLimits, HeadReader},
};

/// What an origin answers.
#[derive(Debug, Clone, PartialEq)]
pub struct ResponseHead {
    /// 100 to 999; interim responses and 101 included.
    pub status: StatusCode,
    pub version: Version,
    /// All but `Content-Length` and `Transfer-Encoding`, in the order received.
    pub fields: HeaderMap,
    pub framing: Framing,
    /// As announced, also where no body follows (HEAD, 304).
    pub content_length: Option<u64>,
    /// The origin will read another request on this connection. Of a final response only: an interim one decides
    /// nothing.
    pub keep_alive: bool,
}

/// [`HeadReader::response`] for a head that is not read in pieces.
///
/// # Errors
/// See [`BadResponse`].
pub fn parse_response(
    buf: &mut BytesMut,
    limits: &HeadLimits,
    request_method: &Method,
) -> Result<Option<ResponseHead>, BadResponse> {
    HeadReader::new(*limits).response(buf, request_method)
}

/// `head` is complete: lines that end in CRLF, the last one empty; `count` field lines.
pub(super) fn parse(head: &Bytes, count: usize, request_method: &Method) -> Result<ResponseHead, BadResponse> {
    let line_end = memchr(b'\n', head).map_or(0, |at| at - 1);
    let (version, status) = status_line(&head[..line_end])?;

    let mut head_fields = HeaderMap::try_with_capacity(count).map_err(|_| BadResponse::TooManyFields)?;
    let mut content_length: Option<u64> = None;
    let mut chunked = false;
    let (mut close, mut keep_alive) = (false, false);

    for field in FieldLines::new(head, line_end + 2, SpaceBeforeColon::Remove) {
        let field = field?;
        let value = field.bytes();
        if field.name == header::CONTENT_LENGTH {
            // Equal values are one value, on several lines or in a list (RFC 9112 section 6.3, item 5).
            for element in value.split(|byte| *byte == b',') {
                let length = framing::content_length(fields::trim(element)).map_err(|_| BadResponse::ContentLength)?;
                if content_length.is_some_and(|before| before != length) {
                    return Err(BadResponse::DifferingContentLength);
                }
                content_length = Some(length);
            }
            continue;
        } else if field.name == header::TRANSFER_ENCODING {
            if chunked || framing::transfer_coding(value) != Coding::Chunked {
                return Err(BadResponse::TransferEncoding);
            }
            chunked = true;
            continue;
        } else if field.name == header::CONNECTION {
            for option in fields::list(value) {
                close |= option.eq_ignore_ascii_case(b"close");
                keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        }
        let value = field.value()?;
        head_fields.try_append(field.name, value).map_err(|_| BadResponse::TooManyFields)?;
    }

    if chunked && version == Version::Http10 {
        return Err(BadResponse::TransferEncodingInHttp10);
    }
    if chunked && content_length.is_some() {
        return Err(BadResponse::LengthAndTransferEncoding);
    }
    let no_body = status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
        || *request_method == Method::HEAD
        || (*request_method == Method::CONNECT && status.is_success());
    let framing = match content_length {
        _ if no_body => Framing::None,
        _ if chunked => Framing::Chunked,
        Some(length) => Framing::Length(length),
        None => Framing::UntilClose,
    };
    // An origin that announces a body of a 204 may send it all the same: the bytes after this head are in doubt
    // (RFC 9110 section 8.6, RFC 9112 section 6.1).
    let doubtful = status == StatusCode::NO_CONTENT && (chunked || content_length.is_some_and(|length| length > 0));
    Ok(ResponseHead {
        status,
        version,
        fields: head_fields,
        framing,
        content_length,
        keep_alive: !close && !doubtful && framing != Framing::UntilClose && (keep_alive || version == Version::Http11),
    })
}

/// `HTTP-version SP status-code SP [ reason-phrase ]` (RFC 9112 section 4). The second space may be missing together
/// with the reason, as many servers write it; the reason is checked and dropped.
fn status_line(line: &[u8]) -> Result<(Version, StatusCode), BadResponse> {
    let [b'H', b'T', b'T', b'P', b'/', major, b'.', minor, b' ', code @ ..] = line else {
        return Err(BadResponse::StatusLine);
    };
    let version = match (major, minor) {
        (b'1', b'0') => Version::Http10,
        (b'1', b'1'..=b'9') => Version::Http11,
        _ => return Err(BadResponse::Version),
    };
    let (code, reason) = code.split_at_checked(3).ok_or(BadResponse::StatusLine)?;
    let status = StatusCode::from_bytes(code).map_err(|_| BadResponse::StatusLine)?;
    let visible = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    match reason {
        [] => Ok((version, status)),
        [b' ', reason @ ..] if reason.iter().all(visible) => Ok((version, status)),
        _ => Err(BadResponse::StatusLine),
    }
}

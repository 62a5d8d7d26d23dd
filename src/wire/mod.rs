//! HTTP/1.1 heads and bodies, read and written strictly.
//!
//! Nothing else in the edge looks at the bytes of an HTTP/1 connection, and no parser here does I/O: bytes come in a
//! [`BytesMut`](bytes::BytesMut), values go out. The caller reads from the socket ([`io`]) until a reader says that it
//! has enough. A result never depends on how the bytes were cut into reads.
//!
//! # What strict means
//!
//! Two parsers that disagree about where a message ends are a smuggling hole, so every doubt is an error here, and a
//! message that passes is written again from its parsed values, never copied:
//!
//! - A line ends in CRLF. A bare LF or CR anywhere in a head, a chunk line or a trailer section is refused.
//! - One framing: one `Content-Length` of digits, or `Transfer-Encoding: chunked`, or neither. Both, or a second line
//!   of either, is refused (a response may repeat an equal `Content-Length`, RFC 9112 section 6.3).
//! - One `Host` of letters, digits, `-`, `.`, `_`, or an IP address, with at most a port.
//! - No folded lines, no whitespace before the colon of a request field, no control bytes. Bytes above 0x7F pass in
//!   field values as opaque data.
//! - Everything is bounded: head, target, field count ([`HeadLimits`]), method, chunk lines, trailer sections.
//!
//! # Cost
//!
//! A head is looked at twice: once for its line ends, remembered between reads, so that a head that drips in is not
//! scanned again; once when it is complete. It is copied once into a buffer of its exact size that all its field
//! values share: the connection's read buffer stays free for the next read, and a stored response does not pin it.
//! A general parser such as `httparse` would add a third look: it allows bare LF and unlimited empty lines, which
//! would have to be undone, and the `http` types check every byte of a name and value anyway.

mod authority;
mod body;
mod chunked;
mod error;
mod fields;
mod framing;
mod head;
pub mod io;
mod prebuilt;
mod request;
mod response;
mod write;

pub use authority::{Authority, BadAuthority};
pub use body::{BodyReader, BodyWriter, LengthMismatch, Step};
pub use error::{BadRequest, BadResponse, BodyError};
pub use framing::{Framing, Version};
pub use head::{HeadLimits, HeadReader, METHOD_MAX, UnderscoreHeaders};
pub use prebuilt::{Ending, HOLES_MAX, Prebuilt};
pub use request::{RawTarget, RequestHead, parse_request};
pub use response::{ResponseHead, parse_response};
pub use write::{DIGITS_MAX, Lines, decimal, write_request_head, write_response_head};

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use http::Method;

    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        header_bytes: 32 * 1024,
        header_count: 100,
        target_bytes: 8 * 1024,
        underscore_headers: UnderscoreHeaders::Drop,
    };

    #[test]
    fn a_request_is_read_and_what_follows_stays() {
        let mut buf = BytesMut::from(
            &b"\r\nPOST /a?b HTTP/1.1\r\nHost: A.test:80\r\nX-A:  b \r\nContent-Length: 2\r\nConnection: x, Close\r\n\r\nhi"[..],
        );
        let head = parse_request(&mut buf, &LIMITS).unwrap().unwrap();
        assert_eq!(head.method, Method::POST);
        assert_eq!(head.target, RawTarget::Origin("/a?b".into()));
        assert_eq!(head.authority, Some(Authority { host: "a.test".into(), port: Some(80) }));
        assert_eq!(head.fields["x-a"], "b");
        assert_eq!(head.framing, Framing::Length(2));
        assert!(!head.keep_alive);
        assert_eq!(buf, "hi");
    }

    #[test]
    fn a_response_is_read_and_its_chunks_decoded() {
        let mut buf = BytesMut::from(
            &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nA : b\r\n\r\n2;x=\"y\"\r\nhi\r\n0\r\nT: 1\r\n\r\nrest"
                [..],
        );
        let head = parse_response(&mut buf, &LIMITS, &Method::GET).unwrap().unwrap();
        assert_eq!((head.status.as_u16(), head.framing, head.keep_alive), (200, Framing::Chunked, true));
        assert_eq!(head.fields["a"], "b");
        let mut body = BodyReader::new(head.framing, None);
        assert_eq!(body.read(&mut buf), Ok(Step::Data("hi".into())));
        assert_eq!(body.read(&mut buf), Ok(Step::End));
        assert_eq!(buf, "rest");
    }
}

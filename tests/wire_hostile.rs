//! Hostile messages, row by row: what is read of them, whole and cut at every byte.
#![expect(unreachable_pub, reason = "the modules under fuzz/ are public in the crate of the fuzz targets")]

#[path = "../fuzz/src/driver.rs"]
mod driver;
#[path = "../fuzz/src/properties.rs"]
mod properties;

use std::{fmt::Debug, fs, path::Path};

use bytes::BytesMut;
use driver::{End, Transcript};
use eduham_edge::{
    proxy,
    wire::{self, Framing, HeadLimits, HeadReader, RawTarget, RequestHead, ResponseHead, UnderscoreHeaders},
};
use http::Method;

const LIMITS: HeadLimits =
    HeadLimits { header_bytes: 400, header_count: 5, target_bytes: 100, underscore_headers: UnderscoreHeaders::Drop };

const BODY_MAX: Option<u64> = Some(1 << 20);

/// What it is, the bytes, what is read: the messages, then how the connection ended, if not between two messages.
type Row = (&'static str, &'static [u8], &'static str);

#[rustfmt::skip]
const REQUEST_LINES: &[Row] = &[
    ("the plainest request", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / a"),
    ("two at once", b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n", "GET /1 a | GET /2 a"),
    ("an empty line in front", b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / a"),
    ("an empty line between two", b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n", "GET /1 a | GET /2 a"),
    ("two empty lines in front", b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "!request-line"),
    ("a bare LF in front", b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "!bare-lf"),
    ("CRLF, then a bare LF in front", b"\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "!bare-lf"),
    ("a bare CR in front", b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", "!request-line"),
    ("nothing but an empty line", b"\r\n", "incomplete"),
    ("a space in front", b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", "!request-line"),
    ("a NUL in front", b"\0GET / HTTP/1.1\r\nHost: a\r\n\r\n", "!request-line"),
    ("a UTF-8 mark in front", b"\xef\xbb\xbfGET / HTTP/1.1\r\nHost: a\r\n\r\n", "!request-line"),
    ("a TLS handshake", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "!request-line"),
    ("an SSL 2 handshake", b"\x80\x2e\x01\x00\x02", "!request-line"),
    ("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "!unsupported-version"),
    ("HTTP/0.9", b"GET /\r\n\r\n", "!request-line"),
    ("HTTP/0.9 with a space behind", b"GET / \r\n\r\n", "!version"),
    ("a bare LF ends the request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n", "!bare-lf"),
    ("bare LFs end all lines", b"GET / HTTP/1.1\nHost: a\n\n", "!bare-lf"),
    ("bare CRs end all lines", b"GET / HTTP/1.1\rHost: a\r\r", "incomplete"),
    ("CR CR LF ends the request line", b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", "!version"),
    ("two spaces before the target", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "!version"),
    ("two spaces before the version", b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", "!version"),
    ("a space after the version", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", "!version"),
    ("a tab before the target", b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", "!method"),
    ("a tab before the version", b"GET /\tHTTP/1.1\r\nHost: a\r\n\r\n", "!request-line"),
    ("a space inside the target", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "!version"),
    ("a request line inside the target", b"GET / HTTP/1.1 GET /b HTTP/1.1\r\nHost: a\r\n\r\n", "!version"),
    ("an own method", b"PURGE-it /a HTTP/1.1\r\nHost: a\r\n\r\n", "PURGE-it /a a"),
    ("a method in lower case is another method", b"get /a HTTP/1.1\r\nHost: a\r\n\r\n", "get /a a"),
    ("a method with a colon", b"GE:T / HTTP/1.1\r\nHost: a\r\n\r\n", "!method"),
    ("a method with a high byte", b"G\xcbT / HTTP/1.1\r\nHost: a\r\n\r\n", "!method"),
    ("a method of 32 bytes", b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF / HTTP/1.1\r\nHost: a\r\n\r\n", "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF / a"),
    ("a method of 33 bytes", b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1\r\nHost: a\r\n\r\n", "!method-too-long"),
    ("HTTP/1.0", b"GET / HTTP/1.0\r\nHost: a\r\n\r\nrest", "GET / a | closed"),
    ("HTTP/1.0 that stays", b"GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n", "GET / a {connection: Keep-Alive}"),
    ("HTTP/1.0 without Host", b"GET / HTTP/1.0\r\n\r\n", "GET / - | closed"),
    ("a later minor version is 1.1", b"GET / HTTP/1.7\r\nHost: a\r\n\r\n", "GET / a"),
    ("HTTP/2.0", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", "!unsupported-version"),
    ("HTTP/0.9, written", b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", "!unsupported-version"),
    ("HTTP/1.10", b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", "!version"),
    ("HTTP/01.1", b"GET / HTTP/01.1\r\nHost: a\r\n\r\n", "!version"),
    ("HTTP/1,1", b"GET / HTTP/1,1\r\nHost: a\r\n\r\n", "!version"),
    ("HTTP/1", b"GET / HTTP/1\r\nHost: a\r\n\r\n", "!version"),
    ("a version in lower case", b"GET / http/1.1\r\nHost: a\r\n\r\n", "!version"),
    ("another protocol", b"GET / RTSP/1.0\r\nHost: a\r\n\r\n", "!version"),
];

#[rustfmt::skip]
const TARGETS: &[Row] = &[
    ("path and query as received", b"GET /%7e/./x?a=%zz&b HTTP/1.1\r\nHost: a\r\n\r\n", "GET /%7e/./x?a=%zz&b a"),
    ("a target of 100 bytes", b"GET /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa HTTP/1.1\r\nHost: a\r\n\r\n", "GET /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa a"),
    ("a target of 101 bytes", b"GET /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab HTTP/1.1\r\nHost: a\r\n\r\n", "!target-too-long"),
    ("a target without a slash", b"GET x HTTP/1.1\r\nHost: a\r\n\r\n", "!target"),
    ("an empty target", b"GET  HTTP/1.1\r\nHost: a\r\n\r\n", "!target"),
    ("a query alone", b"GET ?a HTTP/1.1\r\nHost: a\r\n\r\n", "!target"),
    ("a fragment", b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", "!target"),
    ("a NUL in the target", b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", "!target"),
    ("a control byte in the target", b"GET /\x1f HTTP/1.1\r\nHost: a\r\n\r\n", "!target"),
    ("DEL in the target", b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", "!target"),
    ("a bare CR in the target", b"GET /a\rb HTTP/1.1\r\nHost: a\r\n\r\n", "!target"),
    ("a raw high byte in the target", b"GET /caf\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", "!target"),
    ("the absolute form beats Host", b"GET http://B.test:81/x?y HTTP/1.1\r\nHost: a\r\n\r\n", "GET /x?y b.test:81"),
    ("an absolute form still needs Host", b"GET http://b.test/ HTTP/1.1\r\n\r\n", "!missing-host"),
    ("an absolute form with a bad Host", b"GET http://b.test/ HTTP/1.1\r\nHost: b c\r\n\r\n", "!host"),
    ("an absolute form in HTTP/1.0", b"GET http://b.test/ HTTP/1.0\r\n\r\n", "GET / b.test | closed"),
    ("an absolute form without path", b"GET HTTP://b.test HTTP/1.1\r\nHost: a\r\n\r\n", "GET / b.test"),
    ("an absolute form with a query alone", b"GET https://b.test?x=/ HTTP/1.1\r\nHost: a\r\n\r\n", "GET /?x=/ b.test"),
    ("an absolute form with user information", b"GET http://u:p@b.test/ HTTP/1.1\r\nHost: a\r\n\r\n", "!target"),
    ("an absolute form without host", b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", "!target"),
    ("an absolute form with a backslash host", b"GET http://b.test\\x/ HTTP/1.1\r\nHost: a\r\n\r\n", "!target"),
    ("an absolute form of another scheme", b"GET ftp://b.test/ HTTP/1.1\r\nHost: a\r\n\r\n", "!target"),
    ("a scheme without authority", b"GET http:/x HTTP/1.1\r\nHost: a\r\n\r\n", "!target"),
    ("OPTIONS of the server", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * a"),
    ("OPTIONS of a server by name", b"OPTIONS http://b.test HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * b.test"),
    ("an asterisk for GET", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", "!target"),
    ("an asterisk with more", b"OPTIONS *x HTTP/1.1\r\nHost: a\r\n\r\n", "!target"),
    ("CONNECT", b"CONNECT b.test:443 HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n", "CONNECT b.test:443 b.test:443 | closed"),
    ("CONNECT without port", b"CONNECT b.test HTTP/1.1\r\nHost: a\r\n\r\n", "!target"),
    ("CONNECT to a path", b"CONNECT /x HTTP/1.1\r\nHost: a\r\n\r\n", "!target"),
    ("an authority for GET", b"GET b.test:443 HTTP/1.1\r\nHost: a\r\n\r\n", "!target"),
];

#[rustfmt::skip]
const HOSTS: &[Row] = &[
    ("case and trailing dot are nothing", b"GET / HTTP/1.1\r\nHost: WwW.A.Test.:80\r\n\r\n", "GET / www.a.test:80"),
    ("an IPv6 address in its shortest form", b"GET / HTTP/1.1\r\nHost: [0:0::0:1]:8080\r\n\r\n", "GET / [::1]:8080"),
    ("an empty port", b"GET / HTTP/1.1\r\nHost: a:\r\n\r\n", "GET / a"),
    ("no Host", b"GET / HTTP/1.1\r\n\r\n", "!missing-host"),
    ("no Host, but a look-alike", b"GET / HTTP/1.1\r\nHost_: a\r\nX-Host: a\r\n\r\n", "!missing-host"),
    ("two equal Hosts", b"GET / HTTP/1.1\r\nHost: a\r\nhOST: a\r\n\r\n", "!duplicate-host"),
    ("two Hosts in HTTP/1.0", b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", "!duplicate-host"),
    ("an empty Host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", "!host"),
    ("a list of hosts", b"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", "!host"),
    ("a space in Host", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "!host"),
    ("a NUL in Host", b"GET / HTTP/1.1\r\nHost: a\0\r\n\r\n", "!host"),
    ("a slash in Host", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "!host"),
    ("user information in Host", b"GET / HTTP/1.1\r\nHost: b@a\r\n\r\n", "!host"),
    ("a URL in Host", b"GET / HTTP/1.1\r\nHost: http://a\r\n\r\n", "!host"),
    ("a high byte in Host", b"GET / HTTP/1.1\r\nHost: \xe4.test\r\n\r\n", "!host"),
    ("an empty label", b"GET / HTTP/1.1\r\nHost: a..b\r\n\r\n", "!host"),
    ("a dot alone", b"GET / HTTP/1.1\r\nHost: .\r\n\r\n", "!host"),
    ("a port that is no number", b"GET / HTTP/1.1\r\nHost: a:8o\r\n\r\n", "!host"),
    ("a port with a sign", b"GET / HTTP/1.1\r\nHost: a:+80\r\n\r\n", "!host"),
    ("a port beyond 65535", b"GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", "!host"),
    ("two ports", b"GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n", "!host"),
    ("an address without its bracket", b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", "!host"),
    ("more behind the bracket", b"GET / HTTP/1.1\r\nHost: [::1]a\r\n\r\n", "!host"),
    ("a bare IPv6 address", b"GET / HTTP/1.1\r\nHost: ::1\r\n\r\n", "!host"),
];

#[rustfmt::skip]
const FIELDS: &[Row] = &[
    ("whitespace around a value", b"GET / HTTP/1.1\r\nHost:\t a \r\nX: \t\r\nY:b c\t\r\n\r\n", "GET / a {x: } {y: b c}"),
    ("opaque bytes in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: \xe9\xff\tz\r\n\r\n", "GET / a {x: \\xe9\\xff\\tz}"),
    ("a colon in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX::b:\r\n\r\n", "GET / a {x: :b:}"),
    ("a field twice", b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\nx: 2\r\n\r\n", "GET / a {x: 1} {x: 2}"),
    ("no colon", b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", "!missing-colon"),
    ("no name", b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", "!field-name"),
    ("a space before the colon", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", "!space-before-colon"),
    ("a tab before the colon", b"GET / HTTP/1.1\r\nHost: a\r\nX\t: b\r\n\r\n", "!space-before-colon"),
    ("a space inside a name", b"GET / HTTP/1.1\r\nHost: a\r\nX Y: b\r\n\r\n", "!field-name"),
    ("a space before the first field", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", "!folded-field"),
    ("a folded value", b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", "!folded-field"),
    ("a value folded by a tab", b"GET / HTTP/1.1\r\nHost: a\r\nX:\r\n\tb\r\n\r\n", "!folded-field"),
    ("a line of spaces", b"GET / HTTP/1.1\r\nHost: a\r\n  \r\n\r\n", "!folded-field"),
    ("a name cut over two lines", b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-\r\nEncoding: chunked\r\n\r\n", "!missing-colon"),
    ("a bare LF ends a field", b"GET / HTTP/1.1\r\nHost: a\r\nX: b\nY: c\r\n\r\n", "!bare-lf"),
    ("a bare LF ends the head", b"GET / HTTP/1.1\r\nHost: a\r\n\nGET /b HTTP/1.1\r\n\r\n", "!bare-lf"),
    ("LF CR", b"GET / HTTP/1.1\n\rHost: a\r\n\r\n", "!bare-lf"),
    ("a bare CR in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: b\rY: c\r\n\r\n", "!field-value"),
    ("CR CR LF", b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\r\n\r\n", "!field-value"),
    ("CR before the last CRLF", b"GET / HTTP/1.1\r\nHost: a\r\n\r\r\n\r\n", "!missing-colon"),
    ("a NUL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n", "!field-value"),
    ("a vertical tab in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: \x0bb\r\n\r\n", "!field-value"),
    ("DEL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n", "!field-value"),
    ("a NUL in a name", b"GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n", "!field-name"),
    ("a NUL in front of a name", b"GET / HTTP/1.1\r\nHost: a\r\n\0Content-Length: 5\r\n\r\n", "!field-name"),
    ("a high byte in a name", b"GET / HTTP/1.1\r\nHost: a\r\nX\xe9: b\r\n\r\n", "!field-name"),
    ("brackets in a name", b"GET / HTTP/1.1\r\nHost: a\r\nX(y): b\r\n\r\n", "!field-name"),
    ("a quoted name", b"GET / HTTP/1.1\r\nHost: a\r\n\"X\": b\r\n\r\n", "!field-name"),
    ("an underscore drops the field", b"GET / HTTP/1.1\r\nHost: a\r\nContent_Length: 5\r\nX: b\r\n\r\n", "GET / a {x: b}"),
    ("a dropped field is checked all the same", b"GET / HTTP/1.1\r\nHost: a\r\nX_Y: \0\r\n\r\n", "!field-value"),
    ("five fields", b"GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\n\r\n", "GET / a {a: 1} {b: 2} {c: 3} {d: 4}"),
    ("six fields", b"GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\nE: 5\r\n\r\n", "!too-many-fields"),
    ("close among options", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, ,CLOSE ,\r\n\r\nGET", "GET / a {connection: x, ,CLOSE ,} | closed"),
    ("close beats keep-alive", b"GET / HTTP/1.0\r\nConnection: keep-alive\r\nConnection: close\r\n\r\nGET", "GET / - {connection: keep-alive} {connection: close} | closed"),
    ("an unknown expectation", b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", "!expectation"),
    ("an expectation in HTTP/1.0 is none", b"GET / HTTP/1.0\r\nExpect: 200-ok\r\n\r\n", "GET / - | closed"),
];

#[rustfmt::skip]
const REQUEST_FRAMING: &[Row] = &[
    ("a body by length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nHost: a\r\n\r\n", "POST / a \"hello\" | GET / a"),
    ("a body of GET", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / a \"\\r\\n\" | GET / a"),
    ("no body without a framing field", b"POST / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "POST / a | GET / a"),
    ("zeros in front of a length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0002\r\n\r\nhi", "POST / a \"hi\""),
    ("a body cut short", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nhello", "incomplete"),
    ("a body beyond the limit", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n", "!too-large"),
    ("a length beyond 64 bits", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551617\r\n\r\nx", "!content-length-overflow"),
    ("a length with a sign", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +2\r\n\r\nhi", "!content-length"),
    ("a negative length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -2\r\n\r\nhi", "!content-length"),
    ("an empty length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\nhi", "!content-length"),
    ("a hexadecimal length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x2\r\n\r\nhi", "!content-length"),
    ("a length in quotes", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \"2\"\r\n\r\nhi", "!content-length"),
    ("a length with an exponent", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2e1\r\n\r\nhi", "!content-length"),
    ("a length of two words", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2 2\r\n\r\nhi", "!content-length"),
    ("a length with a NUL", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\0\r\n\r\nhi", "!content-length"),
    ("a list of lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2, 2\r\n\r\nhi", "!content-length"),
    ("two equal lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi", "!duplicate-content-length"),
    ("two lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\ncontent-length: 0\r\n\r\nhi", "!duplicate-content-length"),
    ("length and chunked", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "!length-and-transfer-encoding"),
    ("chunked and length", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", "!length-and-transfer-encoding"),
    ("chunked and length 0", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n", "!length-and-transfer-encoding"),
    ("chunked in HTTP/1.0", b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "!transfer-encoding-in-http10"),
    ("a POST of HTTP/1.0 without length", b"POST / HTTP/1.0\r\n\r\nhello", "!length-required"),
    ("chunked in any case, after a tab", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-encoding:\tChunkeD \r\n\r\n0\r\n\r\n", "POST / a"),
    ("chunked twice in a list", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", "!transfer-encoding"),
    ("chunked on two lines", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "!duplicate-transfer-encoding"),
    ("chunked, then an unknown line", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n\r\n0\r\n\r\n", "!duplicate-transfer-encoding"),
    ("an unknown coding", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: cow\r\n\r\n", "!unsupported-transfer-encoding"),
    ("identity", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", "!unsupported-transfer-encoding"),
    ("gzip below chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "!unsupported-transfer-encoding"),
    ("chunked below gzip", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", "!transfer-encoding"),
    ("chunked with a parameter", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", "!transfer-encoding"),
    ("chunked in quotes", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", "!transfer-encoding"),
    ("chunked behind a vertical tab", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", "!transfer-encoding"),
    ("chunked before a high byte", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\xa0\r\n\r\n0\r\n\r\n", "!transfer-encoding"),
    ("an empty coding", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n", "!transfer-encoding"),
    ("an empty list element", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: , chunked\r\n\r\n0\r\n\r\n", "!transfer-encoding"),
    ("two words", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x chunked\r\n\r\n0\r\n\r\n", "!transfer-encoding"),
];

/// Chunked bodies, of a request and of a response alike.
#[rustfmt::skip]
const CHUNKED: &[Row] = &[
    ("two chunks", b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", "\"hello\""),
    ("an empty body", b"0\r\n\r\n", ""),
    ("hexadecimal sizes in both cases", b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", "\"01234567890123456789\""),
    ("zeros in front of a size", b"0000000000000002\r\nhi\r\n00\r\n\r\n", "\"hi\""),
    ("line ends as data", b"4\r\n\r\n\r\n\r\n0\r\n\r\n", "\"\\r\\n\\r\\n\""),
    ("extensions", b"2;a;b=c;d=\"e;\\\"\r\nhi\r\n0\r\n\r\n", "!chunk-extension"),
    ("extensions of all kinds", b"2 ; a ;b=c\t; d = \"e;\\\"\xe9\"\r\nhi\r\n0;z\r\n\r\n", "\"hi\""),
    ("an extension without name", b"2;\r\nhi\r\n0\r\n\r\n", "!chunk-extension"),
    ("an extension without value", b"2;a=\r\nhi\r\n0\r\n\r\n", "!chunk-extension"),
    ("an open quote", b"2;a=\"\r\nhi\r\n0\r\n\r\n", "!chunk-extension"),
    ("a NUL in an extension", b"2;a=\0\r\nhi\r\n0\r\n\r\n", "!chunk-extension"),
    ("a bare CR in an extension", b"2;a\rb\r\nhi\r\n0\r\n\r\n", "!chunk-extension"),
    ("a bare CR in a quoted extension", b"2;a=\"\rb\"\r\nhi\r\n0\r\n\r\n", "!chunk-extension"),
    ("a bare LF in an extension", b"2;a\nhi\r\n0\r\n\r\n", "!bare-lf"),
    ("a bare LF after a size", b"2\nhi\r\n0\r\n\r\n", "!bare-lf"),
    ("a bare LF after data", b"2\r\nhi\n0\r\n\r\n", "!bare-lf"),
    ("a bare LF at the end", b"2\r\nhi\r\n0\r\n\n", "!bare-lf"),
    ("a bare CR after data", b"2\r\nhi\r0\r\n\r\n", "!chunk-end"),
    ("more data than said", b"1\r\nhi\r\n0\r\n\r\n", "!chunk-end"),
    ("less data than said", b"3\r\nhi\r\n0\r\n\r\n", "!bare-lf"),
    ("no size", b"\r\nhi\r\n0\r\n\r\n", "!chunk-size"),
    ("a space in front", b" 2\r\nhi\r\n0\r\n\r\n", "!chunk-size"),
    ("a space behind", b"2 \r\nhi\r\n0\r\n\r\n", "!chunk-size"),
    ("a sign", b"+2\r\nhi\r\n0\r\n\r\n", "!chunk-size"),
    ("a prefix", b"0x2\r\nhi\r\n0\r\n\r\n", "!chunk-size"),
    ("no hexadecimal digit", b"g\r\nhi\r\n0\r\n\r\n", "!chunk-size"),
    ("a comma", b"2,2\r\nhi\r\n0\r\n\r\n", "!chunk-size"),
    ("a NUL", b"2\0\r\nhi\r\n0\r\n\r\n", "!chunk-size"),
    ("17 digits", b"00000000000000002\r\nhi\r\n0\r\n\r\n", "!chunk-overflow"),
    ("2^64 + 2", b"10000000000000002\r\nhi\r\n0\r\n\r\n", "!chunk-overflow"),
    ("2^64 - 1", b"ffffffffffffffff\r\nhi\r\n0\r\n\r\n", "!chunk-overflow"),
    ("a sum that overflows", b"2\r\nhi\r\n7fffffffffffffff\r\nhi\r\n", "!chunk-overflow"),
    ("a chunk beyond the limit", b"100001\r\nhi", "!too-large"),
    ("the last chunk is missing", b"2\r\nhi\r\n", "incomplete"),
    ("the last line is missing", b"2\r\nhi\r\n0\r\n", "incomplete"),
    ("trailers", b"0\r\nX: 1\r\nContent-Length: 5\r\n\r\n", ""),
    ("a folded trailer", b"0\r\nX: 1\r\n 2\r\n\r\n", "!trailer"),
    ("a trailer without colon", b"0\r\nGET / HTTP/1.1\r\n\r\n", "!trailer"),
    ("a trailer with a space before its colon", b"0\r\nX : 1\r\n\r\n", "!trailer"),
    ("a NUL in a trailer", b"0\r\nX: \0\r\n\r\n", "!trailer"),
    ("a bare LF after a trailer", b"0\r\nX: 1\n\r\n", "!bare-lf"),
];

#[rustfmt::skip]
const RESPONSES: &[Row] = &[
    ("a body by length", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "200 \"hello\""),
    ("bytes behind a body are no response", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhello", "200 \"he\" | !status-line"),
    ("a body until the end", b"HTTP/1.1 200 OK\r\n\r\nhello", "200 \"hello\" | closed"),
    ("a body cut short", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello", "incomplete"),
    ("a head cut short", b"HTTP/1.1 200 OK\r\nContent-", "incomplete"),
    ("an interim response first", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "103 {link: </a>} | 200"),
    ("an interim response has no body", b"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", "100 | 204"),
    ("an interim response that says to have a body", b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\nhello", "100 | !status-line"),
    ("a change of protocol", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n\x81\x05", "101 {upgrade: x} | closed"),
    ("204 has no body", b"HTTP/1.1 204 No Content\r\n\r\n", "204"),
    ("204 with a length", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", "204 | closed"),
    ("204 with chunks", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "204 | closed"),
    ("304 has no body but a length", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nHTTP/1.1 304 Not Modified\r\n\r\n", "304 (5) | 304"),
    ("no reason", b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", "200"),
    ("no reason and no space", b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "200"),
    ("opaque bytes in the reason", b"HTTP/1.1 200 \xc3\x9c \t!\r\nContent-Length: 0\r\n\r\n", "200"),
    ("a NUL in the reason", b"HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n", "!status-line"),
    ("a bare CR in the reason", b"HTTP/1.1 200 O\rSet-Cookie: a\r\nContent-Length: 0\r\n\r\n", "!status-line"),
    ("an unknown class", b"HTTP/1.1 799 Odd\r\nContent-Length: 0\r\n\r\n", "799"),
    ("a status of two digits", b"HTTP/1.1 20 OK\r\n\r\n", "!status-line"),
    ("a status of four digits", b"HTTP/1.1 2000 OK\r\n\r\n", "!status-line"),
    ("a status below 100", b"HTTP/1.1 099 OK\r\n\r\n", "!status-line"),
    ("a status with a sign", b"HTTP/1.1 +20 OK\r\n\r\n", "!status-line"),
    ("a status of letters", b"HTTP/1.1 abc OK\r\n\r\n", "!status-line"),
    ("two spaces before the status", b"HTTP/1.1  200 OK\r\n\r\n", "!status-line"),
    ("HTTP/1.0", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", "200 \"hi\" | closed"),
    ("HTTP/1.0 that stays", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: Keep-Alive\r\n\r\nhi", "200 {connection: Keep-Alive} \"hi\""),
    ("a later minor version", b"HTTP/1.9 200 OK\r\nContent-Length: 0\r\n\r\n", "200"),
    ("HTTP/2.0", b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", "!version"),
    ("HTTP/2", b"HTTP/2 200\r\nContent-Length: 0\r\n\r\n", "!status-line"),
    ("HTTP/0.9", b"<html>hello</html>", "!status-line"),
    ("an empty line in front", b"\r\nHTTP/1.1 200 OK\r\n\r\n", "!status-line"),
    ("another protocol", b"ICY 200 OK\r\n\r\n", "!status-line"),
    ("a version in lower case", b"http/1.1 200 OK\r\n\r\n", "!status-line"),
    ("bare LFs", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", "!bare-lf"),
    ("a bare LF in a value", b"HTTP/1.1 200 OK\r\nX: a\nSet-Cookie: b\r\n\r\n", "!bare-lf"),
    ("a bare CR in a value", b"HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\n\r\n", "!field-value"),
    ("a NUL in a value", b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n", "!field-value"),
    ("a folded value", b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", "!folded-field"),
    ("a folded first line", b"HTTP/1.1 200 OK\r\n X: a\r\n\r\n", "!folded-field"),
    ("no colon", b"HTTP/1.1 200 OK\r\nX\r\n\r\n", "!missing-colon"),
    ("no name", b"HTTP/1.1 200 OK\r\n: a\r\n\r\n", "!field-name"),
    ("a space before the colon goes away", b"HTTP/1.1 200 OK\r\nX \t: a\r\nContent-Length : 2\r\n\r\nhi", "200 {x: a} \"hi\""),
    ("a name of spaces", b"HTTP/1.1 200 OK\r\nX: a\r\n  : b\r\n\r\n", "!folded-field"),
    ("a space inside a name", b"HTTP/1.1 200 OK\r\nX Y: a\r\n\r\n", "!field-name"),
    ("six fields", b"HTTP/1.1 200 OK\r\nA: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\nE: 5\r\nF: 6\r\n\r\n", "!too-many-fields"),
    ("equal lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 02, 2\r\n\r\nhi", "200 \"hi\""),
    ("lengths that differ", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!", "!differing-content-length"),
    ("a list of lengths that differ", b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nhi!", "!differing-content-length"),
    ("an empty length", b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nhi", "!content-length"),
    ("a negative length", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhi", "!content-length"),
    ("a length beyond 64 bits", b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\nhi", "!content-length"),
    ("a bad length of a 304", b"HTTP/1.1 304 Not Modified\r\nContent-Length: x\r\n\r\n", "!content-length"),
    ("length and chunked", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "!length-and-transfer-encoding"),
    ("chunked in HTTP/1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "!transfer-encoding-in-http10"),
    ("gzip below chunked", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "!transfer-encoding"),
    ("identity", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nhi", "!transfer-encoding"),
    ("chunked twice", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "!transfer-encoding"),
    ("bytes behind the last chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nx", "200 | !status-line"),
];

fn requests(pieces: Vec<&[u8]>) -> Transcript<RequestHead> {
    driver::requests(pieces, LIMITS, BODY_MAX)
}

fn responses(pieces: Vec<&[u8]>) -> Transcript<ResponseHead> {
    driver::responses(pieces, LIMITS, &Method::GET, BODY_MAX)
}

fn request_text(head: &RequestHead) -> String {
    let target = match &head.target {
        RawTarget::Origin(target) => target.to_string(),
        RawTarget::Asterisk => "*".into(),
        RawTarget::Authority => head.authority.as_ref().expect("CONNECT names one").to_string(),
    };
    let authority = head.authority.as_ref().map_or("-".into(), ToString::to_string);
    format!("{} {target} {authority}{}", head.method, fields_text(&head.fields))
}

fn response_text(head: &ResponseHead) -> String {
    let announced = match (head.framing, head.content_length) {
        (Framing::None, Some(length)) if !head.status.is_informational() && head.status.as_u16() != 204 => {
            format!(" ({length})")
        }
        _ => String::new(),
    };
    format!("{}{}{announced}", head.status.as_u16(), fields_text(&head.fields))
}

fn fields_text(fields: &http::HeaderMap) -> String {
    fields.iter().map(|(name, value)| format!(" {{{name}: {}}}", value.as_bytes().escape_ascii())).collect()
}

fn text<H>(transcript: &Transcript<H>, head_text: fn(&H) -> String) -> String {
    let mut parts: Vec<String> = Vec::new();
    for (head, body) in &transcript.messages {
        let body = if body.is_empty() { String::new() } else { format!(" \"{}\"", body.escape_ascii()) };
        parts.push(head_text(head) + &body);
    }
    match transcript.end {
        End::Clean => {}
        End::Closed => parts.push("closed".into()),
        End::Incomplete => parts.push("incomplete".into()),
        End::Refused(reason) => parts.push(format!("!{reason}")),
    }
    parts.join(" | ")
}

/// Reads `bytes` whole, in two pieces cut at every byte, and byte by byte.
fn check<H: Debug + PartialEq>(
    title: &str,
    bytes: &[u8],
    expected: &str,
    read: impl Fn(Vec<&[u8]>) -> Transcript<H>,
    head_text: fn(&H) -> String,
) {
    let whole = read(vec![bytes]);
    assert_eq!(text(&whole, head_text), expected, "{title}");
    for at in 0..=bytes.len() {
        let (left, right) = bytes.split_at(at);
        assert_eq!(read(vec![left, right]), whole, "{title}, cut at {at}");
    }
    assert_eq!(read(bytes.chunks(1).collect()), whole, "{title}, byte by byte");
}

#[test]
fn requests_are_read_to_the_letter() {
    for rows in [REQUEST_LINES, TARGETS, HOSTS, FIELDS, REQUEST_FRAMING] {
        for (title, bytes, expected) in rows {
            check(title, bytes, expected, requests, request_text);
        }
    }
}

#[test]
fn responses_are_read_to_the_letter() {
    for (title, bytes, expected) in RESPONSES {
        check(title, bytes, expected, responses, response_text);
    }
}

#[test]
fn chunks_are_read_to_the_letter_in_both_directions() {
    for (title, body, expected) in CHUNKED {
        let expected = |head: &str| match *expected {
            "" => head.to_owned(),
            body if body.starts_with('"') => format!("{head} {body}"),
            end => end.to_owned(),
        };
        let request = [b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", *body].concat();
        check(title, &request, &expected("POST / a"), requests, request_text);
        let response = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *body].concat();
        check(title, &response, &expected("200"), responses, response_text);
    }
}

#[test]
fn every_byte_is_refused_or_passed_in_a_name_a_value_a_target_and_a_method() {
    let tokens = b"!#$%&'*+-.^`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_";
    for byte in 0..=255u8 {
        let read = |parts: [&[u8]; 3]| requests(vec![&parts.concat()[..]]);
        let accepted = |transcript: Transcript<RequestHead>| transcript.messages.len() == 1;
        let shown = byte.escape_ascii();

        let name = read([b"GET / HTTP/1.1\r\nHost: a\r\nX", &[byte], b"y: b\r\n\r\n"]);
        assert_eq!(accepted(name), tokens.contains(&byte) || byte == b':', "name {shown}");
        let value = read([b"GET / HTTP/1.1\r\nHost: a\r\nX: y", &[byte], b"z\r\n\r\n"]);
        assert_eq!(accepted(value), byte == b'\t' || (byte >= b' ' && byte != 0x7f), "value {shown}");
        let target = read([b"GET /a", &[byte], b"b HTTP/1.1\r\nHost: a\r\n\r\n"]);
        assert_eq!(accepted(target), byte.is_ascii_graphic() && byte != b'#', "target {shown}");
        let method = read([b"G", &[byte], b"T / HTTP/1.1\r\nHost: a\r\n\r\n"]);
        assert_eq!(accepted(method), tokens.contains(&byte), "method {shown}");
        let host = read([b"GET / HTTP/1.1\r\nHost: a", &[byte], b"b\r\n\r\n"]);
        assert_eq!(accepted(host), byte.is_ascii_alphanumeric() || b"-._".contains(&byte), "host {shown}");
    }
}

#[test]
fn floods_end_at_their_limit_however_they_arrive() {
    let long = |bytes: &[u8], unit: &[u8]| {
        let mut flood = bytes.to_vec();
        flood.extend(unit.repeat(2_000_000 / unit.len()));
        flood
    };
    let host: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n";
    for (flood, reason) in [
        (long(b"", b"A"), "method-too-long"),
        (long(b"GET /", b"a"), "target-too-long"),
        (long(&[host, b"X: "].concat(), b"b"), "head-too-large"),
        (long(&[host, b"X"].concat(), b"y"), "head-too-large"),
        (long(host, b"X: b\r\n"), "too-many-fields"),
        (long(&[host, b"X:"].concat(), b" "), "head-too-large"),
    ] {
        for size in [1, 1000, flood.len()] {
            assert_eq!(requests(flood.chunks(size).collect()).end, End::Refused(reason));
        }
    }
    let host: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (flood, reason) in [
        (long(&[host, b"5;a="].concat(), b"x"), "chunk-line-too-long"),
        (long(host, b"1;abcdefghijklmnopqrstuvwxyz\r\nz\r\n"), "chunk-line-too-long"),
        (long(&[host, b"0\r\n"].concat(), b"X: y\r\n"), "trailer-too-large"),
        (long(&[host, b"0\r\nX: "].concat(), b"y"), "trailer-too-large"),
        (long(host, b"0"), "chunk-line-too-long"),
        (long(host, b"8\r\n12345678\r\n"), "too-large"),
    ] {
        for size in [1, 1000, flood.len()] {
            assert_eq!(requests(flood.chunks(size).collect()).end, End::Refused(reason));
        }
    }
    for (flood, reason) in [
        (long(b"HTTP/1.1 200 ", b"O"), "head-too-large"),
        (long(b"HTTP/1.1 200 OK\r\nX: ", b"b"), "head-too-large"),
        (long(b"HTTP/1.1 200 OK\r\n", b"X: b\r\n"), "too-many-fields"),
        (long(b"HTTP/1.1 200 OK\r\n\r\n", b"b"), "too-large"),
    ] {
        for size in [1, 1000, flood.len()] {
            assert_eq!(responses(flood.chunks(size).collect()).end, End::Refused(reason));
        }
    }
}

#[test]
fn two_thousand_chunks_of_a_byte_are_one_body() {
    let mut bytes = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    bytes.extend(b"1\r\nz\r\n".repeat(2000));
    bytes.extend(b"0\r\n\r\n");
    let read = requests(bytes.chunks(7).collect());
    assert_eq!((read.messages[0].1.len(), read.end), (2000, End::Clean));
}

#[test]
fn a_large_body_with_signed_chunks_is_no_flood_of_extensions() {
    let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..400 {
        bytes.extend([b"100;chunk-signature=", &b"a".repeat(64)[..], b"\r\n", &b"d".repeat(256), b"\r\n"].concat());
    }
    bytes.extend(b"0\r\n\r\n");
    let read = responses(vec![&bytes[..]]);
    assert_eq!((read.messages[0].1.len(), read.end), (400 * 256, End::Clean));
}

#[test]
fn no_body_follows_what_answers_head() {
    let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let read = driver::responses([&bytes[..]], LIMITS, &Method::HEAD, None);
    assert_eq!(text(&read, response_text), "200 (5) | 200");
}

#[test]
fn underscores_pass_or_are_refused_where_the_limits_say_so() {
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nX_Y: b\r\n\r\n";
    for (underscore_headers, expected) in
        [(UnderscoreHeaders::Pass, "GET / a {x_y: b}"), (UnderscoreHeaders::Reject, "!underscore-field")]
    {
        let limits = HeadLimits { underscore_headers, ..LIMITS };
        assert_eq!(text(&driver::requests([&bytes[..]], limits, None), request_text), expected);
    }
}

/// The seeds of the fuzz targets, and every row here, have the properties that fuzzing looks for.
#[test]
fn what_a_connection_said_before_changes_nothing_of_what_is_read_next() {
    let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(LIMITS.target_bytes + 1));
    let lines = [
        "GET / HTTP/1.1\r\n",
        "GET /other?a=1 HTTP/1.1\r\n",
        "GET / HTTP/1.0\r\n",
        "POST /x HTTP/1.0\r\n",
        "OPTIONS * HTTP/1.1\r\n",
        "GET http://b.test/ HTTP/1.1\r\n",
        "\r\nGET / HTTP/1.1\r\n",
        "GET  / HTTP/1.1\r\n",
        "GET / HTTP/1.1\n",
        "GET / HTTP/1.1\r\r\n",
        "GET / HTTP/1.1\r\nX: 1\r\n",
        &long,
    ];
    let sections = [
        "Host: a\r\n\r\n",
        "Host: a\r\nX: 1\r\n\r\n",
        "Host: a\r\nX: 12\r\n\r\n",
        "Host: a\r\nX_Y: 1\r\n\r\n",
        "Host: a\r\nConnection: close\r\n\r\n",
        "Host: a\r\nConnection: keep-alive\r\n\r\n",
        "Host: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
        "Host: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "Host: a\r\nHost: a\r\n\r\n",
        "X: 1\r\n\r\n",
        "\r\n",
    ];
    let heads: Vec<_> =
        lines.iter().flat_map(|line| sections.iter().map(move |section| format!("{line}{section}"))).collect();
    for first in &heads {
        for second in &heads {
            let mut reader = HeadReader::new(LIMITS);
            if reader.request(&mut first.as_bytes().into()).is_ok_and(|head| head.is_some()) {
                let (mut one, mut other): (BytesMut, BytesMut) = (second.as_bytes().into(), second.as_bytes().into());
                let expected = HeadReader::new(LIMITS).request(&mut other);
                assert_eq!((reader.request(&mut one), one), (expected, other), "{second:?} after {first:?}");
            }
        }
    }
}

#[test]
fn the_fuzzed_properties_hold_for_all_rows_and_seeds() {
    for rows in [REQUEST_LINES, TARGETS, HOSTS, FIELDS, REQUEST_FRAMING] {
        rows.iter().for_each(|(_, bytes, _)| properties::requests(bytes));
    }
    for (_, bytes, _) in RESPONSES {
        (0..3u8).for_each(|method| properties::responses(&[&[method], *bytes].concat()));
    }
    for (_, body, _) in CHUNKED {
        properties::requests(&[b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", *body].concat());
        properties::responses(&[b"\0HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *body].concat());
    }
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (target, property) in [
        ("request", properties::requests as fn(&[u8])),
        ("response", properties::responses),
        ("target", properties::targets),
    ] {
        let mut seeds = 0;
        for entry in fs::read_dir(corpus.join(target)).expect("the corpus is part of the source") {
            property(&fs::read(entry.expect("a readable directory").path()).expect("a readable seed"));
            seeds += 1;
        }
        assert!(seeds >= 20, "{target} has {seeds} seeds");
    }
}

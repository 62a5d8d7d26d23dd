//! What can be wrong with a message, each with its status and its name in metrics.

use http::StatusCode;

use super::fields::BadField;

/// A request head that is not answered by anything but an error, after which the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum BadRequest {
    #[error("a line ends in a bare LF")]
    BareLf,
    #[error("the request line is not: method, space, target, space, version")]
    RequestLine,
    #[error("the method is not a token")]
    Method,
    #[error("the method is longer than 32 bytes")]
    MethodTooLong,
    #[error("the request target has no form that the method allows, or a character that no target has")]
    Target,
    #[error("the request target is longer than the limit")]
    TargetTooLong,
    #[error("the version is not HTTP/ followed by digit, dot, digit")]
    Version,
    #[error("the version is not HTTP/1.x")]
    UnsupportedVersion,
    #[error("the head is larger than the limit")]
    HeadTooLarge,
    #[error("there are more field lines than the limit")]
    TooManyFields,
    #[error("a field line begins with whitespace")]
    FoldedField,
    #[error("a field line has no colon")]
    MissingColon,
    #[error("there is whitespace between a field name and its colon")]
    SpaceBeforeColon,
    #[error("a field name is not a token")]
    FieldName,
    #[error("a field value holds a control byte")]
    FieldValue,
    #[error("a field name holds an underscore")]
    UnderscoreField,
    #[error("there is no Host")]
    MissingHost,
    #[error("there is more than one Host")]
    DuplicateHost,
    #[error("Host is not a host name or address with at most a port")]
    Host,
    #[error("Content-Length is not a number")]
    ContentLength,
    #[error("there is more than one Content-Length")]
    DuplicateContentLength,
    #[error("Content-Length is beyond 2^64")]
    ContentLengthOverflow,
    #[error("a POST of HTTP/1.0 needs a Content-Length")]
    LengthRequired,
    #[error("Transfer-Encoding is not a list of codings with chunked last and once")]
    TransferEncoding,
    #[error("there is more than one Transfer-Encoding")]
    DuplicateTransferEncoding,
    #[error("Transfer-Encoding holds a coding other than chunked")]
    UnsupportedTransferEncoding,
    #[error("HTTP/1.0 has no Transfer-Encoding")]
    TransferEncodingInHttp10,
    #[error("there are both Content-Length and Transfer-Encoding")]
    LengthAndTransferEncoding,
    #[error("Expect is not 100-continue")]
    Expectation,
}

impl BadRequest {
    /// The status that answers it.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::LengthRequired => StatusCode::LENGTH_REQUIRED,
            Self::ContentLengthOverflow => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::HeadTooLarge | Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            // RFC 9112 section 3: a method longer than any that the server implements.
            Self::MethodTooLong | Self::UnsupportedTransferEncoding => StatusCode::NOT_IMPLEMENTED,
            Self::UnsupportedVersion => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// Its name in metrics and logs, in kebab case.
    #[must_use]
    pub fn reason(self) -> &'static str {
        self.into()
    }
}

impl From<BadField> for BadRequest {
    fn from(bad: BadField) -> Self {
        match bad {
            BadField::Folded => Self::FoldedField,
            BadField::MissingColon => Self::MissingColon,
            BadField::SpaceBeforeColon => Self::SpaceBeforeColon,
            BadField::Name => Self::FieldName,
            BadField::Value => Self::FieldValue,
        }
    }
}

/// A response head that is not passed on: the client gets 502, the connection to the origin is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum BadResponse {
    #[error("a line ends in a bare LF")]
    BareLf,
    #[error("the status line is not: version, space, three digits, space, reason")]
    StatusLine,
    #[error("the version is not HTTP/1.x")]
    Version,
    #[error("the head is larger than the limit")]
    HeadTooLarge,
    #[error("there are more field lines than the limit")]
    TooManyFields,
    #[error("a field line begins with whitespace")]
    FoldedField,
    #[error("a field line has no colon")]
    MissingColon,
    #[error("a field name is not a token")]
    FieldName,
    #[error("a field value holds a control byte")]
    FieldValue,
    #[error("Content-Length is not a number")]
    ContentLength,
    #[error("there are several Content-Lengths that differ")]
    DifferingContentLength,
    #[error("Transfer-Encoding is not exactly chunked")]
    TransferEncoding,
    #[error("HTTP/1.0 has no Transfer-Encoding")]
    TransferEncodingInHttp10,
    #[error("there are both Content-Length and Transfer-Encoding")]
    LengthAndTransferEncoding,
}

impl BadResponse {
    /// Its name in metrics and logs, in kebab case.
    #[must_use]
    pub fn reason(self) -> &'static str {
        self.into()
    }
}

impl From<BadField> for BadResponse {
    fn from(bad: BadField) -> Self {
        match bad {
            BadField::Folded => Self::FoldedField,
            BadField::MissingColon => Self::MissingColon,
            // Removed in a response, so that only a name that is none is left.
            BadField::SpaceBeforeColon | BadField::Name => Self::FieldName,
            BadField::Value => Self::FieldValue,
        }
    }
}

/// A body that cannot be followed to its end. The connection is closed: what comes next on it is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum BodyError {
    #[error("the body is larger than the limit")]
    TooLarge,
    #[error("the connection closed before the body ended")]
    Truncated,
    #[error("a chunk or trailer line ends in a bare LF")]
    BareLf,
    #[error("a chunk size is not 1 to 16 hexadecimal digits")]
    ChunkSize,
    #[error("a chunk size, or the sum of them, is beyond 2^63")]
    ChunkOverflow,
    #[error("a chunk extension is malformed")]
    ChunkExtension,
    #[error("chunk lines are longer than the limit, or are more bytes than the data")]
    ChunkLineTooLong,
    #[error("there is no CRLF after the data of a chunk")]
    ChunkEnd,
    #[error("a trailer field line is malformed")]
    Trailer,
    #[error("the trailer section is larger than the limit")]
    TrailerTooLarge,
}

impl BodyError {
    /// The status that answers a request with such a body; a response with one is a 502 or a cut answer.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// Its name in metrics and logs, in kebab case.
    #[must_use]
    pub fn reason(self) -> &'static str {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_the_status_that_the_rfc_names() {
        for (bad, status, reason) in [
            (BadRequest::BareLf, 400, "bare-lf"),
            (BadRequest::LengthRequired, 411, "length-required"),
            (BadRequest::ContentLengthOverflow, 413, "content-length-overflow"),
            (BadRequest::TargetTooLong, 414, "target-too-long"),
            (BadRequest::Expectation, 417, "expectation"),
            (BadRequest::HeadTooLarge, 431, "head-too-large"),
            (BadRequest::TooManyFields, 431, "too-many-fields"),
            (BadRequest::MethodTooLong, 501, "method-too-long"),
            (BadRequest::UnsupportedTransferEncoding, 501, "unsupported-transfer-encoding"),
            (BadRequest::UnsupportedVersion, 505, "unsupported-version"),
            (BadRequest::TransferEncodingInHttp10, 400, "transfer-encoding-in-http10"),
        ] {
            assert_eq!((bad.status().as_u16(), bad.reason()), (status, reason));
        }
        assert_eq!((BodyError::TooLarge.status().as_u16(), BodyError::TooLarge.reason()), (413, "too-large"));
        assert_eq!(BodyError::ChunkEnd.status(), 400);
        assert_eq!(BadResponse::StatusLine.reason(), "status-line");
    }
}

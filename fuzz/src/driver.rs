//! Reads all messages of one connection from bytes that are cut into pieces, as a server or a client would.

use bytes::BytesMut;
use http::{Method, StatusCode};

use crate::wire::{BodyReader, Framing, HeadLimits, HeadReader, RawTarget, RequestHead, ResponseHead, Step};

/// Everything that came of a connection.
#[derive(Debug, PartialEq)]
pub struct Transcript<H> {
    /// Complete messages: head and body.
    pub messages: Vec<(H, Vec<u8>)>,
    pub end: End,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Between two messages.
    Clean,
    /// After a message that lets no other follow; what came behind it was not read.
    Closed,
    /// Inside a message.
    Incomplete,
    /// With an error, which is named.
    Refused(&'static str),
}

/// What decides how to go on after a head.
struct Next {
    framing: Framing,
    keep_alive: bool,
}

/// Reads requests.
pub fn requests<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    limits: HeadLimits,
    body_max: Option<u64>,
) -> Transcript<RequestHead> {
    let mut reader = HeadReader::new(limits);
    read(
        pieces,
        |buf| reader.request(buf).map_err(|bad| bad.reason()),
        |head| Next { framing: head.framing, keep_alive: head.keep_alive && head.target != RawTarget::Authority },
        body_max,
    )
}

/// Reads responses to `method`.
pub fn responses<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    limits: HeadLimits,
    method: &Method,
    body_max: Option<u64>,
) -> Transcript<ResponseHead> {
    let mut reader = HeadReader::new(limits);
    read(
        pieces,
        |buf| reader.response(buf, method).map_err(|bad| bad.reason()),
        |head| Next {
            framing: head.framing,
            keep_alive: match head.status {
                StatusCode::SWITCHING_PROTOCOLS => false,
                // The final response follows whatever an interim one says.
                status => head.keep_alive || status.is_informational(),
            },
        },
        body_max,
    )
}

fn read<'a, H>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    mut head: impl FnMut(&mut BytesMut) -> Result<Option<H>, &'static str>,
    next: impl Fn(&H) -> Next,
    body_max: Option<u64>,
) -> Transcript<H> {
    let mut messages = Vec::new();
    let mut buf = BytesMut::new();
    let mut open: Option<(H, BodyReader, Vec<u8>)> = None;
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            if let Some((_, body, data)) = &mut open {
                match body.read(&mut buf) {
                    Ok(Step::Data(piece)) => data.extend_from_slice(&piece),
                    Ok(Step::More) => break,
                    Ok(Step::End) => {
                        let Some((head, _, data)) = open.take() else { break };
                        let keep_alive = next(&head).keep_alive;
                        messages.push((head, data));
                        if !keep_alive {
                            return Transcript { messages, end: End::Closed };
                        }
                    }
                    Err(bad) => return Transcript { messages, end: End::Refused(bad.reason()) },
                }
            } else {
                match head(&mut buf) {
                    Ok(Some(head)) => {
                        let body = BodyReader::new(next(&head).framing, body_max);
                        open = Some((head, body, Vec::new()));
                    }
                    Ok(None) => break,
                    Err(reason) => return Transcript { messages, end: End::Refused(reason) },
                }
            }
        }
    }
    let end = match open {
        None if buf.is_empty() => End::Clean,
        None => End::Incomplete,
        Some((head, mut body, data)) => match body.eof() {
            Ok(()) => {
                messages.push((head, data));
                End::Closed
            }
            Err(_) => End::Incomplete,
        },
    };
    Transcript { messages, end }
}

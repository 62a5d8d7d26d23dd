//! The y-websocket messages, read from clients and written to them: pure, one message per WebSocket frame.
//!
//! ```text
//! 0 sync       0 0 buffer(state vector) = step 1 | 0 1 buffer(update) = step 2 | 0 2 buffer(update) = update
//! 1 awareness  1 buffer( varUint n, n times: varUint client, varUint clock, string json or "null" )
//! 2 auth       (server to client only, not used here)      3 query awareness (a single byte)
//! ```
//!
//! Stable y-websocket clients read exactly one message of each frame and drop what follows, so [`Outgoing::encode`]
//! gives one frame per message and [`ClientMessage::decode`] refuses trailing bytes.

use bytes::Bytes;

use crate::lib0::{self, Lib0Error, Reader};

/// Entries in one awareness message; a room has at most 200 connections with usually one entry each.
pub const AWARENESS_ENTRIES_MAX: usize = 512;

/// The keepalive: an awareness message without entries, which clients take as a sign of life and ignore otherwise.
pub const KEEPALIVE: [u8; 3] = [1, 1, 0];

const SYNC: u64 = 0;
const AWARENESS: u64 = 1;
const QUERY_AWARENESS: u64 = 3;
const STEP_1: u64 = 0;
const STEP_2: u64 = 1;
const UPDATE: u64 = 2;

/// What one client says about itself: cursor, name, colour; opaque JSON to this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwarenessEntry {
    /// The Yjs client id that the entry is about.
    pub client: u64,
    /// Grows with each change; a higher clock is the newer state.
    pub clock: u64,
    /// JSON text, or `None` when the client is gone (`null` on the wire).
    pub state: Option<Box<str>>,
}

/// A message that a client has sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientMessage {
    /// "This is the state that I have": an encoded state vector, to be answered with what is missing.
    Step1(Bytes),
    /// The answer to our own step 1: an encoded Yjs update.
    Step2(Bytes),
    /// A change: an encoded Yjs update.
    Update(Bytes),
    /// Presence of the sender, or an echo of what others have said.
    Awareness(Vec<AwarenessEntry>),
    /// "Who is here?"
    QueryAwareness,
    /// A message type of an extension that this server does not speak; ignored.
    Unknown(u64),
}

impl ClientMessage {
    /// Reads the one message of a binary frame.
    pub fn decode(frame: &Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(frame);
        let message = match reader.var_uint()? {
            SYNC => {
                let kind = reader.var_uint()?;
                let payload = frame.slice_ref(reader.buffer()?);
                match kind {
                    STEP_1 => Self::Step1(payload),
                    STEP_2 => Self::Step2(payload),
                    UPDATE => Self::Update(payload),
                    other => return Err(Malformed::UnknownSync(other)),
                }
            }
            AWARENESS => Self::Awareness(decode_awareness(reader.buffer()?)?),
            QUERY_AWARENESS => Self::QueryAwareness,
            other => return Ok(Self::Unknown(other)),
        };
        if reader.is_at_end() { Ok(message) } else { Err(Malformed::Trailing) }
    }
}

/// A message for clients; encoded once and shared by all who get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outgoing {
    /// Our state vector: "send me what I do not have".
    Step1(Vec<u8>),
    /// The answer to a client's step 1: everything that it lacks.
    Step2(Vec<u8>),
    /// A change of the document.
    Update(Bytes),
    /// Presence entries that are newer than what was sent before.
    Awareness(Vec<AwarenessEntry>),
}

impl Outgoing {
    /// The message as one frame.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        match self {
            Self::Step1(payload) => write_sync(&mut out, STEP_1, payload),
            Self::Step2(payload) => write_sync(&mut out, STEP_2, payload),
            Self::Update(payload) => write_sync(&mut out, UPDATE, payload),
            Self::Awareness(entries) => {
                lib0::write_var_uint(&mut out, AWARENESS);
                lib0::write_buffer(&mut out, &encode_awareness(entries));
            }
        }
        out.into()
    }
}

/// Why a frame is not a y-websocket message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Broken below the messages.
    #[error(transparent)]
    Lib0(#[from] Lib0Error),
    /// A sync message of a kind that the protocol does not have.
    #[error("sync message of unknown kind {0}")]
    UnknownSync(u64),
    /// More than one message in a frame.
    #[error("bytes follow the message; send one message per frame")]
    Trailing,
    /// More than [`AWARENESS_ENTRIES_MAX`] entries.
    #[error("more than {AWARENESS_ENTRIES_MAX} awareness entries in one message")]
    TooManyEntries,
}

fn write_sync(out: &mut Vec<u8>, kind: u64, payload: &[u8]) {
    lib0::write_var_uint(out, SYNC);
    lib0::write_var_uint(out, kind);
    lib0::write_buffer(out, payload);
}

fn decode_awareness(payload: &[u8]) -> Result<Vec<AwarenessEntry>, Malformed> {
    let mut reader = Reader::new(payload);
    let count = usize::try_from(reader.var_uint()?).unwrap_or(usize::MAX);
    if count > AWARENESS_ENTRIES_MAX {
        return Err(Malformed::TooManyEntries);
    }
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let client = reader.var_uint()?;
        let clock = reader.var_uint()?;
        let json = reader.string()?;
        entries.push(AwarenessEntry { client, clock, state: (json != "null").then(|| json.into()) });
    }
    Ok(entries)
}

fn encode_awareness(entries: &[AwarenessEntry]) -> Vec<u8> {
    let mut out = Vec::new();
    lib0::write_var_uint(&mut out, entries.len() as u64);
    for entry in entries {
        lib0::write_var_uint(&mut out, entry.client);
        lib0::write_var_uint(&mut out, entry.clock);
        lib0::write_string(&mut out, entry.state.as_deref().unwrap_or("null"));
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(bytes: &[u8]) -> Result<ClientMessage, Malformed> {
        ClientMessage::decode(&Bytes::copy_from_slice(bytes))
    }

    #[test]
    fn each_message_has_its_bytes() {
        let payload = Bytes::from_static(&[7, 8]);
        for (bytes, message) in [
            (&[0, 0, 2, 7, 8][..], ClientMessage::Step1(payload.clone())),
            (&[0, 1, 2, 7, 8], ClientMessage::Step2(payload.clone())),
            (&[0, 2, 2, 7, 8], ClientMessage::Update(payload.clone())),
            (&[1, 1, 0], ClientMessage::Awareness(Vec::new())),
            (&[3], ClientMessage::QueryAwareness),
            (&[100, 1, 2, 3], ClientMessage::Unknown(100)),
        ] {
            assert_eq!(decode(bytes), Ok(message));
        }
        assert_eq!(Outgoing::Step1(vec![7]).encode(), &[0, 0, 1, 7][..]);
        assert_eq!(Outgoing::Step2(vec![7]).encode(), &[0, 1, 1, 7][..]);
        assert_eq!(Outgoing::Update(payload).encode(), &[0, 2, 2, 7, 8][..]);
        assert_eq!(Outgoing::Awareness(Vec::new()).encode(), &KEEPALIVE[..]);
    }

    #[test]
    fn an_awareness_entry_without_state_is_null_on_the_wire() {
        let entries = vec![
            AwarenessEntry { client: 1, clock: 2, state: Some("{}".into()) },
            AwarenessEntry { client: 3, clock: 4, state: None },
        ];
        let frame = Outgoing::Awareness(entries.clone()).encode();
        assert_eq!(frame, &[1, 13, 2, 1, 2, 2, b'{', b'}', 3, 4, 4, b'n', b'u', b'l', b'l'][..]);
        assert_eq!(ClientMessage::decode(&frame), Ok(ClientMessage::Awareness(entries)));
    }

    #[test]
    fn what_is_not_a_message_says_why() {
        for (bytes, error) in [
            (&[][..], Malformed::Lib0(Lib0Error::Truncated)),
            (&[0, 9, 0], Malformed::UnknownSync(9)),
            (&[0, 2, 5, 1], Malformed::Lib0(Lib0Error::Truncated)),
            (&[3, 3], Malformed::Trailing),
            (&[1, 2, 0xff, 0x7f], Malformed::TooManyEntries),
        ] {
            assert_eq!(decode(bytes), Err(error), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_frame_is_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn any_bytes_behind_a_known_type_are_a_message_or_an_error(
            kind in 0_u8..4, sub in 0_u8..4, bytes in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let _ = decode(&[&[kind, sub], bytes.as_slice()].concat());
        }

        #[test]
        fn awareness_survives_the_wire(
            entries in prop::collection::vec((0..=lib0::VAR_UINT_MAX, 0..=lib0::VAR_UINT_MAX, prop::option::of("\\{.*\\}")), 0..20),
        ) {
            let entries: Vec<_> = entries
                .into_iter()
                .map(|(client, clock, state)| AwarenessEntry { client, clock, state: state.map(Into::into) })
                .collect();
            let frame = Outgoing::Awareness(entries.clone()).encode();
            prop_assert_eq!(ClientMessage::decode(&frame), Ok(ClientMessage::Awareness(entries)));
        }
    }
}

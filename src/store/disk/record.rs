//! Records as bytes: what a segment and the purge journal are made of.
//!
//! A record is a header of [`HEADER_BYTES`], a head and a body, one behind the other:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 4 | `EHr1` |
//! | 4 | 1 | format version |
//! | 5 | 1 | [`Kind`] |
//! | 6 | 2 | zero |
//! | 8 | 16 | id: of a family (head, tombstone) or of a part |
//! | 24 | 4 | number: which record of the journal it is |
//! | 28 | 4 | length of the head |
//! | 32 | 4 | length of the body |
//! | 36 | 4 | CRC-32 of the body |
//! | 40 | 8 | purge position |
//! | 48 | 8 | variant |
//! | 56 | 4 | CRC-32 of the head |
//! | 60 | 4 | CRC-32 of the sixty bytes before |
//!
//! Numbers are little-endian. What does not decode is no record: nothing here trusts a length before its checksum. A
//! change of the format is a new version, and a record of another version reads as none, so that the response is fetched
//! anew.

use bytes::{BufMut, Bytes};

/// Bytes of a record before its head.
pub const HEADER_BYTES: usize = 64;
/// V1: the first.
const VERSION: u8 = 1;
const MAGIC: [u8; 4] = *b"EHr1";

/// Bytes of a head: fields of 64 KiB, surrogate keys, and the parts of the largest body, with room to spare.
pub const HEAD_BYTES_MAX: u32 = 512 * 1024;
/// Bytes of a body: one part, or a small body whole.
pub const BODY_BYTES_MAX: u32 = 1024 * 1024;
/// Parts of one body: 4 GiB in parts of 1 MiB, and as many again for ranges that lie across them.
pub const PARTS_MAX: usize = 8 * 1024;
/// As many surrogate keys and cache groups as a response may have.
pub const KEYS_MAX: usize = 256 + 128;

const NO_LENGTH: u64 = u64::MAX;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A stored response: the commit of its parts.
    Head,
    /// Bytes of a body.
    Part,
    /// A head that is gone.
    Tombstone,
    /// An order in the purge journal.
    Purge,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::Head => 1,
            Self::Part => 2,
            Self::Tombstone => 3,
            Self::Purge => 4,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Head,
            2 => Self::Part,
            3 => Self::Tombstone,
            4 => Self::Purge,
            _ => return None,
        })
    }
}

/// What is known of a record without reading on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    /// Of a family (head, tombstone) or of a part.
    pub id: u128,
    /// Of a record of the journal.
    pub number: u32,
    pub head_len: u32,
    pub body_len: u32,
    pub body_crc: u32,
    pub position: u64,
    /// Among those of a family.
    pub variant: u64,
    pub head_crc: u32,
}

impl Header {
    /// A header for this head and body. `None` when one of them is larger than a record may be.
    pub fn new(kind: Kind, id: u128, head: &[u8], body: &[u8]) -> Option<Self> {
        let head_len = u32::try_from(head.len()).ok().filter(|len| *len <= HEAD_BYTES_MAX)?;
        let body_len = u32::try_from(body.len()).ok().filter(|len| *len <= BODY_BYTES_MAX)?;
        Some(Self {
            kind,
            id,
            number: 0,
            head_len,
            body_len,
            body_crc: checksum(body),
            position: 0,
            variant: 0,
            head_crc: checksum(head),
        })
    }

    /// Bytes of the whole record.
    pub fn record_len(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.head_len) + u64::from(self.body_len)
    }

    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut out = &mut bytes[..];
        out.put_slice(&MAGIC);
        out.put_u8(VERSION);
        out.put_u8(self.kind.byte());
        out.put_u16_le(0);
        out.put_u128_le(self.id);
        out.put_u32_le(self.number);
        out.put_u32_le(self.head_len);
        out.put_u32_le(self.body_len);
        out.put_u32_le(self.body_crc);
        out.put_u64_le(self.position);
        out.put_u64_le(self.variant);
        out.put_u32_le(self.head_crc);
        let crc = checksum(&bytes[..HEADER_BYTES - 4]);
        bytes[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header at the beginning of `bytes`, if there is one and it is whole.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        let mut from = Cursor(bytes);
        if from.array()? != MAGIC || from.u8()? != VERSION {
            return None;
        }
        let kind = Kind::from_byte(from.u8()?)?;
        if from.array()? != [0; 2] {
            return None;
        }
        let header = Self {
            kind,
            id: from.u128()?,
            number: from.u32()?,
            head_len: from.u32()?,
            body_len: from.u32()?,
            body_crc: from.u32()?,
            position: from.u64()?,
            variant: from.u64()?,
            head_crc: from.u32()?,
        };
        let sound = from.u32()? == checksum(&bytes[..HEADER_BYTES - 4])
            && header.head_len <= HEAD_BYTES_MAX
            && header.body_len <= BODY_BYTES_MAX;
        sound.then_some(header)
    }

    /// Head and body of a whole record, if both are what was written.
    pub fn verify<'a>(&self, record: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let rest = record.get(HEADER_BYTES..usize::try_from(self.record_len()).ok()?)?;
        let (head, body) = rest.split_at_checked(self.head_len as usize)?;
        (checksum(head) == self.head_crc && checksum(body) == self.body_crc).then_some((head, body))
    }
}

/// One part of a body, as its head lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartRef {
    /// What it is stored under.
    pub id: u64,
    /// Where in the representation its first byte is.
    pub offset: u64,
    pub len: u32,
    /// Of its bytes: no other part passes for it.
    pub crc: u32,
}

/// A stored response but for its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The cache key's hash: the variants of one key are a family.
    pub family: u128,
    /// Which of them; a later head of the same variant takes the place of this one.
    pub variant: u64,
    /// Purges after this one touch it.
    pub position: u64,
    /// What a purge of its URL names.
    pub url: u128,
    /// What purges by surrogate key name.
    pub surrogate_keys: Box<[u128]>,
    /// Of the whole representation, where known.
    pub length: Option<u64>,
    /// What there is of the body beside the inline bytes, in order.
    pub parts: Box<[PartRef]>,
    /// What the caller keeps of the response's head.
    pub meta: Bytes,
}

impl Head {
    /// The head of the record; family, variant and position are in its header.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + 16 * self.surrogate_keys.len() + 24 * self.parts.len() + self.meta.len());
        out.put_u128_le(self.url);
        out.put_u64_le(self.length.unwrap_or(NO_LENGTH));
        out.put_u32_le(self.surrogate_keys.len() as u32);
        out.put_u32_le(self.parts.len() as u32);
        self.surrogate_keys.iter().for_each(|key| out.put_u128_le(*key));
        for part in &self.parts {
            out.put_u64_le(part.id);
            out.put_u64_le(part.offset);
            out.put_u32_le(part.len);
            out.put_u32_le(part.crc);
        }
        out.put_slice(&self.meta);
        out
    }

    /// What `encode` wrote, of a record with this header.
    pub fn decode(header: &Header, bytes: &Bytes) -> Option<Self> {
        let mut from = Cursor(bytes);
        let (url, length) = (from.u128()?, from.u64()?);
        let (keys, parts) = (from.u32()? as usize, from.u32()? as usize);
        if keys > KEYS_MAX || parts > PARTS_MAX {
            return None;
        }
        let surrogate_keys = (0..keys).map(|_| from.u128()).collect::<Option<_>>()?;
        let parts = (0..parts)
            .map(|_| Some(PartRef { id: from.u64()?, offset: from.u64()?, len: from.u32()?, crc: from.u32()? }))
            .collect::<Option<Box<[PartRef]>>>()?;
        let ends = parts.iter().map(|part| part.offset.checked_add(u64::from(part.len)));
        if header.kind != Kind::Head || !ends.into_iter().all(|end| end.is_some()) {
            return None;
        }
        let meta = bytes.slice(bytes.len() - from.0.len()..);
        let length = (length != NO_LENGTH).then_some(length);
        let Header { id: family, variant, position, .. } = *header;
        Some(Self { family, variant, position, url, surrogate_keys, length, parts, meta })
    }

    /// Bytes of the body that are stored, given how many lie in the record itself.
    pub fn stored_bytes(&self, inline: u32) -> u64 {
        u64::from(inline) + self.parts.iter().map(|part| u64::from(part.len)).sum::<u64>()
    }
}

/// CRC-32 (IEEE).
pub fn checksum(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// Reads numbers from the front of bytes; `None` past their end.
pub struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Bytes behind their length.
    pub fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()? as usize;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(text)
    }

    pub fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head() -> impl Strategy<Value = Head> {
        let part = (any::<u64>(), 0..u64::MAX / 2, any::<u32>(), any::<u32>())
            .prop_map(|(id, offset, len, crc)| PartRef { id, offset, len, crc });
        let meta = prop::collection::vec(any::<u8>(), 0..100);
        let keys = prop::collection::vec(any::<u128>(), 0..5);
        let parts = prop::collection::vec(part, 0..5);
        let names = (any::<u128>(), any::<u64>(), any::<u64>(), any::<u128>());
        (names, keys, prop::option::of(0..u64::MAX - 1), parts, meta).prop_map(
            |((family, variant, position, url), keys, length, parts, meta)| Head {
                family,
                variant,
                position,
                url,
                surrogate_keys: keys.into(),
                length,
                parts: parts.into(),
                meta: meta.into(),
            },
        )
    }

    fn header_of(head: &Head, bytes: &[u8], body: &[u8]) -> Header {
        let header = Header::new(Kind::Head, head.family, bytes, body).unwrap();
        Header { variant: head.variant, position: head.position, ..header }
    }

    proptest! {
        #[test]
        fn a_head_is_read_as_it_was_written(head in head(), body in prop::collection::vec(any::<u8>(), 0..50)) {
            let bytes = head.encode();
            let header = header_of(&head, &bytes, &body);
            let record = [&header.encode()[..], &bytes, &body].concat();
            let read = Header::decode(&record).unwrap();
            prop_assert_eq!(read, header);
            let (read_head, read_body) = read.verify(&record).unwrap();
            prop_assert_eq!(read_body, &body[..]);
            prop_assert_eq!(Head::decode(&read, &Bytes::copy_from_slice(read_head)), Some(head));
        }

        #[test]
        fn a_record_with_any_bit_changed_is_none(head in head(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let bytes = head.encode();
            let header = header_of(&head, &bytes, b"body");
            let mut record = [&header.encode()[..], &bytes, b"body"].concat();
            let at = at.index(record.len());
            record[at] ^= 1 << bit;
            let read = Header::decode(&record);
            prop_assert!(read.is_none_or(|read| read.verify(&record).is_none()));
        }

        #[test]
        fn nothing_that_is_read_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let header = Header::new(Kind::Head, 1, b"", b"").unwrap();
            let _ = Header::decode(&bytes);
            let _ = Head::decode(&header, &Bytes::from(bytes));
        }
    }

    #[test]
    fn what_is_too_large_gets_no_header() {
        let large = vec![0; BODY_BYTES_MAX as usize + 1];
        assert!(Header::new(Kind::Part, 1, b"", &large).is_none());
        assert!(Header::new(Kind::Part, 1, b"", &large[1..]).is_some());
        assert!(Header::new(Kind::Head, 1, &large, b"").is_none());
    }
}

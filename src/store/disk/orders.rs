//! The purge journal as bytes.

use bytes::Bytes;

use super::record::{HEADER_BYTES, Header, Kind};

/// Number of the first record, which names seed and floor.
const FIRST: u32 = 0;
/// Number of the others.
const ORDER: u32 = 1;

/// An order as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub position: u64,
    pub bytes: Bytes,
}

impl Order {
    /// Bytes of its record.
    pub fn len(&self) -> u64 {
        (HEADER_BYTES + self.bytes.len()) as u64
    }
}

/// What a journal says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    pub seed: u64,
    /// What was stored before this position counts as purged.
    pub floor: u64,
    /// In the sequence in which they were written.
    pub orders: Vec<Order>,
}

impl Read {
    /// The last position that is known.
    pub fn position(&self) -> u64 {
        self.orders.iter().map(|order| order.position).fold(self.floor, u64::max)
    }

    /// Bytes of the journal that says so.
    pub fn len(&self) -> u64 {
        HEADER_BYTES as u64 + self.orders.iter().map(Order::len).sum::<u64>()
    }
}

/// The first record of a journal.
pub fn encode_first(seed: u64, floor: u64) -> Option<Vec<u8>> {
    let header = Header::new(Kind::Purge, u128::from(seed), &[], &[])?;
    Some(Header { number: FIRST, position: floor, ..header }.encode().to_vec())
}

/// One of the others; `None` when it is larger than a record may be.
pub fn encode_order(order: &Order) -> Option<Vec<u8>> {
    let header = Header::new(Kind::Purge, 0, &[], &order.bytes)?;
    let header = Header { number: ORDER, position: order.position, ..header };
    Some([&header.encode()[..], &order.bytes].concat())
}

/// What the bytes say. Their end may be missing: that order was not acknowledged. Anything else that is not as it was written
/// makes the whole untrustworthy, since the orders behind it cannot be found.
pub fn decode(bytes: &Bytes) -> Option<Read> {
    let mut at = 0;
    let mut read: Option<Read> = None;
    while bytes.len() - at >= HEADER_BYTES {
        let header = Header::decode(&bytes[at..]).filter(|header| header.kind == Kind::Purge)?;
        let end = at + usize::try_from(header.record_len()).ok()?;
        if end > bytes.len() {
            break;
        }
        let (_, body) = header.verify(&bytes[at..end])?;
        match &mut read {
            None if header.number == FIRST => {
                read = Some(Read { seed: u64::try_from(header.id).ok()?, floor: header.position, orders: Vec::new() });
            }
            Some(read) if header.number == ORDER => {
                read.orders.push(Order { position: header.position, bytes: bytes.slice_ref(body) });
            }
            _ => return None,
        }
        at = end;
    }
    read
}

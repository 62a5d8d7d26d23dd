//! A stored response and an order of purge as bytes, for tiers and journals that outlive the process.
//!
//! V1 of both. What does not decode was written by another version: the response is fetched anew, and an order that cannot be
//! understood counts as one for everything.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{
    Body, Part, Parts, Position, PurgeOrder, PurgeTarget, Stored, Subject,
    coded::Copies,
    disk::{Cursor, Head, KEYS_MAX, PartRef},
    target,
};
use crate::cache::{GROUPS_MAX, Key, Meta, SURROGATE_KEYS_MAX, VariantKey};

const VERSION: u8 = 1;
const _: () = assert!(KEYS_MAX >= SURROGATE_KEYS_MAX + GROUPS_MAX, "whatever may be stored is read again");
/// In the place of an order's flag.
const PLACE: u8 = 2;

impl Stored {
    /// What names this variant among those of its key.
    pub(super) fn variant_hash(&self, seed: u64) -> u64 {
        // The text names the fields too.
        xxh3_64_with_seed(self.variant.as_bytes(), seed)
    }

    /// All but the bytes of the body.
    pub(super) fn to_head(&self, seed: u64) -> Head {
        let (key, variant) = (self.key.text().as_bytes(), self.variant.as_bytes());
        let mut meta = Vec::with_capacity(key.len() + variant.len() + 512);
        meta.push(VERSION);
        for text in [key, variant] {
            meta.extend_from_slice(&(text.len() as u32).to_le_bytes());
            meta.extend_from_slice(text);
        }
        self.meta.encode(&mut meta);
        let parts = match &self.body {
            Body::Inline(_) => Box::default(),
            Body::Parts(parts) => parts
                .all()
                .iter()
                .map(|part| PartRef { id: part.id, offset: part.start, len: part.length, crc: 0 })
                .collect(),
        };
        Head {
            family: self.key.hash(),
            variant: self.variant_hash(seed),
            position: self.position,
            url: self.url,
            surrogate_keys: self.surrogate_keys.clone(),
            length: Some(self.body.length()),
            parts,
            meta: meta.into(),
        }
    }

    /// What [`Stored::to_head`] was made of, with the bytes of a small body.
    pub(super) fn from_head(seed: u64, head: &Head, inline: Bytes) -> Option<Self> {
        let mut from = Cursor(&head.meta);
        if from.u8()? != VERSION {
            return None;
        }
        let key = std::str::from_utf8(from.text()?).ok()?;
        let key = Key::restored(seed, key);
        let variant = VariantKey::restored(from.text()?);
        let meta = Meta::decode(from.0)?;
        let length = head.length?;
        let body = if head.parts.is_empty() && inline.len() as u64 == length {
            Body::Inline(inline)
        } else {
            let parts = head.parts.iter().map(|part| Part { id: part.id, start: part.offset, length: part.len });
            Body::Parts(Parts::new(length, parts.collect()))
        };
        (key.hash() == head.family).then(|| Self {
            meta,
            body,
            key: Arc::new(key),
            variant,
            position: head.position,
            url: head.url,
            surrogate_keys: head.surrogate_keys.clone(),
            checked: AtomicU64::new(head.position),
            heads: Default::default(),
            copies: Copies::default(),
        })
    }
}

/// What purges look at, without reading the rest.
pub(super) fn subject(head: &Head) -> Option<Subject<'_>> {
    let mut from = Cursor(&head.meta);
    if from.u8()? != VERSION {
        return None;
    }
    let key = std::str::from_utf8(from.text()?).ok()?;
    Some(Subject { url: head.url, target: target(key), surrogate_keys: &head.surrogate_keys })
}

/// An order as a journal keeps it, beside its position.
pub(super) fn order_to_bytes(order: &PurgeOrder, at: SystemTime) -> Bytes {
    let mut out = vec![VERSION, order.soft.into()];
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    out.extend_from_slice(&since.as_secs().to_le_bytes());
    out.extend_from_slice(&since.subsec_nanos().to_le_bytes());
    for target in &order.targets {
        let (kind, hash, length) = match *target {
            PurgeTarget::All => (0, 0, 0),
            PurgeTarget::Url(hash) => (1, hash, 0),
            PurgeTarget::SurrogateKey(hash) => (2, hash, 0),
            PurgeTarget::Path(hash) => (3, hash, 0),
            PurgeTarget::Prefix { hash, length } => (4, hash, length),
            PurgeTarget::Host(hash) => (5, hash, 0),
        };
        out.push(kind);
        out.extend_from_slice(&hash.to_le_bytes());
        out.extend_from_slice(&(length as u64).to_le_bytes());
    }
    out.into()
}

/// What [`order_to_bytes`] wrote. `None`: it cannot be understood.
pub(super) fn order_from_bytes(bytes: &[u8]) -> Option<(PurgeOrder, SystemTime)> {
    let mut from = Cursor(bytes);
    if from.u8()? != VERSION {
        return None;
    }
    let soft = match from.u8()? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let (seconds, nanos) = (from.u64()?, from.u32()?);
    let since = (nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos))?;
    let at = UNIX_EPOCH.checked_add(since)?;
    let mut targets = Vec::new();
    while !from.0.is_empty() {
        let (kind, hash, length) = (from.u8()?, from.u128()?, from.u64()?);
        targets.push(match kind {
            0 => PurgeTarget::All,
            1 => PurgeTarget::Url(hash),
            2 => PurgeTarget::SurrogateKey(hash),
            3 => PurgeTarget::Path(hash),
            4 => PurgeTarget::Prefix { hash, length: usize::try_from(length).ok()? },
            5 => PurgeTarget::Host(hash),
            _ => return None,
        });
    }
    Some((PurgeOrder { targets, soft }, at))
}

/// What a journal holds beside orders: how far whoever gives them has come.
pub(super) fn place_to_bytes(place: &str) -> Bytes {
    [&[VERSION, PLACE], place.as_bytes()].concat().into()
}

/// A journal that has been read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Journal {
    /// In their sequence.
    pub(super) orders: Vec<(Position, PurgeOrder, SystemTime)>,
    /// The last one.
    pub(super) place: Option<String>,
}

/// The records of a journal.
pub(super) fn journal(read: Vec<super::disk::Order>) -> Journal {
    let mut journal = Journal::default();
    for record in read {
        let place = record.bytes.strip_prefix(&[VERSION, PLACE]).and_then(|text| std::str::from_utf8(text).ok());
        match place {
            Some(place) => journal.place = Some(place.to_owned()),
            None => {
                let everything = || (PurgeOrder { targets: vec![PurgeTarget::All], soft: false }, UNIX_EPOCH);
                let (order, at) = order_from_bytes(&record.bytes).unwrap_or_else(everything);
                journal.orders.push((record.position, order, at));
            }
        }
    }
    // Two that came at once may have been written the other way round.
    journal.orders.sort_by_key(|(position, ..)| *position);
    journal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_as_it_was_written() {
        let at = UNIX_EPOCH + Duration::new(1_795_486_897, 400_000_001);
        let targets = vec![
            PurgeTarget::Url(7),
            PurgeTarget::SurrogateKey(u128::MAX),
            PurgeTarget::Path(8),
            PurgeTarget::Prefix { hash: 9, length: 10 },
            PurgeTarget::Host(11),
            PurgeTarget::All,
        ];
        for soft in [false, true] {
            let order = PurgeOrder { targets: targets.clone(), soft };
            let bytes = order_to_bytes(&order, at);
            assert_eq!(order_from_bytes(&bytes), Some((order, at)));
            assert_eq!(order_from_bytes(&bytes[..bytes.len() - 1]), None);
        }
    }

    #[test]
    fn an_order_that_is_not_understood_is_one_for_everything() {
        let strange = super::super::disk::Order { position: 9, bytes: Bytes::from_static(b"of another version") };
        let orders = vec![(9, PurgeOrder { targets: vec![PurgeTarget::All], soft: false }, UNIX_EPOCH)];
        assert_eq!(journal(vec![strange]), Journal { orders, place: None });
    }

    #[test]
    fn the_last_place_is_the_one() {
        let record = |place| super::super::disk::Order { position: 9, bytes: place_to_bytes(place) };
        let read = journal(vec![record("epoch 1"), record("epoch 2")]);
        assert_eq!(read, Journal { orders: Vec::new(), place: Some("epoch 2".into()) });
    }
}

//! One shared document: the only file that touches yrs, with bytes from outside checked before yrs sees them.
//!
//! Decoding is guarded twice. A count that promises more entries than the message has bytes is refused, because yrs
//! would reserve memory for it. And a panic while decoding (yrs asserts on client ids above 2^53) is turned into
//! [`BadUpdate`]: decoding shares no state, so the document is as it was. A panic while *applying* is not caught here; it
//! ends the room's task.

use std::{
    mem::ManuallyDrop,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use bytes::Bytes;
use yrs::{
    Doc, OffsetKind, Options, ReadTxn, StateVector, Transact, Update,
    updates::{decoder::Decode, encoder::Encode},
};

use crate::lib0::Reader;

/// Bytes of one encoded document. A page of text is some KiB; ten thousand of them are a mistake or an attack.
pub const DOC_BYTES_MAX: usize = 10 * 1024 * 1024;

/// An update of this length or less holds neither a block nor a deletion.
pub const EMPTY_UPDATE_BYTES: usize = 2;

/// Bytes that are not what they claim to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadUpdate {
    /// Not an encoded update or state vector.
    #[error("not a Yjs update: {0}")]
    Encoding(String),
    /// Well encoded, but it does not fit into a document.
    #[error("the update cannot be applied: {0}")]
    Apply(String),
}

/// What an update did to a document.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// What was new in it, to be told to everybody; `None` when all of it was known or has to wait for what is missing.
    pub news: Option<Bytes>,
    /// Whether the update holds something that no earlier one held, and has to be saved.
    pub worth_saving: bool,
}

/// A document.
#[derive(Debug)]
pub struct Document {
    doc: Doc,
}

impl Document {
    /// An empty document.
    pub fn new() -> Self {
        // The server edits nothing itself; still, positions mean the same as in JavaScript.
        Self { doc: Doc::with_options(Options { offset_kind: OffsetKind::Utf16, ..Options::default() }) }
    }

    /// Applies an encoded update.
    pub fn apply(&self, update: &[u8]) -> Result<Applied, BadUpdate> {
        if update.len() <= EMPTY_UPDATE_BYTES {
            return Ok(Applied::default());
        }
        let update = decode::<Update>(update)?;
        let mut transaction = ManuallyDrop::new(self.doc.transact_mut());
        // Dropping a transaction commits it. After a panic that would be a second one on top of the first, and the end
        // of the process: the transaction is left alone then, and the panic goes on to end the room.
        let applied = catch_unwind(AssertUnwindSafe(|| {
            transaction.apply_update(update).map_err(|error| BadUpdate::Apply(error.to_string()))?;
            let changed = transaction.has_changes();
            let waits = transaction.has_missing_updates();
            let news = changed.then(|| transaction.encode_update_v1().into());
            transaction.commit();
            Ok(Applied { news, worth_saving: changed || waits })
        }));
        match applied {
            Ok(applied) => {
                drop(ManuallyDrop::into_inner(transaction));
                applied
            }
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Everything that a holder of this encoded state vector lacks, as an update.
    pub fn missing_for(&self, state_vector: &[u8]) -> Result<Vec<u8>, BadUpdate> {
        let theirs = decode::<StateVector>(state_vector)?;
        Ok(self.doc.transact().encode_state_as_update_v1(&theirs))
    }

    /// What this document has, as an encoded state vector.
    pub fn state_vector(&self) -> Vec<u8> {
        self.doc.transact().state_vector().encode_v1()
    }

    /// The whole document as one update.
    pub fn encode(&self) -> Vec<u8> {
        self.doc.transact().encode_state_as_update_v1(&StateVector::default())
    }
}

impl Default for Document {
    fn default() -> Self {
        Self::new()
    }
}

/// One update that does what all of `updates` do.
pub fn merge(updates: &[Bytes]) -> Result<Bytes, BadUpdate> {
    match updates {
        [single] => Ok(single.clone()),
        several => {
            yrs::merge_updates_v1(several).map(Bytes::from).map_err(|error| BadUpdate::Encoding(error.to_string()))
        }
    }
}

/// The whole document that `updates` make, as one update.
pub fn compact(updates: &[Bytes]) -> Result<Vec<u8>, BadUpdate> {
    let document = Document::new();
    for update in updates {
        document.apply(update)?;
    }
    Ok(document.encode())
}

fn decode<T: Decode>(bytes: &[u8]) -> Result<T, BadUpdate> {
    // Both encodings begin with the number of entries, each of which takes more than a byte.
    let count = Reader::new(bytes).var_uint().map_err(|error| BadUpdate::Encoding(error.to_string()))?;
    if count > bytes.len() as u64 {
        return Err(BadUpdate::Encoding(format!("{count} entries in {} bytes", bytes.len())));
    }
    match catch_unwind(|| T::decode_v1(bytes)) {
        Ok(decoded) => decoded.map_err(|error| BadUpdate::Encoding(error.to_string())),
        Err(_panic) => Err(BadUpdate::Encoding("a value is out of range".into())),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use yrs::{GetString, Text};

    use super::*;

    /// A client's document, with the text that the tests edit.
    pub(crate) struct Client {
        pub(crate) doc: Doc,
    }

    impl Client {
        pub(crate) fn new(id: u64) -> Self {
            let doc = Doc::with_options(Options {
                offset_kind: OffsetKind::Utf16,
                ..Options::with_client_id(yrs::block::ClientID::new(id))
            });
            Self { doc }
        }

        /// Inserts at a place and returns the update that a y-websocket client would send.
        pub(crate) fn insert(&self, at: u32, text: &str) -> Bytes {
            let target = self.doc.get_or_insert_text("t");
            let mut transaction = self.doc.transact_mut();
            let at = at.min(target.len(&transaction));
            target.insert(&mut transaction, at, text);
            transaction.encode_update_v1().into()
        }

        /// Removes up to `count` characters and returns the update.
        pub(crate) fn remove(&self, at: u32, count: u32) -> Bytes {
            let target = self.doc.get_or_insert_text("t");
            let mut transaction = self.doc.transact_mut();
            let length = target.len(&transaction);
            let at = at.min(length);
            target.remove_range(&mut transaction, at, count.min(length - at));
            transaction.encode_update_v1().into()
        }

        pub(crate) fn apply(&self, update: &[u8]) {
            let update = Update::decode_v1(update).unwrap();
            self.doc.transact_mut().apply_update(update).unwrap();
        }

        pub(crate) fn text(&self) -> String {
            let target = self.doc.get_or_insert_text("t");
            target.get_string(&self.doc.transact())
        }
    }

    /// The text of a document.
    pub(crate) fn text_of(document: &Document) -> String {
        text_after(&[document.encode().into()])
    }

    /// The text that updates make.
    pub(crate) fn text_after(updates: &[Bytes]) -> String {
        let reader = Client::new(1);
        for update in updates {
            reader.apply(update);
        }
        reader.text()
    }

    #[test]
    fn an_update_is_news_once() {
        let (ann, document) = (Client::new(7), Document::new());
        let update = ann.insert(0, "a \u{1f600}");
        let first = document.apply(&update).unwrap();
        assert!(first.news.is_some() && first.worth_saving);
        assert_eq!(document.apply(&update).unwrap(), Applied::default());
        assert_eq!(
            document.apply(&ann.doc.transact().encode_state_as_update_v1(&StateVector::default())).unwrap(),
            Applied::default()
        );
        assert_eq!(text_of(&document), "a \u{1f600}");
    }

    #[test]
    fn an_update_that_comes_too_early_is_saved_and_told_when_it_can_be_read() {
        let (ann, document) = (Client::new(7), Document::new());
        let (first, second) = (ann.insert(0, "a"), ann.insert(1, "b"));
        let early = document.apply(&second).unwrap();
        assert!(early.news.is_none() && early.worth_saving);
        let news = document.apply(&first).unwrap().news.unwrap();
        assert_eq!(text_after(&[news]), "ab");
    }

    #[test]
    fn bytes_that_are_no_update_leave_the_document_as_it_was() {
        let (ann, document) = (Client::new(7), Document::new());
        document.apply(&ann.insert(0, "kept")).unwrap();
        const ABOVE_2_TO_THE_53: [u8; 9] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        let update = [&[1, 1], &ABOVE_2_TO_THE_53[..], &[0, 0, 1, 0]].concat();
        let state_vector = [&[1], &ABOVE_2_TO_THE_53[..], &[0]].concat();
        for bytes in [&[9, 9, 9][..], &[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0], &update] {
            assert!(document.apply(bytes).is_err(), "{bytes:?}");
        }
        for bytes in [&[9, 9, 9][..], &[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0], &state_vector] {
            assert!(document.missing_for(bytes).is_err(), "{bytes:?}");
        }
        assert_eq!(text_of(&document), "kept");
    }

    /// Edits by three clients that see nothing of each other until the end, in the order in which they were made.
    fn edits() -> impl Strategy<Value = Vec<Bytes>> {
        let edit = (0_usize..3, any::<bool>(), 0_u32..40, "[a-z\u{1f600}]{1,4}");
        prop::collection::vec(edit, 1..30).prop_map(|edits| {
            let clients = [Client::new(1), Client::new(2), Client::new(3)];
            edits
                .into_iter()
                .map(|(who, inserts, at, text)| {
                    let client = &clients[who];
                    if inserts { client.insert(u32::MAX, &text) } else { client.remove(at, 1_000) }
                })
                .collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn merged_or_compacted_updates_make_the_document_that_they_made_one_by_one(updates in edits(), cut in 0_usize..30) {
            let expected = text_after(&updates);
            prop_assert_eq!(&text_after(&[merge(&updates).unwrap()]), &expected);
            prop_assert_eq!(&text_after(&[compact(&updates).unwrap().into()]), &expected);
            // As the store has them: a snapshot, then merged rows, the second of which repeats a part of the first.
            let cut = cut.min(updates.len() - 1);
            let rows = [compact(&updates[..=cut]).unwrap().into(), merge(&updates[cut..]).unwrap()];
            prop_assert_eq!(&text_after(&rows), &expected);
        }

        #[test]
        fn any_bytes_are_applied_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let document = Document::new();
            let _ = document.missing_for(&bytes);
            let _ = document.apply(&bytes);
        }

        #[test]
        fn a_damaged_update_is_applied_or_refused(at in 0_usize..64, byte: u8) {
            let (ann, document) = (Client::new(7), Document::new());
            let mut bytes = ann.insert(0, "hello, world").to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            // An apply that panics ends the room's task, as it would in a node; what matters here is that it returns.
            let _ = catch_unwind(AssertUnwindSafe(|| document.apply(&bytes)));
        }
    }
}

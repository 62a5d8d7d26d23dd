//! The body of an answer that is put together: from what is stored, what is coming, and what is still to be asked for.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_RANGE, CONTENT_TYPE},
};

use super::{
    downstream::{ClientGone, Length, OutgoingHead, ResponseSink},
    exchange::Exchange,
    lookup::Wanted,
    refill::{Ask, Condition, PartOf},
};
use crate::{
    cache::{self, Meta, Selection, Span},
    store::{Broken, Coming, Fill, Joined, Outcome, Read, Reader, Stored},
};

/// Between the parts of a `multipart/byteranges` body; random enough not to occur in one.
const BOUNDARY: &str = "eduham-edge-3d6b6a416f9b5";

/// A stretch of an answer's body.
pub enum Stretch {
    /// Said by us: what stands between ranges.
    Text(Bytes),
    /// These bytes of the representation.
    Of(Range<u64>),
}

/// The head and the body of an answer with these bytes of a representation of `length`.
pub fn compose(
    selection: &Selection,
    status: StatusCode,
    mut fields: HeaderMap,
    length: u64,
) -> (OutgoingHead, Vec<Stretch>) {
    let (status, total, body) = match selection {
        Selection::Whole => (status, length, vec![Stretch::Of(0..length)]),
        Selection::Single(range) => {
            fields.insert(CONTENT_RANGE, cache::content_range(range, length));
            (StatusCode::PARTIAL_CONTENT, range.end - range.start, vec![Stretch::Of(range.clone())])
        }
        Selection::Many(ranges) => {
            let content_type = fields.insert(CONTENT_TYPE, cache::multipart_content_type(BOUNDARY));
            let mut body = Vec::with_capacity(ranges.len() * 2 + 1);
            for range in ranges {
                let head = cache::part_head(BOUNDARY, content_type.as_ref(), range, length);
                body.push(Stretch::Text(head.into()));
                body.push(Stretch::Of(range.clone()));
            }
            body.push(Stretch::Text(cache::multipart_end(BOUNDARY).into()));
            let total = cache::multipart_length(BOUNDARY, content_type.as_ref(), ranges, length);
            (StatusCode::PARTIAL_CONTENT, total, body)
        }
        Selection::Unsatisfiable => {
            fields.insert(CONTENT_RANGE, cache::unsatisfied_range(length));
            fields.remove(CONTENT_TYPE);
            (StatusCode::RANGE_NOT_SATISFIABLE, 0, Vec::new())
        }
    };
    (OutgoingHead { status, fields, length: Length::Known(total), close: false }, body)
}

/// Bytes on their way from an origin, and how far they have been taken.
pub struct Current {
    span: Span,
    reader: Reader,
    /// Offset in the representation of what comes next.
    at: u64,
    /// Taken from the reader, not yet used.
    pending: VecDeque<Bytes>,
}

impl Current {
    pub fn new(span: Span, reader: Reader) -> Self {
        Self { span, reader, at: span.start, pending: VecDeque::new() }
    }

    fn will_bring(&self, at: u64) -> bool {
        self.at <= at && at < self.span.end
    }

    /// The next bytes from `at` on, at most to `end`.
    async fn take<S: ResponseSink>(
        &mut self,
        at: u64,
        end: u64,
        sink: &mut S,
    ) -> Result<Result<Bytes, Broken>, ClientGone> {
        loop {
            let Some(piece) = self.pending.pop_front() else {
                let pieces = match self.reader.ready() {
                    Some(ready) => ready,
                    None => {
                        sink.flush().await?;
                        self.reader.next().await
                    }
                };
                match pieces {
                    // Shorter than its head said.
                    Ok(pieces) if pieces.is_empty() => return Ok(Err(Broken::Origin)),
                    Ok(pieces) => self.pending.extend(pieces),
                    Err(broken) => return Ok(Err(broken)),
                }
                continue;
            };
            let skip = within(at - self.at, &piece);
            let take = within(end - self.at, &piece);
            self.at += take as u64;
            if take < piece.len() {
                self.pending.push_front(piece.slice(take..));
            }
            if skip < take {
                return Ok(Ok(piece.slice(skip..take)));
            }
        }
    }
}

fn within(bytes: u64, piece: &Bytes) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX).min(piece.len())
}

/// One representation, of which an answer is made.
struct Assembly<'w> {
    wanted: &'w Wanted,
    meta: &'w Meta,
    length: u64,
    /// May more of it be asked for?
    grows: bool,
    current: Option<Current>,
}

impl Exchange<'_> {
    /// Answers with what `selection` says of a representation that is coming, or some bytes of which are: the rest is
    /// stored, or is asked for when it is its turn. A representation that changes meanwhile ends the answer.
    pub async fn deliver_parts<S: ResponseSink>(
        &mut self,
        sink: &mut S,
        wanted: &Wanted,
        coming: &Arc<Coming>,
        reader: Reader,
        selection: &Selection,
        first_use: bool,
    ) -> Result<(), ClientGone> {
        let now = self.edge.clock.now();
        let meta = &coming.meta;
        let Some(span) = coming.span.or(coming.length.map(|length| Span { start: 0, end: length, length })) else {
            // A body of unknown length has no ranges.
            return Ok(());
        };
        self.note_reused(meta, now, None);
        self.note_codings(meta.status, &meta.fields, coming.complete_length());
        if self.deliver_precondition(sink, meta, now).await? {
            return Ok(());
        }
        let fields = if first_use { self.first_use(meta.fields.clone(), meta, now) } else { self.reusing(meta, now) };
        let (head, body) = compose(selection, meta.status, fields, span.length);
        self.send_head(sink, head).await?;
        let grows = coming.span.is_some() && cache::has_strong_validator(meta);
        let current = Some(Current::new(span, reader));
        let mut assembly = Assembly { wanted, meta, length: span.length, grows, current };
        for stretch in body {
            match stretch {
                Stretch::Text(text) => sink.body(text).await?,
                Stretch::Of(range) => {
                    if let Err(reason) = self.send_range(sink, &mut assembly, range).await? {
                        self.cut_off(sink, reason).await;
                        return Ok(());
                    }
                }
            }
        }
        sink.end().await
    }

    /// Sends these bytes; an error says why they could not all be had.
    async fn send_range<S: ResponseSink>(
        &mut self,
        sink: &mut S,
        assembly: &mut Assembly<'_>,
        range: Range<u64>,
    ) -> Result<Result<(), &'static str>, ClientGone> {
        let mut at = range.start;
        // What was fetched for this very byte and then was not there is not fetched again.
        let mut fetched_for = None;
        while at < range.end {
            if let Some(current) = assembly.current.as_mut().filter(|current| current.will_bring(at)) {
                match current.take(at, range.end.min(current.span.end), sink).await? {
                    Ok(piece) => {
                        at += piece.len() as u64;
                        sink.body(piece).await?;
                    }
                    Err(_) => return Ok(Err("body-broken")),
                }
                continue;
            }
            let stored = self.same_stored(assembly).await;
            let until = match &stored {
                Some(stored) => match self.edge.store.read(stored, at).await {
                    Read::Bytes(piece) => {
                        let piece = piece.slice(..within(range.end - at, &piece));
                        at += piece.len() as u64;
                        sink.body(piece).await?;
                        continue;
                    }
                    Read::Hole { until } => until.min(range.end),
                },
                None => range.end,
            };
            if !assembly.grows || fetched_for == Some(at) {
                return Ok(Err("body-broken"));
            }
            fetched_for = Some(at);
            sink.flush().await?;
            match self.fetch_part(assembly, at..until).await {
                Some(current) => assembly.current = Some(current),
                None => return Ok(Err("representation-changed")),
            }
        }
        Ok(Ok(()))
    }

    /// What is stored now of the representation that is being sent.
    async fn same_stored(&self, assembly: &Assembly<'_>) -> Option<Arc<Stored>> {
        let found = self.edge.store.found(&assembly.wanted.key, &self.request.fields).await?;
        let same =
            found.stored.body.length() == assembly.length && cache::same_entity(&found.stored.meta, assembly.meta);
        same.then_some(found.stored)
    }

    /// Asks for `missing` of the representation that is being sent, or waits for who asks for it already.
    async fn fetch_part(&mut self, assembly: &Assembly<'_>, missing: Range<u64>) -> Option<Current> {
        let wanted = assembly.wanted;
        let range = match wanted.policy.slice {
            Some(slice) => cache::slices(&missing, slice, Some(assembly.length)),
            None => missing.clone(),
        };
        // One slice at a time: who reads the next one may be somebody else.
        let range = range.start..wanted.policy.slice.map_or(range.end, |slice| range.end.min(range.start + slice));
        let part_of = PartOf { meta: assembly.meta.clone(), length: assembly.length, condition: Condition::Match };
        let ask = Ask::missing(range, part_of);
        let id = wanted.fill_id(&ask, &self.request.fields);
        let (fill, is_writer) = match self.edge.store.join_fill(id, wanted.url(self.edge.store.seed()), || false) {
            Joined::Writer(fill) => (fill, true),
            Joined::Waiter(fill) => (fill, false),
            Joined::Full | Joined::Outdated => (Fill::new(), true),
        };
        let mut reader = fill.reader();
        if is_writer {
            self.refill(wanted, ask, id, fill, None, None);
        }
        // The task always decides: every step of it has a deadline.
        match reader.head(std::time::Duration::MAX).await? {
            Outcome::Storing(coming)
                if coming.variant.matches(coming.meta.vary(), &self.request.fields)
                    && cache::same_entity(&coming.meta, assembly.meta) =>
            {
                let span = coming.span.filter(|span| span.length == assembly.length)?;
                span.covers(&(missing.start..missing.start + 1)).then(|| Current::new(span, reader))
            }
            Outcome::Changed => {
                if let Some(stored) = self.same_stored(assembly).await {
                    self.edge.store.remove(&stored);
                }
                None
            }
            _ => None,
        }
    }
}

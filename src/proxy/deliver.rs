//! Step 5: the answer, from whatever there is: a stored response, one that is coming, an origin's, or our own.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{ACCEPT_RANGES, AGE, CONTENT_RANGE},
};
use tokio::io::AsyncRead;

use super::{
    decision::Step,
    downstream::{ClientGone, Length, OutgoingHead, ResponseSink},
    exchange::Exchange,
    fetch::{OriginBody, OriginResponse},
    fields::{self, CACHE_STATUS},
    partial::{Stretch, compose},
    refill::Filling,
    synth::{Refusal, Synthetic, refuse},
};
use crate::{
    cache::{self, Meta, Precondition, RequestView, Selection},
    store::{Body, Broken, Reader, Stored},
};

/// A body that comes in pieces; no pieces are its end, a body that breaks off is an error.
trait ComingBody: Send {
    /// What is there now, or the end.
    fn ready(&mut self) -> Option<Result<Vec<Bytes>, Broken>>;
    /// What comes next.
    fn next(&mut self) -> impl Future<Output = Result<Vec<Bytes>, Broken>> + Send;
}

impl ComingBody for Reader {
    fn ready(&mut self) -> Option<Result<Vec<Bytes>, Broken>> {
        Reader::ready(self)
    }

    fn next(&mut self) -> impl Future<Output = Result<Vec<Bytes>, Broken>> + Send {
        Reader::next(self)
    }
}

impl<R: AsyncRead + Unpin + Send> ComingBody for OriginBody<R> {
    fn ready(&mut self) -> Option<Result<Vec<Bytes>, Broken>> {
        OriginBody::ready(self)
    }

    fn next(&mut self) -> impl Future<Output = Result<Vec<Bytes>, Broken>> + Send {
        OriginBody::next(self)
    }
}

impl Exchange<'_> {
    /// Answers with a stored response; false when its body is gone, and nothing has been sent. `soft_purged`: when a soft
    /// purge expired it.
    pub async fn deliver_stored<S: ResponseSink>(
        &mut self,
        sink: &mut S,
        stored: &Arc<Stored>,
        soft_purged: Option<SystemTime>,
    ) -> Result<bool, ClientGone> {
        let now = self.edge.clock.now();
        let copy = self.coded(stored);
        let stored = copy.as_ref().unwrap_or(stored);
        let meta = &stored.meta;
        let length = stored.body.length();
        let view = RequestView { method: &self.request.method, fields: &self.request.fields };
        let is_empty = self.request.method == Method::HEAD || without_body(meta.status);
        let selection = if is_empty { Selection::Whole } else { cache::select(&view, meta, length) };
        self.note_reused(meta, now, soft_purged);
        if self.deliver_precondition(sink, meta, now).await? {
            return Ok(true);
        }
        // All parts at once: from here on nothing can be evicted under the answer.
        let mut parts = Vec::new();
        if !is_empty && matches!(stored.body, Body::Parts(_)) {
            for range in selection.ranges(length) {
                match self.edge.store.hold(stored, range) {
                    Some(pieces) => parts.push(pieces),
                    None => {
                        self.decide(Step::Evicted);
                        return Ok(false);
                    }
                }
            }
        }
        let (mut head, body) = compose(&selection, meta.status, self.reusing(meta, now), length);
        if copy.is_some() {
            // Ranges are of the bytes as they are.
            head.fields.remove(ACCEPT_RANGES);
        }
        if is_empty {
            head.length = Length::None { announced: (!without_body(meta.status)).then_some(length) };
        }
        self.send_head(sink, head).await?;
        if !is_empty {
            let mut parts = parts.into_iter();
            for stretch in body {
                match (stretch, &stored.body) {
                    (Stretch::Text(text), _) => sink.body(text).await?,
                    // Both ends were checked against the length when the ranges were selected.
                    (Stretch::Of(range), Body::Inline(bytes)) => {
                        sink.body(bytes.slice(range.start as usize..range.end as usize)).await?;
                    }
                    (Stretch::Of(_), Body::Parts(_)) => {
                        for piece in parts.next().into_iter().flatten() {
                            let Some(bytes) = self.edge.store.bytes(stored, &piece).await else {
                                self.cut_off(sink, "body-broken").await;
                                return Ok(true);
                            };
                            sink.body(bytes).await?;
                        }
                    }
                }
            }
        }
        sink.end().await?;
        Ok(true)
    }

    /// Answers from a fill while it runs.
    pub async fn deliver_filling<S: ResponseSink>(&mut self, sink: &mut S, filling: Filling) -> Result<(), ClientGone> {
        let now = self.edge.clock.now();
        let meta = &filling.coming.meta;
        self.note_reused(meta, now, None);
        self.note_codings(meta.status, &meta.fields, filling.coming.complete_length());
        if self.deliver_precondition(sink, meta, now).await? {
            return Ok(());
        }
        let is_head = self.request.method == Method::HEAD;
        let length = match filling.coming.length {
            announced if is_head || without_body(meta.status) => Length::None { announced },
            Some(length) => Length::Known(length),
            None => Length::Unknown,
        };
        let mut fields = match filling.own {
            Some(own) => self.first_use(own, meta, now),
            None => self.reusing(meta, now),
        };
        let mut status = meta.status;
        if let Some(span) = &filling.coming.span {
            status = StatusCode::PARTIAL_CONTENT;
            let range = cache::content_range(&span.range(), span.length);
            fields.entry(CONTENT_RANGE).or_insert(range);
        }
        self.send_head(sink, OutgoingHead { status, fields, length, close: false }).await?;
        let mut reader = filling.reader;
        if matches!(length, Length::None { .. }) || self.deliver_body(sink, &mut reader).await? {
            sink.end().await?;
        }
        Ok(())
    }

    /// Answers with what an origin sent, to this client alone. The body is given back, read to its end if all went
    /// well.
    pub async fn deliver_origin<R: AsyncRead + Unpin + Send, S: ResponseSink>(
        &mut self,
        sink: &mut S,
        response: OriginResponse<R>,
    ) -> Result<Box<OriginBody<R>>, ClientGone> {
        let mut outgoing = response.fields;
        self.note_origin(&response.seen, &outgoing);
        self.note_codings(response.status, &outgoing, response.length);
        fields::strip_for_client(&mut outgoing);
        self.sign(&mut outgoing);
        let status = response.status;
        let length = if self.request.method == Method::HEAD || without_body(status) {
            Length::None { announced: response.length }
        } else {
            response.length.map_or(Length::Unknown, Length::Known)
        };
        self.send_head(sink, OutgoingHead { status, fields: outgoing, length, close: false }).await?;
        let mut body = response.body;
        if self.deliver_body(sink, &mut *body).await? {
            sink.end().await?;
        }
        Ok(body)
    }

    /// Sends a body while it comes; false when it broke off, and the client has been shown that.
    async fn deliver_body<S: ResponseSink>(
        &mut self,
        sink: &mut S,
        body: &mut impl ComingBody,
    ) -> Result<bool, ClientGone> {
        loop {
            let pieces = match body.ready() {
                Some(ready) => ready,
                None => {
                    sink.flush().await?;
                    body.next().await
                }
            };
            match pieces {
                Ok(pieces) if pieces.is_empty() => return Ok(true),
                Ok(pieces) => {
                    for piece in pieces {
                        sink.body(piece).await?;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "a body broke off");
                    self.cut_off(sink, "body-broken").await;
                    return Ok(false);
                }
            }
        }
    }

    /// Ends an answer whose head has been sent so that the client sees that it is not whole.
    pub async fn cut_off<S: ResponseSink>(&mut self, sink: &mut S, reason: &'static str) {
        tracing::warn!(reason, target = self.request.target.path_and_query(), "an answer was cut off");
        self.trace.error = Some(reason);
        // What came is the client's, also where the rest does not come; it may be gone.
        let _ = sink.flush().await;
        sink.abort();
    }

    /// Answers with an error of ours.
    pub async fn deliver_refusal<S: ResponseSink>(
        &mut self,
        sink: &mut S,
        refusal: &Refusal,
    ) -> Result<(), ClientGone> {
        self.trace.error = Some(refusal.reason());
        let synthetic = refuse(refusal, &self.request.fields, &self.request.id);
        let close = !refusal.keeps_connection();
        self.deliver_synthetic(sink, synthetic, close).await
    }

    /// Answers with something of ours.
    pub async fn deliver_synthetic<S: ResponseSink>(
        &mut self,
        sink: &mut S,
        synthetic: Synthetic,
        close: bool,
    ) -> Result<(), ClientGone> {
        let mut outgoing = synthetic.fields;
        if !outgoing.contains_key(http::header::DATE)
            && let Ok(date) = HeaderValue::from_str(&httpdate::fmt_http_date(self.edge.clock.now()))
        {
            outgoing.insert(http::header::DATE, date);
        }
        self.sign(&mut outgoing);
        let length = synthetic.body.len() as u64;
        let length = if self.request.method == Method::HEAD || without_body(synthetic.status) {
            Length::None { announced: (!without_body(synthetic.status)).then_some(length) }
        } else {
            Length::Known(length)
        };
        self.send_head(sink, OutgoingHead { status: synthetic.status, fields: outgoing, length, close }).await?;
        if matches!(length, Length::Known(_)) {
            sink.body(synthetic.body).await?;
        }
        sink.end().await
    }

    /// Evaluates the client's preconditions; true when they have been the answer (RFC 9110 13.2).
    pub async fn deliver_precondition<S: ResponseSink>(
        &mut self,
        sink: &mut S,
        meta: &Meta,
        now: SystemTime,
    ) -> Result<bool, ClientGone> {
        let view = RequestView { method: &self.request.method, fields: &self.request.fields };
        match cache::evaluate(&view, meta) {
            Precondition::Proceed => Ok(false),
            Precondition::NotModified => {
                let mut outgoing = cache::not_modified_fields(meta);
                fields::strip_for_client(&mut outgoing);
                self.tell_browsers(&mut outgoing, meta, now);
                outgoing.insert(AGE, HeaderValue::from(meta.age(now).as_secs()));
                if self.wanted_coding().is_some() {
                    // The client may have either: its own has this tag, or matches it (RFC 9111 4.3.4).
                    cache::weak_tag(&mut outgoing);
                }
                self.sign(&mut outgoing);
                let head = OutgoingHead {
                    status: StatusCode::NOT_MODIFIED,
                    fields: outgoing,
                    length: Length::None { announced: None },
                    close: false,
                };
                self.send_head(sink, head).await?;
                sink.end().await?;
                Ok(true)
            }
            Precondition::Failed => {
                self.deliver_refusal(sink, &Refusal::PreconditionFailed).await?;
                Ok(true)
            }
        }
    }

    /// The fields of an answer made from a stored head.
    pub fn reusing(&self, meta: &Meta, now: SystemTime) -> HeaderMap {
        let mut outgoing = meta.fields.clone();
        outgoing.insert(AGE, HeaderValue::from(meta.age(now).as_secs()));
        self.finish_fields(&mut outgoing, meta, now);
        outgoing
    }

    /// The fields of an answer that has just come for this client: it has an age only if it came from another cache,
    /// or slowly.
    pub fn first_use(&self, own: HeaderMap, meta: &Meta, now: SystemTime) -> HeaderMap {
        let mut outgoing = own;
        match meta.age(now).as_secs() {
            0 => outgoing.remove(AGE),
            seconds => outgoing.insert(AGE, HeaderValue::from(seconds)),
        };
        self.finish_fields(&mut outgoing, meta, now);
        outgoing
    }

    fn finish_fields(&self, outgoing: &mut HeaderMap, meta: &Meta, now: SystemTime) {
        fields::strip_for_client(outgoing);
        self.tell_browsers(outgoing, meta, now);
        if meta.status == StatusCode::OK && !outgoing.contains_key(ACCEPT_RANGES) {
            outgoing.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        }
        self.sign(outgoing);
    }

    /// [`note_head`](Self::note_head) of an answer made from a stored head, without making it: what is recorded is the stored
    /// response's, but for what the policy tells browsers.
    pub(super) fn note_reused_head(&mut self, meta: &Meta, now: SystemTime) {
        if self.edge.access.enabled() {
            self.note_head(&meta.fields);
            let mut answered = std::mem::take(&mut self.trace.answered);
            self.tell_browsers(&mut answered, meta, now);
            self.trace.answered = answered;
        }
    }

    /// `browser_ttl` of the policy.
    fn tell_browsers(&self, outgoing: &mut HeaderMap, meta: &Meta, now: SystemTime) {
        let policy = self.trace.route.as_ref().and_then(|route| route.cache.as_ref());
        if let Some(ttl) = policy.and_then(|policy| policy.browser_ttl) {
            cache::set_browser_ttl(outgoing, ttl, meta.age(now));
        }
    }

    /// `Vary` where there are coded copies; `Cache-Status`, `Via`, `X-Request-Id`.
    fn sign(&self, outgoing: &mut HeaderMap) {
        if self.trace.has_codings {
            cache::vary_on_encoding(outgoing);
        }
        if let Some(status) = self.trace.decision.cache_status_field(self.trace.ttl) {
            fields::append(outgoing, CACHE_STATUS, status);
        }
        fields::sign_answer(outgoing, &self.request.id);
    }

    pub async fn send_head<S: ResponseSink>(&mut self, sink: &mut S, mut head: OutgoingHead) -> Result<(), ClientGone> {
        head.close |= self.edge.is_draining();
        self.trace.status = head.status.as_u16();
        self.trace.first_byte = Some(self.request.started.elapsed());
        self.note_head(&head.fields);
        sink.head(&head).await
    }
}

/// Statuses whose responses never have a body (RFC 9110 6.4.1).
pub(super) fn without_body(status: StatusCode) -> bool {
    status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}

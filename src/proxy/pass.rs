//! What the cache has no part in: streamed both ways, with backpressure, for one client.

use std::{sync::Arc, time::Instant};

use bytes::BytesMut;
use http::{HeaderMap, Method, StatusCode};
use tokio::io::AsyncWrite;

use super::{
    downstream::{ClientGone, RequestBody, RequestBodyError, ResponseSink},
    exchange::Exchange,
    fetch::{self, Interim, OriginRequest, OriginResponse, Payload, Source, Tries, outgoing, read_head},
    purge,
    routing::Route,
    synth::Refusal,
};
use crate::{
    cache::{self, HeadOutcome, RequestView, ResponseView, Times},
    store::{Failure, Lookup},
    upstream::{Connection, Pool},
    wire::{
        self, BodyWriter, Framing,
        io::{Outgoing, Timer},
    },
};

/// Interim responses go straight to the client.
struct ToClient<'a, S>(&'a mut S);

impl<S: ResponseSink> Interim for ToClient<'_, S> {
    async fn relay(&mut self, status: StatusCode, fields: HeaderMap) {
        // A client that is gone is noticed at the final response.
        let _ = self.0.interim(status, &fields).await;
    }
}

/// How an upload ended.
enum Upload {
    /// All of it was taken by the origin.
    Sent,
    /// The client's body failed.
    Client(RequestBodyError),
    /// The origin takes no more; it may have answered already.
    Origin,
}

impl Exchange<'_> {
    /// Asks the origin for this client alone.
    pub async fn pass<B: RequestBody, S: ResponseSink>(
        &mut self,
        pool: &Arc<Pool>,
        request: OriginRequest,
        body: &mut B,
        sink: &mut S,
    ) -> Result<(), ClientGone> {
        if self.request.expect_continue && !body.is_empty() {
            sink.interim(StatusCode::CONTINUE, &HeaderMap::new()).await?;
        }
        let at_hand = body.is_empty() || body.length().is_some_and(|length| length <= request.retries().body_max);
        if at_hand {
            let payload = match gather(body).await {
                Ok(payload) => payload,
                Err(error) => return self.body_failed(sink, error).await,
            };
            match fetch::fetch(self.edge, pool, &request, &payload, &mut ToClient(sink)).await {
                Ok(response) => {
                    self.after_answer(&response, &request).await;
                    let rest = self.deliver_origin(sink, response).await?;
                    rest.release(self.edge);
                    Ok(())
                }
                Err((failure, seen)) => {
                    self.trace.seen = seen;
                    self.origin_failed(sink, failure).await
                }
            }
        } else {
            self.pass_streaming(pool, request, body, sink).await
        }
    }

    /// The body is large or of unknown length: it is sent while it comes, and the answer may come before its end.
    async fn pass_streaming<B: RequestBody, S: ResponseSink>(
        &mut self,
        pool: &Arc<Pool>,
        request: OriginRequest,
        body: &mut B,
        sink: &mut S,
    ) -> Result<(), ClientGone> {
        let mut tries = Tries::new(self.edge, pool, &request);
        let connected = tries.connect().await;
        let seen = tries.seen.clone();
        let (lease, stream) = match connected {
            Ok(connected) => connected,
            Err((failure, seen)) => {
                self.trace.seen = seen;
                return self.origin_failed(sink, failure).await;
            }
        };
        self.trace.seen = seen.clone();
        let started = Instant::now();
        let request_time = self.edge.clock.now();
        let (from, mut to) = tokio::io::split(stream);
        let mut from = Source { stream: from, timer: Timer::default(), buf: BytesMut::new() };
        let framing = body.length().map_or(Framing::Chunked, Framing::Length);
        let head = outgoing(&lease, &request, framing);
        let mut upload = Box::pin(upload(body, &mut to, head, framing, &request));
        let mut uploading = true;
        let head = loop {
            let within = (!uploading).then_some(request.timeouts.first_byte);
            let mut interim = ToClient(sink);
            let head = read_head(&mut from, &request, within, &mut interim);
            tokio::select! {
                biased;
                ended = &mut upload, if uploading => {
                    uploading = false;
                    if let Upload::Client(error) = ended {
                        lease.peer().count_failure("http_request_error");
                        return self.body_failed(sink, error).await;
                    }
                }
                head = head => break head,
            }
        };
        let head = match head {
            Ok(head) => head,
            Err(error) => {
                lease.peer().count_failure(error.failure().error);
                return self.origin_failed(sink, error.failure()).await;
            }
        };
        lease.peer().observe_first_byte(started.elapsed());
        lease.peer().count_status(head.status.as_u16());
        let times = Times { request_time, response_time: self.edge.clock.now() };
        let mut seen = seen;
        seen.status = Some(head.status.as_u16());
        let response = fetch::respond(head, times, from, lease, request.timeouts, started, seen);
        self.after_answer(&response, &request).await;
        let mut cut_short = false;
        let rest = {
            let mut answer = std::pin::pin!(self.deliver_origin(sink, response));
            loop {
                tokio::select! {
                    biased;
                    ended = &mut upload, if uploading => {
                        uploading = false;
                        cut_short |= !matches!(ended, Upload::Sent);
                    }
                    rest = &mut answer => break rest?,
                }
            }
        };
        drop(upload);
        if !uploading && !cut_short && rest.is_reusable() {
            let (_, from, lease) = rest.into_parts();
            if let Some(from) = from {
                let (stream, timer, buf) = (from.unsplit(to), Timer::default(), BytesMut::new());
                let connection = Connection { stream, timer, buf, reused: true };
                self.edge.connector.release(lease.peer(), connection, request.timeouts.keepalive);
            }
        }
        Ok(())
    }

    async fn body_failed<S: ResponseSink>(&mut self, sink: &mut S, error: RequestBodyError) -> Result<(), ClientGone> {
        if error == RequestBodyError::Gone {
            return Err(ClientGone);
        }
        self.deliver_refusal(sink, &Refusal::Body(error)).await
    }

    async fn origin_failed<S: ResponseSink>(&mut self, sink: &mut S, failure: Failure) -> Result<(), ClientGone> {
        self.deliver_refusal(sink, &Refusal::Origin(failure)).await
    }

    /// What the answer to a request past the cache means for what is stored.
    async fn after_answer<R>(&mut self, response: &OriginResponse<R>, request: &OriginRequest) {
        let Some(route) = self.trace.route.clone() else { return };
        if request.method == Method::HEAD {
            // What is asked aside of the cache says nothing of what is stored for all.
            if request.is_shared {
                self.freshen_by_head(&route, response).await;
            }
        } else if !cache::is_safe(&request.method) {
            self.invalidate(response.status, &response.fields).await;
        }
    }

    /// A HEAD's answer says whether what is stored is still it (RFC 9111 4.3.5).
    async fn freshen_by_head<R>(&self, route: &Route, response: &OriginResponse<R>) {
        let Some(policy) = &route.cache else { return };
        let key = self.key(policy);
        let narrowed = policy.for_path(self.request.target.path());
        let policy = narrowed.as_ref().unwrap_or(policy);
        let Lookup::Found(found) = self.edge.store.find(&key, &self.request.fields).await else { return };
        let request = RequestView { method: &self.request.method, fields: &self.request.fields };
        let head = ResponseView { status: response.status, fields: &response.fields, complete_length: response.length };
        let stored = &found.stored;
        let outcome =
            cache::freshen_by_head(&stored.meta, stored.body.length(), &request, &head, response.times, policy);
        match outcome {
            HeadOutcome::Unchanged => {}
            HeadOutcome::Freshened(meta) => {
                let variant = stored.variant.clone();
                self.edge.store.freshen(stored, stored.position, *meta, variant);
            }
            HeadOutcome::Outdated(_) => self.edge.store.remove(stored),
        }
    }

    /// An unsafe request that did not fail makes invalid what it may have changed (RFC 9111 4.4), and any one the groups that its
    /// answer names (RFC 9875 3).
    async fn invalidate(&self, status: StatusCode, fields: &HeaderMap) {
        let request = &self.request;
        let target = cache::Target {
            scheme: request.scheme.as_str().to_owned(),
            host: request.authority.host.to_string(),
            port: request.port(),
            path: request.target.path().to_owned(),
            query: request.target.query().map(str::to_owned),
        };
        let mut urls = Vec::new();
        for named in cache::invalidated(&request.method, status, &target, fields) {
            let path_and_query = match &named.query {
                Some(query) => format!("{}?{query}", named.path),
                None => named.path.clone(),
            };
            urls.extend(purge::normal_url(named.host, named.port, &path_and_query));
        }
        let groups = cache::invalidated_groups(&request.method, fields);
        let groups = groups.iter().map(|group| cache::group_text(&target.origin(), group));
        if self.edge.invalidate(urls, groups.collect()) {
            // Where that fails a later process trusts nothing that is stored now.
            let _ = self.edge.store.durable().await;
        }
    }
}

/// Takes a small body whole.
async fn gather<B: RequestBody>(body: &mut B) -> Result<Payload, RequestBodyError> {
    let mut payload = Payload { framing: body.length().filter(|_| !body.is_empty()), pieces: Vec::new() };
    if body.is_empty() {
        return Ok(payload);
    }
    while let Some(piece) = body.next().await? {
        payload.pieces.push(piece);
    }
    Ok(payload)
}

/// Sends head and body while the body comes.
async fn upload<B: RequestBody, W: AsyncWrite + Unpin>(
    body: &mut B,
    to: &mut W,
    mut out: Outgoing,
    framing: Framing,
    request: &OriginRequest,
) -> Upload {
    let mut writer = BodyWriter::new(framing);
    let within = request.timeouts.between_bytes;
    loop {
        if wire::io::write_all(to, &mut out, within).await.is_err() {
            return Upload::Origin;
        }
        let ended = match body.next().await {
            Ok(Some(piece)) => writer.data(piece, &mut out).map(|()| false),
            Ok(None) => writer.end(&mut out).map(|()| true),
            Err(error) => return Upload::Client(error),
        };
        match ended {
            Ok(false) => {}
            Ok(true) if wire::io::write_all(to, &mut out, within).await.is_ok() => return Upload::Sent,
            Ok(true) => return Upload::Origin,
            Err(_) => return Upload::Client(RequestBodyError::Malformed),
        }
    }
}

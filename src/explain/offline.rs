//! Without a node: nothing is stored, and the origin's answer, if there is one, is in a file.

use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use http::{HeaderMap, Method, StatusCode, header::RANGE};

use super::{
    Explanation, Next, Outcome, Scene,
    changes::{self, Facts},
    coding,
    fetching::{self, Fills, Unanswered},
    request::{Ask, AskError},
    reusing::{self, lifetime_key},
    rules,
    telling::{Telling, in_words},
    walk::{Cached, Walk},
};
use crate::{
    cache::{self, Arrival, Coding, LifetimeSource, Meta, Reason, RequestView, ResponseView, Standing, Times, Use},
    proxy::{
        decision::{Looked, Routed, Step},
        fetch::ORIGIN_HEAD,
        fields,
    },
    wire::{self, BadResponse, Framing},
};

/// What an origin would answer to the fetch: read as strictly as from a connection.
#[derive(Debug, Clone)]
pub struct Answer {
    status: StatusCode,
    fields: HeaderMap,
    arrival: Arrival,
    /// Bytes of the body, announced or counted.
    length: Option<u64>,
}

/// Why a file is no HTTP/1.1 response.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    #[error("this response would not be read: {0}")]
    Head(#[from] BadResponse),
    #[error("this response would not be read: its head does not end")]
    Incomplete,
}

impl Answer {
    /// Of the bytes of a response to GET. In the head, lines may end as an editor ends them.
    ///
    /// # Errors
    /// What a connection to an origin would fail with.
    pub fn parse(bytes: &[u8]) -> Result<Self, AnswerError> {
        let (head, body) = split(bytes);
        let head = wire::parse_response(&mut BytesMut::from(&head[..]), &ORIGIN_HEAD, &Method::GET)?;
        let head = head.ok_or(AnswerError::Incomplete)?;
        let counted = match head.framing {
            Framing::UntilClose => Some(body.len() as u64),
            _ => head.content_length,
        };
        let until_close = head.framing == Framing::UntilClose;
        Ok(Self {
            status: head.status,
            fields: head.fields,
            arrival: Arrival { length: head.content_length, until_close },
            length: counted,
        })
    }
}

/// The head with the line ends of HTTP, and what follows it.
fn split(bytes: &[u8]) -> (Vec<u8>, &[u8]) {
    let (mut head, mut rest) = (Vec::new(), bytes);
    loop {
        let (line, after) = match rest.iter().position(|byte| *byte == b'\n') {
            Some(at) => (&rest[..at], &rest[at + 1..]),
            None => (rest, &rest[rest.len()..]),
        };
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        head.extend_from_slice(line);
        head.extend_from_slice(b"\r\n");
        if line.is_empty() {
            return (head, after);
        }
        if after.is_empty() {
            head.extend_from_slice(b"\r\n");
            return (head, after);
        }
        rest = after;
    }
}

/// Explains a request that comes at `now` to an edge that has nothing stored, and the same request `after` that.
///
/// # Errors
/// When there is no such request.
pub fn offline(
    scene: Scene<'_>,
    ask: &Ask,
    answer: Option<&Answer>,
    now: SystemTime,
    after: Duration,
) -> Result<Explanation, AskError> {
    let mut walk = Walk::new(scene, ask)?;
    let cached = match walk.until_key(false) {
        Ok(cached) => cached,
        Err(outcome) => return Ok(walk.ended(outcome)),
    };
    let request = walk.taken.request.fields.clone();
    let method = walk.taken.request.method.clone();
    let query = walk.taken.request.target.query().map(str::to_owned);
    let nothing = HeaderMap::new();
    let Cached { route, policy, .. } = &cached;
    let facts = Facts::of_request(scene, &route.name, policy, &request, query.as_deref(), &nothing);
    let view = RequestView { method: &method, fields: &request };
    let unanswered = if cache::refreshes(policy, &request, query.as_deref()) {
        walk.telling.push(Step::Refresh);
        walk.telling.tell_reason(Reason::Refresh, "its fields and query", "not looked up", &facts);
        Unanswered::because(Standing::default(), Outcome::Fetched)
    } else {
        walk.telling.push(Step::Lookup(Looked::Miss));
        walk.telling.tell(rules::LOOKUP, "nothing is stored here", "miss", None);
        Unanswered::missed(Standing { uri_miss: true, ..Standing::default() })
    };
    let is_used_enough = || policy.min_uses <= 1;
    let outcome =
        fetching::fetch(&mut walk.telling, &cached, &view, &facts, unanswered, is_used_enough, Fills::default());
    if outcome != Outcome::Fetched {
        return Ok(walk.ended(outcome));
    }
    let Some(answer) = answer else { return Ok(walk.ended(Outcome::Fetched)) };

    let mut fields = answer.fields.clone();
    fields::from_origin(&mut fields, now);
    let times = Times { request_time: now, response_time: now };
    let response = ResponseView { status: answer.status, fields: &fields, complete_length: answer.arrival.length };
    let of_path = policy.for_path(walk.taken.request.target.path());
    let policy = of_path.as_ref().unwrap_or(policy);
    let asked = RequestView { method: &Method::GET, fields: &request };
    // A part is stored where a part was asked for.
    let asks_for_part = request.contains_key(RANGE) || policy.slice.is_some();
    let is_part = answer.status == StatusCode::PARTIAL_CONTENT && asks_for_part;
    let object_max = policy.body_max(scene.object_max, is_part);
    let head = match is_part {
        true => cache::store_part(&asked, &response, times, policy).map(|(meta, _)| meta),
        false => cache::store(&asked, &response, times, policy),
    };
    let mut sent = HeaderMap::clone(&request);
    cache::limit_cookies(&mut sent, policy);
    let stored =
        head.and_then(|meta| cache::shareable(&meta, &sent, policy, answer.arrival, object_max).map(|()| meta));
    let facts = Facts { status: answer.status, response: &fields, length: answer.length, ..facts };
    let input = described(answer, &fields);
    match stored {
        Err(reason) => {
            let age = cache::corrected_initial_age(&fields, times);
            let facts = Facts { age, ..facts };
            walk.telling.push(Step::Store(Err(reason)));
            walk.telling.tell_reason(reason, input, "not stored", &facts);
            Ok(walk.ended(Outcome::NotStored))
        }
        Ok(meta) => {
            walk.telling.push(Step::Store(Ok(meta.lifetime().source)));
            let told = lifetime_in_words(&meta);
            let place = lifetime_key(meta.lifetime().source).and_then(|key| walk.telling.place(&route.name, key));
            walk.telling.tell(rules::LIFETIME, input, told, place);
            let next = again(&walk, &cached, &meta, facts, now + after, after);
            let mut explanation = walk.ended(Outcome::Stored);
            explanation.next = Some(next);
            Ok(explanation)
        }
    }
}

fn described(answer: &Answer, fields: &HeaderMap) -> String {
    let mut text = answer.status.as_u16().to_string();
    for name in ["cdn-cache-control", "cache-control", "expires", "age", "vary", "etag", "last-modified"] {
        for value in fields.get_all(name) {
            text.push_str(&format!("; {name}: {}", String::from_utf8_lossy(value.as_bytes())));
        }
    }
    if fields.contains_key("set-cookie") {
        text.push_str("; set-cookie");
    }
    text
}

fn lifetime_in_words(meta: &Meta) -> String {
    let lifetime = meta.lifetime();
    match lifetime.source {
        LifetimeSource::None => "stored, to be validated each time".to_owned(),
        source => format!("stored, lifetime {} by {source}", in_words(lifetime.duration)),
    }
}

/// The same request once more.
fn again(walk: &Walk<'_>, cached: &Cached, meta: &Meta, facts: Facts<'_>, now: SystemTime, after: Duration) -> Next {
    let mut telling = Telling::new(walk.telling.scene);
    telling.push(Step::Route(Routed::Cached));
    let request = &walk.taken.request;
    let view = RequestView { method: &request.method, fields: &request.fields };
    let length = facts.length;
    let (answers, facts) = if cache::refreshes(&cached.policy, view.fields, facts.query) {
        telling.push(Step::Refresh);
        telling.tell_reason(Reason::Refresh, "its fields and query", "not looked up", &facts);
        (Err(Unanswered::because(Standing::default(), Outcome::Fetched)), facts)
    } else {
        let facts = changes::facts_of(facts, meta, now, None);
        let used = reusing::reuse(&mut telling, cached, &view, meta, &facts, (now, None, true));
        if matches!(used, Use::Reuse(_)) {
            let copy = |coding: Coding| format!("a copy in {}, once it is made", coding.name());
            coding::copy(&mut telling, cached, meta, length, copy);
        }
        (reusing::answers(used), facts)
    };
    let outcome = answers.unwrap_or_else(|unanswered| {
        // It has been stored: it was asked for often enough.
        fetching::fetch(&mut telling, cached, &view, &facts, unanswered, || true, Fills::default())
    });
    Next {
        after: after.as_secs_f64(),
        verdict: telling.verdict(outcome),
        cache_status: telling.cache_status(Some(meta.ttl(now))),
        result: telling.result(),
        steps: telling.steps,
    }
}

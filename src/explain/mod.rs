//! Why the edge does with a request what it does, in words, with the line of the configuration and what would change it.
//!
//! Nothing is decided here. A [`Scene`] (a configuration made ready) and a request go through the very functions that
//! an exchange asks ([`crate::cache`], [`crate::proxy`]); each answer is pushed into a
//! [`Decision`](crate::proxy::decision::Decision) as the exchange does it, and told with rule, source, place and
//! advice. [`offline()`] plays an exchange against nothing stored and a response in a file, [`live()`] against the store
//! as it is: `walk` to the key, `reusing` what is stored, `fetching` where that does not answer, `coding` beside them. `rules`
//! has the name and source of every rule, `changes` what would change a refusal, `text` prints.

mod changes;
mod coding;
mod fetching;
mod live;
mod offline;
mod request;
mod reusing;
mod rules;
mod telling;
mod text;
mod walk;

pub use changes::{Change, Party};
pub use live::{Node, live};
pub use offline::{Answer, AnswerError, offline};
pub use request::{Ask, AskError};

use serde::Serialize;

use crate::{
    config::{Config, Spot},
    proxy::route::Router,
};

/// A configuration made ready for questions.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    pub config: &'a Config,
    pub router: &'a Router,
    /// Names the configuration.
    pub hash: &'a str,
    /// Bytes of the largest body that some tier keeps.
    pub object_max: u64,
    /// Of the keys' hashes: each node has its own. `None`: no node is asked.
    pub seed: Option<u64>,
}

/// Everything there is to say about one request.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// What comes of it, in a word, and the rule that decided.
    #[serde(flatten)]
    pub verdict: Verdict,
    pub request: RequestTold,
    /// The hash of the configuration.
    pub config: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteTold>,
    /// Routes before it that did not match; the last of many.
    pub passed_over: Vec<PassedOver>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyTold>,
    /// Every decision, in order.
    pub steps: Vec<Told>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_status: Option<String>,
    /// As `result` in metrics, `cache_status` in the record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<&'static str>,
    /// Offline, where the answer is stored: what the same request would get then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<Next>,
    /// Live: what is stored under the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<live::StoreTold>,
}

/// What comes of a request.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    pub outcome: Outcome,
    /// The rule that decided it; one of the steps'.
    pub cause: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Spot>,
}

/// The words of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Outcome {
    /// The edge answers with an error.
    Refused,
    /// The route answers by itself.
    AnsweredHere,
    /// The connection becomes a socket.
    Socket,
    /// The route has no cache policy.
    Passed,
    /// The cache has no part in this request, or its answer is for this client alone.
    Bypassed,
    /// Answered from the store, fresh.
    Hit,
    /// Answered from the store, stale.
    Stale,
    /// Stored, but the origin is asked first.
    Validated,
    /// Stored in part: the origin is asked for what is missing.
    Completed,
    /// Nothing stored can be used: the origin is asked. Offline without a response this is all there is to say.
    Fetched,
    Stored,
    NotStored,
}

/// The request in the form in which it is decided about.
#[derive(Debug, Clone, Serialize)]
pub struct RequestTold {
    pub method: String,
    /// Normalised.
    pub url: String,
    pub listener: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct RouteTold {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Spot>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
}

/// A route that did not match.
#[derive(Debug, Clone, Serialize)]
pub struct PassedOver {
    pub route: String,
    /// The first key of its `match` that the request does not meet.
    pub key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Spot>,
}

#[derive(Debug, Clone, Serialize)]
pub struct KeyTold {
    pub text: String,
    /// As `key_hash` in the record of this node, where it is one that explains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// What is left of the query, where the key drops a part of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keyed_query: Option<String>,
}

/// One decision in words.
#[derive(Debug, Clone, Serialize)]
pub struct Told {
    /// A stable name.
    pub rule: &'static str,
    /// The section of an RFC; where the rule is the edge's own, a key in the reference of the configuration, or a word in the glossary.
    pub source: &'static str,
    /// What it looked at.
    pub input: String,
    pub outcome: String,
    /// The key of the configuration that governs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Spot>,
    /// What would change it: each by itself, unless something else is in the way then.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
}

/// The same request, later.
#[derive(Debug, Clone, Serialize)]
pub struct Next {
    /// Seconds after the first.
    pub after: f64,
    #[serde(flatten)]
    pub verdict: Verdict,
    pub steps: Vec<Told>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<&'static str>,
}

impl Explanation {
    /// The outcome in words: `stored, then hit`.
    pub fn summary(&self) -> String {
        let first: &str = self.verdict.outcome.into();
        match &self.next {
            Some(next) => format!("{first}, then {}", <&str>::from(next.verdict.outcome)),
            None => first.to_owned(),
        }
    }

    /// The verdict that an operator asks about, and the step that it comes from: of the next request where the first one's
    /// answer is stored.
    pub fn deciding(&self) -> (&Verdict, Option<&Told>) {
        let (verdict, steps) = match &self.next {
            Some(next) => (&next.verdict, &next.steps),
            None => (&self.verdict, &self.steps),
        };
        (verdict, steps.iter().rfind(|told| told.rule == verdict.cause))
    }
}

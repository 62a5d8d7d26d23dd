//! What a stored response is to a request, told: of the response in a file, and of those in the store.

use std::time::SystemTime;

use super::{
    Outcome,
    changes::{self, Facts},
    fetching::Unanswered,
    rules,
    telling::{Telling, in_words},
    walk::Cached,
};
use crate::{
    cache::{self, LifetimeSource, Meta, RequestView, Reuse, Standing, Use},
    proxy::decision::{Looked, Step},
};

/// Asks the law as a lookup does that has found something, and tells what it says.
pub(super) fn reuse(
    telling: &mut Telling<'_>,
    cached: &Cached,
    view: &RequestView<'_>,
    meta: &Meta,
    facts: &Facts<'_>,
    (now, soft_purged, trusted): (SystemTime, Option<SystemTime>, bool),
) -> Use {
    let Cached { route, policy, directives, .. } = cached;
    let age = format!("age {}, lifetime {}", in_words(meta.age(now)), in_words(meta.lifetime().duration));
    let used = cache::usable(meta, view, directives, policy, now, (soft_purged, trusted));
    if used == Use::Outlived {
        telling.push(Step::Lookup(Looked::Outlived));
        let place = telling.place(&route.name, "keep");
        telling.tell(rules::KEEP, age, "past its lifetime, its stale windows and keep: forgotten", place);
        if let Some(told) = telling.steps.last_mut() {
            told.changes = changes::outlived(facts);
        }
        return used;
    }
    let looked = if soft_purged.is_some() { Looked::SoftPurged } else { Looked::Found };
    telling.push(Step::Lookup(looked));
    telling.tell(rules::LOOKUP, "the same key and variant", "found", None);
    let Use::Reuse(reuse) = used else {
        telling.push(Step::Precondition);
        telling.tell(
            rules::PRECONDITION,
            "If-Match or If-Unmodified-Since",
            "cannot be answered here: the origin is asked",
            None,
        );
        return used;
    };
    telling.push(Step::Reuse(reuse));
    match reuse {
        Reuse::Fresh => {
            let place = lifetime_key(meta.lifetime().source).and_then(|key| telling.place(&route.name, key));
            telling.tell(rules::FRESH, age, format!("it answers, ttl {}s", meta.ttl(now)), place);
        }
        Reuse::StaleAllowed => {
            let place = telling.place(&route.name, "client_directives");
            telling.tell(rules::STALE_TAKEN, age, "it answers stale: the client takes it", place);
        }
        Reuse::StaleWhileRevalidate => {
            let place = telling.place(&route.name, "stale_while_revalidate");
            telling.tell(rules::STALE_WHILE_REVALIDATE, age, "it answers stale, and is validated behind", place);
        }
        Reuse::Validate(reason) | Reuse::Unusable(reason) => {
            let answers = trusted && cache::may_answer_error(meta, directives, policy, now, soft_purged);
            let told = if answers { "it answers if the origin fails" } else { "it does not answer, whatever fails" };
            let place = telling.place(&route.name, "stale_if_error");
            telling.tell(rules::STALE_IF_ERROR, &*age, told, place);
            if trusted {
                let told = if meta.has_validator() { "validated first" } else { "fetched anew, it has no validator" };
                telling.tell_reason(reason, age, told, facts);
            } else {
                let place = facts.scene.config.places.key("fleet.when_cut_off");
                let told = "the origin is asked first: this node may not have heard of a purge";
                telling.tell(rules::of(reason), age, told, Some(place));
                if let Some(told) = telling.steps.last_mut() {
                    told.changes = changes::unheard(facts);
                }
            }
        }
    }
    used
}

/// What comes of it, as far as the store says; else how the lookup has ended.
pub(super) fn answers(used: Use) -> Result<Outcome, Unanswered> {
    let standing = Standing::default();
    match used {
        Use::Outlived => Err(Unanswered::because(Standing { uri_miss: true, ..standing }, Outcome::Fetched)),
        Use::PreconditionFailed => {
            Err(Unanswered::because(Standing { precondition_failed: true, ..standing }, Outcome::Fetched))
        }
        Use::Reuse(Reuse::Fresh) => Ok(Outcome::Hit),
        Use::Reuse(Reuse::StaleAllowed | Reuse::StaleWhileRevalidate) => Ok(Outcome::Stale),
        Use::Reuse(Reuse::Validate(_)) => {
            Err(Unanswered::because(Standing { held: true, ..standing }, Outcome::Validated))
        }
        Use::Reuse(Reuse::Unusable(_)) => Err(Unanswered::because(standing, Outcome::Fetched)),
    }
}

/// The key of a policy that a lifetime comes from.
pub(super) fn lifetime_key(source: LifetimeSource) -> Option<&'static str> {
    match source {
        LifetimeSource::TtlRule => Some("ttl"),
        LifetimeSource::ForceTtl => Some("force_ttl"),
        LifetimeSource::StatusTtl => Some("status_ttl"),
        LifetimeSource::DefaultTtl | LifetimeSource::Heuristic => Some("default_ttl"),
        LifetimeSource::SMaxage | LifetimeSource::MaxAge | LifetimeSource::Expires | LifetimeSource::None => None,
    }
}

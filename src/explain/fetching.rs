//! Where nothing that is stored answers: refused, fetched for this client alone, or for everybody. Of a node as it is, and of an
//! edge that has nothing.

use super::{Outcome, changes::Facts, rules, telling::Telling, walk::Cached};
use crate::{
    cache::{self, Reason, RequestView, Standing},
    proxy::{
        asking,
        decision::{Fetch, Step},
    },
};

/// How the lookup has ended.
pub(super) struct Unanswered {
    pub(super) standing: Standing,
    /// What comes of it where the origin is asked for everybody.
    pub(super) outcome: Outcome,
    /// Is there a reason for that which has been told?
    pub(super) has_cause: bool,
}

impl Unanswered {
    /// Nothing is stored that could be looked at.
    pub(super) fn missed(standing: Standing) -> Self {
        Self { standing, outcome: Outcome::Fetched, has_cause: false }
    }

    /// For a reason that has been told.
    pub(super) fn because(standing: Standing, outcome: Outcome) -> Self {
        Self { standing, outcome, has_cause: true }
    }
}

/// What a node knows of the fetch that would bring the answer. The default: nothing.
#[derive(Clone, Copy, Default)]
pub(super) struct Fills {
    pub(super) runs: bool,
    pub(super) uncollapsible: bool,
    /// Purges may be unheard of.
    pub(super) untrusted: bool,
}

/// Asks what an exchange asks that has found no answer, and tells what is said.
pub(super) fn fetch(
    telling: &mut Telling<'_>,
    cached: &Cached,
    view: &RequestView<'_>,
    facts: &Facts<'_>,
    unanswered: Unanswered,
    is_used_enough: impl FnOnce() -> bool,
    fills: Fills,
) -> Outcome {
    let Cached { route, policy, directives, .. } = cached;
    let Unanswered { standing, outcome, has_cause } = unanswered;
    if cache::only_if_cached(directives, policy) {
        telling.push(Step::OnlyIfCached);
        let told = "504: nothing that is stored answers";
        telling.tell_reason(Reason::OnlyIfCached, "Cache-Control: only-if-cached", told, facts);
        return Outcome::Refused;
    }
    if let Some(reason) = cache::alone(view, directives, standing, is_used_enough) {
        telling.push(Step::Alone(reason));
        let input = format!("{} and its fields", view.method);
        telling.tell_reason(reason, input, "for this client alone, nothing stored", facts);
        return Outcome::Bypassed;
    }
    let own = asking::wants_its_own(&telling.decision, view.fields, !fills.untrusted);
    let waits = fills.runs && !fills.uncollapsible && !own;
    telling.push(Step::Fetch(if waits { Fetch::Waiter } else { Fetch::Writer }));
    let input = if fills.runs { "a fetch is under way" } else { "no fetch is under way" };
    let told = match (waits, own, fills.uncollapsible) {
        (true, ..) => "waits for it",
        (_, true, _) => "asks the origin by itself: no fetch will do that began before",
        (.., true) => "asks the origin by itself: the last answer was not for sharing",
        _ => "asks the origin, for all who want the same meanwhile",
    };
    let place = telling.place(&route.name, "collapse.wait");
    match has_cause {
        true => telling.tell_besides(rules::FETCH, input, told, place),
        false => telling.tell(rules::FETCH, input, told, place),
    }
    outcome
}

//! Decisions as they are told: pushed for the record, and said in words.

use std::time::Duration;

use super::{
    Outcome, Scene, Told, Verdict,
    changes::{self, Facts},
    rules::{self, Rule},
};
use crate::{
    cache::Reason,
    config::Spot,
    proxy::decision::{Decision, Step},
};

/// The steps of one request, told as they are made.
pub(super) struct Telling<'a> {
    pub(super) scene: Scene<'a>,
    pub(super) steps: Vec<Told>,
    pub(super) decision: Decision,
    /// The step that the verdict comes from.
    cause: usize,
}

impl<'a> Telling<'a> {
    pub(super) fn new(scene: Scene<'a>) -> Self {
        Self { scene, steps: Vec::new(), decision: Decision::default(), cause: 0 }
    }

    pub(super) fn push(&mut self, step: Step) {
        self.decision.push(step);
    }

    /// Tells one decision; the verdict comes from it until another one is told.
    pub(super) fn tell(
        &mut self,
        rule: Rule,
        input: impl Into<String>,
        outcome: impl Into<String>,
        place: Option<Spot>,
    ) {
        self.tell_besides(rule, input, outcome, place);
        self.cause = self.steps.len() - 1;
    }

    /// Tells what the verdict does not come from.
    pub(super) fn tell_besides(
        &mut self,
        rule: Rule,
        input: impl Into<String>,
        outcome: impl Into<String>,
        place: Option<Spot>,
    ) {
        let Rule { name, source } = rule;
        let (input, outcome) = (input.into(), outcome.into());
        self.steps.push(Told { rule: name, source, input, outcome, place, changes: Vec::new() });
    }

    /// Tells a refusal to store or to reuse, with its place and what would change it.
    pub(super) fn tell_reason(
        &mut self,
        reason: Reason,
        input: impl Into<String>,
        outcome: impl Into<String>,
        facts: &Facts<'_>,
    ) {
        self.tell(rules::of(reason), input, outcome, place_of(reason, facts));
        if let Some(told) = self.steps.last_mut() {
            told.changes = changes::of(reason, facts);
        }
    }

    /// A key of the policy that a route has.
    pub(super) fn place(&self, route: &str, policy_key: &str) -> Option<Spot> {
        self.scene.config.places.of_policy(route, policy_key)
    }

    pub(super) fn verdict(&self, outcome: Outcome) -> Verdict {
        let cause = self.steps.get(self.cause);
        Verdict { outcome, cause: cause.map_or("", |told| told.rule), place: cause.and_then(|told| told.place.clone()) }
    }

    pub(super) fn cache_status(&self, ttl: Option<i64>) -> Option<String> {
        self.decision.cache_status(ttl).map(|status| status.to_string())
    }

    pub(super) fn result(&self) -> Option<&'static str> {
        self.decision.result().map(|result| result.as_str())
    }
}

/// The key of the configuration that governs a reason.
fn place_of(reason: Reason, facts: &Facts<'_>) -> Option<Spot> {
    let places = &facts.scene.config.places;
    match rules::policy_key(reason) {
        None => places.of_route(facts.route, "cache"),
        Some("object_max") if !facts.is_longer_than_policy() => {
            Some(places.key(facts.scene.config.store.object_max_key()))
        }
        Some(key) => places.of_policy(facts.route, key),
    }
}

/// A duration as people read it: whole seconds where it has no part of one.
pub(super) fn in_words(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{:.3}s", duration.as_secs_f64())
    }
}

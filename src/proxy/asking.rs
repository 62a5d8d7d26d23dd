//! What is missing here for a request, and what the origin is asked then: of an exchange, and of whoever explains one.

use std::{ops::Range, sync::Arc, time::Instant};

use http::{
    HeaderMap, Method,
    header::{IF_RANGE, RANGE},
};
use xxhash_rust::xxh3::xxh3_128;

use super::{
    decision::Decision,
    refill::{Ask, Condition, PartOf},
};
use crate::{
    cache::{self, Compress, Key, Negotiated, Policy, Precondition, RequestView, VariantKey, Vary},
    store::{Body, Store, Stored},
};

/// A request as the store's contents are looked at for it.
#[derive(Clone, Copy)]
pub struct Asking<'a> {
    pub store: &'a Store,
    pub request: RequestView<'a>,
    /// In which coding it is answered from the store.
    pub negotiated: Negotiated,
    /// What the policy says of codings.
    pub compress: Option<&'a Compress>,
}

/// What is wanted of the origin.
#[derive(Clone, Copy)]
pub struct Sought<'a> {
    pub policy: &'a Policy,
    pub key: &'a Key,
    /// Other variants are stored, or are coming, and differ by this.
    pub vary: Option<&'a Vary>,
    /// Stored, but not all that is asked for.
    pub holding: Option<&'a Stored>,
    /// Asking for parts has been no success.
    pub whole_only: bool,
}

impl Asking<'_> {
    /// Which of the bytes that this request gets are not here.
    pub fn missing(&self, stored: &Stored) -> Option<Range<u64>> {
        if matches!(stored.body, Body::Inline(_)) || self.request.method == Method::HEAD {
            return None;
        }
        if cache::evaluate(&self.request, &stored.meta) == Precondition::NotModified {
            return None;
        }
        // Whatever is missing of what it is a copy of.
        if self.copy(stored).is_some() {
            return None;
        }
        let length = stored.body.length();
        let ranges = cache::select(&self.request, &stored.meta, length).ranges(length);
        ranges.into_iter().find_map(|range| self.store.hole(stored, range))
    }

    /// May there be coded copies of `stored`?
    pub fn has_codings(&self, stored: &Stored) -> bool {
        self.compress.is_some_and(|compress| {
            compress.wants(&stored.meta.fields, Some(stored.body.length())) && stored.may_be_coded()
        })
    }

    /// The coded copy that this request gets instead of `stored`, where it is here.
    pub fn copy(&self, stored: &Stored) -> Option<Arc<Stored>> {
        let Negotiated::Coding(coding) = self.negotiated else { return None };
        if self.has_codings(stored) { self.store.coded(stored, coding) } else { None }
    }

    /// What to ask the origin for: what is missing, the client's range, the first slice of what may be large, or all.
    pub fn ask_for(&self, sought: &Sought<'_>) -> Ask {
        let fields = self.request.fields;
        // A range under `If-Range` is one of two answers; what is asked for is the one for everybody.
        let is_plain = self.request.method == Method::GET && !fields.contains_key(IF_RANGE);
        let range = fields.get(RANGE).filter(|_| is_plain).cloned();
        if let Some(stored) = sought.holding
            && let Some(missing) = self.missing(stored)
        {
            let meta = stored.meta.clone();
            let length = stored.body.length();
            let is_strong = cache::has_strong_validator(&meta);
            let part_of = |condition| PartOf { meta, length, condition };
            match sought.policy.slice {
                Some(slice) if is_strong => {
                    let start = missing.start / slice * slice;
                    return Ask::missing(start..length.min(start + slice), part_of(Condition::Match));
                }
                None if is_strong => return Ask::missing(missing, part_of(Condition::Range)),
                _ if range.is_none() && missing.end == length => {
                    return Ask::missing(missing, part_of(Condition::None));
                }
                _ => {}
            }
        }
        let slice = sought.policy.slice.filter(|_| is_plain && !sought.whole_only);
        let first = range.as_ref().map_or(Some(0), cache::first_position);
        if let (Some(slice), Some(first)) = (slice, first) {
            let aligned = cache::slices(&(first..first.saturating_add(1)), slice, None);
            let ask = Ask { range: Some(cache::range_field(&aligned, None)), part_of: None, is_the_clients: false };
            let id = sought.fill_id(&ask, fields);
            // Where a slice was lately no success, the next one would be none either.
            if !self.store.is_uncollapsible(id, Instant::now()) {
                return ask;
            }
        }
        Ask { is_the_clients: range.is_some(), range, part_of: None }
    }
}

impl Sought<'_> {
    /// Which fill brings what is asked for. Fills are shared per key and range, and per variant as soon as it is known that
    /// there are any: before, a variant that does not fit its waiter is found out at the head.
    pub fn fill_id(&self, ask: &Ask, request: &HeaderMap) -> u128 {
        let variant = match self.vary {
            Some(vary) if *vary != Vary::None => xxh3_128(VariantKey::of(vary, request).as_bytes()),
            _ => 0,
        };
        self.key.hash() ^ variant ^ ask.range.as_ref().map_or(0, |range| xxh3_128(range.as_bytes()))
    }
}

/// Must this request not be answered by a fetch that began before it? Where purges may be unheard of (`trusted`), one may
/// have come between.
pub fn wants_its_own(decision: &Decision, request: &HeaderMap, trusted: bool) -> bool {
    decision.by_request() || request.contains_key(IF_RANGE) || !trusted
}

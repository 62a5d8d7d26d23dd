//! The law: what a shared cache may keep and what it may answer with. Pure: no I/O, no clock.
//!
//! # The way of a response
//!
//! A request has a [`Key`]; below it, `Vary` picks the variant ([`VariantKey`]). What the origin answers is either
//! storable ([`store`] gives a [`Meta`], everything the law ever needs of it, derived once) or not (a [`Reason`]).
//! On a later request [`reuse()`] says whether the stored response answers it, and [`may_answer_error`] whether it may
//! stand in for an origin that failed. A stale one is validated with [`conditional_fields`]; a 304 then [`freshen`]s
//! it, a HEAD may ([`freshen_by_head`]). What the client receives of it is decided by [`evaluate`] (304 or not) and
//! [`select`] (ranges), in which content coding by [`Compress`], and it is described by [`CacheStatus`]. An unsafe method leaves some targets [`invalidated`].
//!
//! # Sources
//!
//! RFC 9111 (caching), 9110 (semantics: conditionals, ranges, codings, `Vary`), 5861 (stale), 9213 (`CDN-Cache-Control`),
//! 9211 (`Cache-Status`), 6585 (statuses that are never stored), 9875 (cache groups). Where a rule is ours, its comment says so.
//!
//! # Invariants
//!
//! - Nothing here reads a clock: time is an argument.
//! - Where the origin's words are invalid, the response is the more stale for it, never the less (RFC 9111 4.2.1).
//! - [`reuse()`] on a hit does not allocate.

mod browser;
mod coding;
mod conditional;
mod date;
mod directives;
mod encoded;
mod freshness;
mod groups;
mod invalidate;
mod key;
mod language;
mod meta;
mod pattern;
mod policy;
mod quality;
mod questions;
mod range;
mod reason;
mod reuse;
mod status;
mod storable;
mod surrogate;
mod validation;
mod vary;

pub use browser::{BROWSER_PREFIX, browser_max_age, set_browser_ttl};
pub use coding::{
    CODED_MAX, CODED_STATUSES, Coding, Compress, Negotiated, Uncoded, coded, is_never_coded, may_be_coded,
    vary_on_encoding, weak_tag,
};
pub use conditional::{Precondition, evaluate, not_modified_fields};
pub use directives::{MaxStale, RequestDirectives, ResponseDirectives, Scope};
pub use freshness::{Lifetime, LifetimeSource, Times, corrected_initial_age};
pub use groups::{GROUP_BYTES_MAX, GROUPS_MAX, group_text, invalidated_groups};
pub use invalidate::{Target, invalidated, is_safe};
pub use key::{
    Carried, Key, bypass, cookie_names, forwarded_cookies, forwarded_query, keyed_query, parameter_names, refreshes,
    url_hash,
};
pub use language::preferred;
pub use meta::{Meta, StaleWindow};
pub use pattern::{Glob, PathRule};
pub use policy::{
    Carries, ClientDirectives, Collapse, CollapseExpired, IgnoreOrigin, Policy, QueryRule, SetCookie, StatusTtl,
    TtlRule,
};
pub use questions::{
    Arrival, Standing, Use, alone, aside, directives, limit_cookies, normalise_encoding, normalise_language, shareable,
    usable,
};
pub use range::{
    RANGES_MAX, Selection, Span, content_range, first_position, multipart_content_type, multipart_end,
    multipart_length, part_head, range_field, select, slices, unsatisfied_range,
};
pub use reason::Reason;
pub use reuse::{Reuse, may_answer_error, only_if_cached, reuse};
pub use status::{CacheStatus, Fwd};
pub use storable::{RequestView, ResponseView, set_cookie_names, store, store_part};
pub use surrogate::{SURROGATE_KEY_BYTES_MAX, SURROGATE_KEYS_BYTES_MAX, SURROGATE_KEYS_MAX, SurrogateKey};
pub use validation::{
    HeadOutcome, combine, conditional_fields, freshen, freshen_by_head, has_strong_validator, same_entity,
    strong_validator,
};
pub use vary::{VariantKey, Vary};

//! The rules: a stable name for each, and where it is written: in an RFC, or in a document of this repository.

use crate::cache::Reason;

/// A rule by its name in kebab-case and its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) name: &'static str,
    pub(super) source: &'static str,
}

const fn rule(name: &'static str, source: &'static str) -> Rule {
    Rule { name, source }
}

pub(super) const RECEIVE: Rule = rule("receive", "RFC 9112 section 3, ARCHITECTURE.md: The way of a request");
pub(super) const CUT_OFF: Rule = rule("cut-off", "docs/configuration.md: fleet.when_cut_off");
pub(super) const PURGE: Rule = rule("purge", "docs/glossary.md: purge, docs/configuration.md: admin.tokens");
pub(super) const HTTPS: Rule = rule("redirect-to-https", "docs/configuration.md: server.listeners[].redirect_to_https");
pub(super) const ROUTE: Rule = rule("route", "docs/configuration.md: routes[]");
pub(super) const NO_ROUTE: Rule = rule("no-route", "docs/configuration.md: routes[]");
pub(super) const ANSWER: Rule = rule("answer-of-the-route", "docs/configuration.md: sites[].routes[]");
pub(super) const STICKY: Rule = rule("sticky", "docs/configuration.md: sites[].routes[].sticky");
pub(super) const WEBSOCKET: Rule = rule("websocket", "RFC 6455 section 4");
pub(super) const BODY: Rule = rule("body-limit", "RFC 9110 15.5.14");
pub(super) const NO_POLICY: Rule = rule("no-policy", "docs/configuration.md: sites[].routes[].cache");
pub(super) const TAKES_PART: Rule = rule("takes-part", "RFC 9111 section 4, docs/configuration.md: cache.NAME.bypass");
pub(super) const KEY: Rule = rule("key", "RFC 9111 section 2, docs/configuration.md: cache.NAME.key");
pub(super) const COMPRESS: Rule =
    rule("compress", "RFC 9110 8.4 and 12.5.3, docs/configuration.md: cache.NAME.compress");
pub(super) const LOOKUP: Rule = rule("lookup", "RFC 9111 section 4 and 4.1");
pub(super) const KEEP: Rule = rule("keep", "docs/configuration.md: cache.NAME.keep");
pub(super) const FRESH: Rule = rule("fresh", "RFC 9111 4.2");
pub(super) const STALE_TAKEN: Rule = rule("max-stale", "RFC 9111 5.2.1.2");
pub(super) const STALE_WHILE_REVALIDATE: Rule = rule("stale-while-revalidate", "RFC 5861 section 3");
pub(super) const STALE_IF_ERROR: Rule = rule("stale-if-error", "RFC 5861 section 4");
pub(super) const PRECONDITION: Rule = rule("precondition", "RFC 9111 4.3.2");
pub(super) const MISSING: Rule = rule("missing", "RFC 9111 3.3 and 3.4");
pub(super) const FETCH: Rule = rule("fetch", "docs/configuration.md: cache.NAME.collapse");
pub(super) const LIFETIME: Rule = rule("lifetime", "RFC 9111 section 3 and 4.2.1, docs/configuration.md: cache.NAME");

/// The rule behind a reason: its name is the reason's word in `Cache-Status`, the record and the metrics.
pub(super) fn of(reason: Reason) -> Rule {
    let source = match reason {
        Reason::Method => "RFC 9111 section 3 and 4",
        Reason::BypassCookie | Reason::BypassHeader | Reason::BypassQuery => "docs/configuration.md: cache.NAME.bypass",
        Reason::Refresh => "docs/configuration.md: cache.NAME.refresh",
        Reason::MinUses => "docs/configuration.md: cache.NAME.min_uses",
        Reason::RequestNoStore => "RFC 9111 5.2.1.5",
        Reason::RequestNoCache => "RFC 9111 5.2.1.4",
        Reason::RequestMaxAge => "RFC 9111 5.2.1.1",
        Reason::RequestMinFresh => "RFC 9111 5.2.1.3",
        Reason::OnlyIfCached => "RFC 9111 5.2.1.7",
        Reason::Interim => "RFC 9111 section 3",
        Reason::Partial => "RFC 9111 3.3, RFC 9110 15.3.7",
        Reason::Conditional => "RFC 9111 section 3, RFC 9110 section 13",
        Reason::Status => "RFC 9111 section 3, RFC 6585",
        Reason::MustUnderstand => "RFC 9111 5.2.2.3",
        Reason::NoStore => "RFC 9111 5.2.2.5",
        Reason::Private => "RFC 9111 5.2.2.7",
        Reason::Authorization => "RFC 9111 3.5",
        Reason::SetCookie => "docs/configuration.md: cache.NAME.set_cookie",
        Reason::EdgeRequires => "docs/configuration.md: sites[].routes[].entitled",
        Reason::VaryStar => "RFC 9111 4.1",
        Reason::NoFreshness => "RFC 9111 section 3 and 4.2.2",
        Reason::ExpiredOnArrival => "RFC 9111 4.2",
        Reason::SurrogateKeys => "docs/glossary.md: surrogate key",
        Reason::CacheGroups => "RFC 9875 2",
        Reason::CookieForwarded => "docs/configuration.md: cache.NAME.forward_cookies",
        Reason::CloseDelimited => "RFC 9112 section 8",
        Reason::RequestBody => "RFC 9110 9.3.1",
        Reason::TooLarge => "docs/configuration.md: cache.NAME.object_max",
        Reason::Stale => "RFC 9111 4.2",
        Reason::Purged => "docs/glossary.md: purge",
        Reason::NoCache => "RFC 9111 5.2.2.4",
        Reason::MustRevalidate => "RFC 9111 4.2.4",
        Reason::ValidatorMismatch => "RFC 9111 4.3.4",
    };
    Rule { name: reason.as_str(), source }
}

/// The key of the cache policy that governs it; none where a policy says nothing about it.
pub(super) fn policy_key(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::BypassCookie => "bypass.cookies",
        Reason::BypassHeader => "bypass.headers",
        Reason::BypassQuery => "bypass.query",
        Reason::Refresh => "refresh",
        Reason::MinUses => "min_uses",
        Reason::RequestNoStore
        | Reason::RequestNoCache
        | Reason::RequestMaxAge
        | Reason::RequestMinFresh
        | Reason::OnlyIfCached => "client_directives",
        Reason::Status => "status_ttl",
        Reason::NoStore | Reason::Private | Reason::NoCache | Reason::MustRevalidate | Reason::VaryStar => {
            "ignore_origin"
        }
        Reason::SetCookie => "set_cookie",
        Reason::NoFreshness => "default_ttl",
        Reason::ExpiredOnArrival => "force_ttl",
        Reason::CookieForwarded => "forward_cookies",
        Reason::TooLarge => "object_max",
        Reason::Stale | Reason::Purged => "stale_while_revalidate",
        Reason::Partial => "slice",
        Reason::Method
        | Reason::RequestBody
        | Reason::Interim
        | Reason::Conditional
        | Reason::MustUnderstand
        | Reason::Authorization
        | Reason::EdgeRequires
        | Reason::SurrogateKeys
        | Reason::CacheGroups
        | Reason::CloseDelimited
        | Reason::ValidatorMismatch => return None,
    })
}

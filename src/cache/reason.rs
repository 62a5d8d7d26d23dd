//! Why the law decided as it did: what `Cache-Status`, the access record and the metrics say.

/// The reason of a decision; its text is kebab-case and a label of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::Display, strum::EnumIter)]
#[strum(serialize_all = "kebab-case")]
pub enum Reason {
    /// The method is neither GET nor HEAD, or a HEAD's response has no body to store (RFC 9111 section 3).
    Method,
    /// `bypass.cookies` of the policy names a cookie of the request.
    BypassCookie,
    /// `bypass.headers` of the policy names a field of the request.
    BypassHeader,
    /// `bypass.query` of the policy names a parameter of the request.
    BypassQuery,
    /// `refresh` of the policy names something that the request carries.
    Refresh,
    /// Not yet asked for as often as `min_uses` of the policy says.
    MinUses,
    /// `Cache-Control: no-store` in the request (RFC 9111 5.2.1.5).
    RequestNoStore,
    /// `Cache-Control: no-cache`, or `Pragma: no-cache` alone, in the request (RFC 9111 5.2.1.4, 5.4).
    RequestNoCache,
    /// `max-age` of the request is below the current age (RFC 9111 5.2.1.1).
    RequestMaxAge,
    /// `min-fresh` of the request is above what is left of the freshness lifetime (RFC 9111 5.2.1.3).
    RequestMinFresh,
    /// `only-if-cached` of the request and nothing to answer it with: 504 (RFC 9111 5.2.1.7).
    OnlyIfCached,
    /// An interim (1xx) response; only final ones are stored (RFC 9111 section 3).
    Interim,
    /// A 206 or 416: part of a representation, or word about a part.
    Partial,
    /// A 304 or 412: its meaning hangs on the preconditions of the request it answers.
    Conditional,
    /// A status without explicit freshness that is not heuristically cacheable (RFC 9111 section 3), or one that is
    /// never stored (428, 429, 431, 511: RFC 6585).
    Status,
    /// `must-understand` on a status that this cache does not know (RFC 9111 5.2.2.3).
    MustUnderstand,
    /// `no-store` in the response (RFC 9111 5.2.2.5).
    NoStore,
    /// `private` in the response; this cache is shared (RFC 9111 5.2.2.7).
    Private,
    /// The request had `Authorization` and the response does not allow sharing (RFC 9111 3.5).
    Authorization,
    /// The response sets a cookie and the policy says `set_cookie: refuse`, or `strip` and not of this cookie.
    SetCookie,
    /// `Edge-Requires`: the response is for some only, and this route does not ask who is asking.
    EdgeRequires,
    /// `Vary: *` matches no request (RFC 9111 4.1); a `Vary` that cannot be read is taken for it.
    VaryStar,
    /// Neither a freshness lifetime nor a validator: nothing could ever be answered with it.
    NoFreshness,
    /// Stale when received, without a validator and without a stale window: nothing could ever be answered with it.
    ExpiredOnArrival,
    /// More or longer surrogate keys than are allowed; a purge could miss the response.
    SurrogateKeys,
    /// More or longer cache groups than are allowed; an invalidation could miss the response.
    CacheGroups,
    /// A cookie was forwarded, and only a lifetime of the policy or a heuristic would let the response be stored.
    CookieForwarded,
    /// The body ends with the connection: cut short it would look whole.
    CloseDelimited,
    /// The request has a body, and the response may depend on it.
    RequestBody,
    /// The body is longer than the policy's `object_max`.
    TooLarge,
    /// The current age has reached the freshness lifetime and no stale window covers it.
    Stale,
    /// A soft purge expired the stored response and no stale window covers it.
    Purged,
    /// `no-cache` in the response: every reuse is a validation (RFC 9111 5.2.2.4).
    NoCache,
    /// Stale, and `must-revalidate`, `proxy-revalidate` or `s-maxage` forbids to answer with it (RFC 9111 4.2.4).
    MustRevalidate,
    /// The validators of a 304 or of a HEAD's response are not those of the stored response (RFC 9111 4.3.4, 4.3.5).
    ValidatorMismatch,
}

impl Reason {
    /// The kebab-case text.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::Reason;

    #[test]
    fn every_reason_can_be_a_token_and_a_label() {
        for reason in Reason::iter() {
            let text = reason.as_str();
            assert!(text.starts_with(|c: char| c.is_ascii_lowercase()), "{text}");
            assert!(text.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{text}");
        }
    }
}

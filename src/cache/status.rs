//! The `Cache-Status` field (RFC 9211): what this cache did, in its words.

use std::fmt;

use super::reason::Reason;

/// The name under which this cache speaks.
const NAME: &str = "eduham-edge";

/// One member of `Cache-Status`. `Default` says nothing but the name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheStatus<'a> {
    /// Answered without going forward.
    pub hit: bool,
    /// Why the request went forward.
    pub fwd: Option<Fwd>,
    /// The status of what came back, where it is not the status of the answer.
    pub fwd_status: Option<u16>,
    /// What came back was stored.
    pub stored: bool,
    /// The request waited for another one's fetch.
    pub collapsed: bool,
    /// Seconds of freshness left; negative: stale for so long.
    pub ttl: Option<i64>,
    /// The text of the cache key.
    pub key: Option<&'a str>,
    pub detail: Option<Reason>,
}

/// Why a request went forward (RFC 9211 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::Display)]
#[strum(serialize_all = "kebab-case")]
pub enum Fwd {
    /// This cache had no part in it.
    Bypass,
    /// The method is not answered from stores.
    Method,
    /// Nothing stored for the URI.
    UriMiss,
    /// Something stored for the URI, but no variant for this request.
    VaryMiss,
    /// Nothing stored, and it is not known which of the two.
    Miss,
    /// A fresh response was stored, but the request did not want it.
    Request,
    /// A stored response was stale.
    Stale,
    /// A part of the response was stored, but not enough of it.
    Partial,
}

impl fmt::Display for CacheStatus<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME)?;
        if self.hit {
            f.write_str("; hit")?;
        }
        if let Some(fwd) = self.fwd {
            write!(f, "; fwd={fwd}")?;
        }
        if let Some(status) = self.fwd_status {
            write!(f, "; fwd-status={status}")?;
        }
        if self.stored {
            f.write_str("; stored")?;
        }
        if self.collapsed {
            f.write_str("; collapsed")?;
        }
        if let Some(ttl) = self.ttl {
            write!(f, "; ttl={ttl}")?;
        }
        if let Some(key) = self.key {
            f.write_str("; key=\"")?;
            // An sf-string: printable ASCII, with two characters escaped.
            for c in key.chars().filter(|c| matches!(c, ' '..='~')) {
                if matches!(c, '"' | '\\') {
                    f.write_str("\\")?;
                }
                write!(f, "{c}")?;
            }
            f.write_str("\"")?;
        }
        if let Some(detail) = self.detail {
            write!(f, "; detail={detail}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_as_the_rfc_writes_it() {
        let nothing = CacheStatus::default();
        for (status, expected) in [
            (CacheStatus { hit: true, ttl: Some(30), ..nothing }, "eduham-edge; hit; ttl=30"),
            (CacheStatus { hit: true, ttl: Some(-2), ..nothing }, "eduham-edge; hit; ttl=-2"),
            (CacheStatus { fwd: Some(Fwd::UriMiss), stored: true, ..nothing }, "eduham-edge; fwd=uri-miss; stored"),
            (
                CacheStatus { fwd: Some(Fwd::Stale), fwd_status: Some(304), stored: true, ..nothing },
                "eduham-edge; fwd=stale; fwd-status=304; stored",
            ),
            (
                CacheStatus { fwd: Some(Fwd::VaryMiss), collapsed: true, detail: Some(Reason::NoStore), ..nothing },
                "eduham-edge; fwd=vary-miss; collapsed; detail=no-store",
            ),
            (CacheStatus { hit: true, key: Some("a\"\\\u{fc}b"), ..nothing }, "eduham-edge; hit; key=\"a\\\"\\\\b\""),
        ] {
            assert_eq!(status.to_string(), expected);
            sfv::Parser::new(expected).parse::<sfv::List>().expect("a structured field");
        }
    }
}

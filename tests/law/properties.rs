//! Properties of the law: what holds for every target, range and field, not for chosen ones.

use std::{collections::BTreeSet, time::Duration};

use eduham_edge::cache::{
    self, Glob, Key, Meta, Policy, QueryRule, RANGES_MAX, RequestDirectives, RequestView, ResponseDirectives,
    ResponseView, Reuse, Selection, Times, VariantKey, Vary,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use proptest::{collection::vec, option, prelude::*, sample::select, string::string_regex};

use super::{plain_policy, receipt};

fn fields(pairs: &[(HeaderName, Vec<u8>)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            map.append(name.clone(), value);
        }
    }
    map
}

fn stored(control: &[u8]) -> Option<Meta> {
    let fields = fields(&[(http::header::CACHE_CONTROL, control.to_vec()), (http::header::ETAG, b"\"a\"".to_vec())]);
    let response = ResponseView { status: StatusCode::OK, fields: &fields, complete_length: None };
    let request = RequestView { method: &Method::GET, fields: &HeaderMap::new() };
    cache::store(&request, &response, Times { request_time: receipt(), response_time: receipt() }, &plain_policy()).ok()
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Parts {
    scheme: String,
    host: String,
    port: Option<u16>,
    path: String,
    query: Option<Vec<String>>,
    fingerprint: u64,
}

impl Parts {
    fn key(&self) -> Key {
        let policy = Policy { key_fingerprint: self.fingerprint, ..plain_policy() };
        let query = self.query.as_ref().map(|query| query.join("&"));
        Key::new(1, &self.scheme, &self.host, self.port, &self.path, query.as_deref(), &HeaderMap::new(), &policy)
    }

    /// The same parts with the query in the order of names: what may share a key.
    fn canonical(&self) -> Self {
        let mut same = self.clone();
        if let Some(query) = &mut same.query {
            query.sort_by_key(|parameter| parameter.split('=').next().unwrap_or_default().to_owned());
        }
        same
    }
}

/// Few letters, so that parts that could run into each other often do.
fn parts() -> impl Strategy<Value = Parts> {
    let parameter = string_regex("[ab]{0,2}(=[ab=?/:]{0,2})?").unwrap();
    (
        select(vec!["http", "https"]),
        string_regex("[a.:\\[\\]]{1,3}")
            .unwrap()
            .prop_filter("a port is not part of a host", |host| host.parse::<u16>().is_err() && !host.ends_with(':')),
        option::of(1u16..12),
        string_regex("/[ab/:]{0,3}").unwrap(),
        option::of(vec(parameter, 1..4)),
        0u64..3,
    )
        .prop_map(|(scheme, host, port, path, query, fingerprint)| Parts {
            scheme: scheme.to_owned(),
            host,
            port,
            path,
            query,
            fingerprint,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn different_parts_are_different_keys(a in parts(), b in parts()) {
        let same = a.canonical() == b.canonical();
        prop_assert_eq!(a.key().text() == b.key().text(), same);
        prop_assert_eq!(a.key().hash() == b.key().hash(), same);
    }

    #[test]
    fn order_of_names_does_not_matter_and_order_under_a_name_does(a in parts(), seed in any::<u64>()) {
        if let Some(query) = a.query.clone() {
            let mut shuffled = a.clone();
            // Moves parameters of different names past each other, never those of one name.
            let mut query = query;
            let mut state = seed;
            for at in 1..query.len() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let name = |text: &str| text.split('=').next().unwrap_or_default().to_owned();
                if state >> 63 == 1 && name(&query[at - 1]) != name(&query[at]) {
                    query.swap(at - 1, at);
                }
            }
            shuffled.query = Some(query);
            prop_assert_eq!(a.key(), shuffled.key());
        }
    }

    #[test]
    fn what_the_key_drops_the_fill_drops(a in parts(), ignored in select(vec!["a", "b", "a*", "*", ""])) {
        let rule = QueryRule { ignore: vec![Glob::new(ignored)], only: None, forwards_all: false };
        let policy = Policy { query: rule, ..plain_policy() };
        let query = a.query.as_ref().map(|query| query.join("&"));
        let forwarded = cache::forwarded_query(query.as_deref(), &policy);
        let key = |query: Option<&str>| Key::new(1, &a.scheme, &a.host, a.port, &a.path, query, &HeaderMap::new(), &policy);
        prop_assert_eq!(key(query.as_deref()), key(forwarded.as_deref()));
        prop_assert_eq!(cache::forwarded_query(forwarded.as_deref(), &policy), forwarded.clone());
        let purged = cache::url_hash(1, &a.host, a.port, &a.path, forwarded.as_deref());
        prop_assert_eq!(purged, key(query.as_deref()).url_hash(1));
    }

    #[test]
    fn ranges_are_the_bytes_that_were_asked_for(
        asked in vec((0u64..2000, option::of(0u64..2000)), 1..RANGES_MAX),
        length in 0u64..1500,
    ) {
        let meta = stored(b"max-age=60").unwrap();
        let asked: Vec<_> = asked.into_iter().map(|(first, more)| (first, more.map(|more| first + more))).collect();
        let spec = |(first, last): &(u64, Option<u64>)| match last {
            Some(last) => format!("{first}-{last}"),
            None => format!("{first}-"),
        };
        let text = format!("bytes={}", asked.iter().map(spec).collect::<Vec<_>>().join(","));
        let fields = fields(&[(http::header::RANGE, text.into_bytes())]);
        let selection = cache::select(&RequestView { method: &Method::GET, fields: &fields }, &meta, length);
        let wanted: BTreeSet<_> = asked
            .iter()
            .flat_map(|(first, last)| *first..last.map_or(length, |last| last + 1).min(length))
            .collect();
        let got = match selection {
            Selection::Whole => return Err(TestCaseError::fail("ignored")),
            Selection::Unsatisfiable => Vec::new(),
            Selection::Single(range) => vec![range],
            Selection::Many(ranges) => {
                prop_assert!(ranges.len() > 1);
                ranges
            }
        };
        let sent: BTreeSet<_> = got.iter().flat_map(Clone::clone).collect();
        prop_assert_eq!(wanted.is_empty(), got.is_empty());
        prop_assert!(wanted.is_subset(&sent), "all that was asked for");
        prop_assert_eq!(sent.len() as u64, got.iter().map(|range| range.end - range.start).sum::<u64>(), "none twice");
        prop_assert!(sent.iter().all(|&byte| byte < length));
        let head: u64 = cache::multipart_length("b", None, &got, length);
        let written: usize = got
            .iter()
            .map(|range| cache::part_head("b", None, range, length).len() + (range.end - range.start) as usize)
            .sum::<usize>() + cache::multipart_end("b").len();
        prop_assert_eq!(head, written as u64);
    }

    #[test]
    fn a_variant_matches_itself_and_nothing_that_reads_otherwise(
        names in vec(select(vec!["foo", "bar", "accept-language", "accept-encoding"]), 0..4),
        one in vec((select(vec!["foo", "bar", "accept-language"]), "[ab,\" ;]{0,6}"), 0..4),
        other in vec((select(vec!["foo", "bar", "accept-language"]), "[ab,\" ;]{0,6}"), 0..4),
    ) {
        let request = |pairs: &[(&'static str, String)]| {
            let pairs: Vec<_> = pairs
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), value.clone().into_bytes()))
                .collect();
            fields(&pairs)
        };
        let vary = Vary::parse(&fields(&[(http::header::VARY, names.join(", ").into_bytes())]));
        let (one, other) = (request(&one), request(&other));
        let key = VariantKey::of(&vary, &one);
        prop_assert!(key.matches(&vary, &one));
        prop_assert_eq!(key.matches(&vary, &other), key == VariantKey::of(&vary, &other));
        // Presence is never a matter of spelling.
        for name in vary.names() {
            if one.contains_key(name) != other.contains_key(name) {
                prop_assert!(!key.matches(&vary, &other));
            }
        }
    }

    #[test]
    fn no_field_breaks_the_parsers(text in vec(any::<u8>(), 0..60), cut in 0usize..60) {
        let (a, b) = text.split_at(cut.min(text.len()));
        let pairs: Vec<_> = ["cache-control", "cdn-cache-control", "pragma", "vary", "age", "expires", "date",
            "last-modified", "etag", "if-none-match", "if-match", "if-modified-since", "if-unmodified-since", "range",
            "if-range", "surrogate-key", "cache-tag", "connection", "location", "cookie", "accept-language"]
            .into_iter()
            .flat_map(|name| [a, b].map(|value| (HeaderName::from_static(name), value.to_vec())))
            .collect();
        let fields = fields(&pairs);
        let _ = (RequestDirectives::parse(&fields), ResponseDirectives::parse(&fields));
        let _ = ResponseDirectives::targeted(&fields);
        let request = RequestView { method: &Method::GET, fields: &fields };
        let response = ResponseView { status: StatusCode::OK, fields: &fields, complete_length: None };
        let times = Times { request_time: receipt(), response_time: receipt() };
        let _ = cache::store(&request, &response, times, &plain_policy());
        let meta = stored(b"max-age=60").unwrap();
        let _ = (cache::evaluate(&request, &meta), cache::select(&request, &meta, 10));
        let _ = cache::freshen(&meta, &request, &response, times, &plain_policy());
        let target = cache::Target {
            scheme: "http".into(), host: "a.test".into(), port: None, path: "/x".into(), query: None,
        };
        let _ = cache::invalidated(&Method::POST, StatusCode::OK, &target, &fields);
    }

    #[test]
    fn what_is_stale_stays_stale(lifetime in 0u64..100, at in 0u64..200, later in 0u64..200) {
        let meta = stored(format!("max-age={lifetime}").as_bytes()).unwrap();
        let request = RequestView { method: &Method::GET, fields: &HeaderMap::new() };
        let fresh = |after: u64| {
            let now = receipt() + Duration::from_secs(after);
            let reuse = cache::reuse(&meta, &request, &RequestDirectives::default(), &plain_policy(), now, None);
            (reuse == Reuse::Fresh, meta.ttl(now) > 0)
        };
        prop_assert_eq!(fresh(at), (at < lifetime, at < lifetime));
        prop_assert!(fresh(at).0 || !fresh(at + later).0);
    }
}

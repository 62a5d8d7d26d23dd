//! Compares the law with the crate `http-cache-semantics`: every difference has a rule that explains it.

use std::{collections::BTreeSet, time::Duration};

use eduham_edge::cache::{self, RequestDirectives, RequestView, ResponseView, Reuse, Times};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_cache_semantics::{CacheOptions, CachePolicy};

use super::{plain_policy, receipt};

const RESPONSE_CONTROLS: &[&str] = &[
    "",
    "max-age=60",
    "max-age=0",
    "max-age=-5",
    "max-age=x",
    "max-age=99999999999999999999999",
    "max-age=\"60\"",
    "foo, max-age=60, bar=\"no-store\"",
    "s-maxage=60",
    "s-maxage=60, max-age=5",
    "max-age=60, public",
    "public",
    "max-age=60, private",
    "max-age=60, private=\"x-a\"",
    "max-age=60, no-cache",
    "max-age=60, no-cache=\"x-a\"",
    "max-age=60, no-store",
    "max-age=60, no-store, must-understand",
    "max-age=60, must-revalidate",
    "max-age=60, proxy-revalidate",
    "max-age=60, stale-while-revalidate=60",
    "immutable",
];

const RESPONSE_FIELDS: &[&[(&str, &str)]] = &[
    &[],
    &[("etag", "\"a\"")],
    &[("expires", "Tue, 24 Nov 2026 02:22:37 GMT")],
    &[("expires", "Tuesday, 24-Nov-26 02:22:37 GMT")],
    &[("expires", "0"), ("etag", "\"a\"")],
    &[("last-modified", "Tue, 24 Nov 2026 02:04:57 GMT")],
    &[("age", "30")],
    &[("age", "50, 0")],
    &[("date", "Tue, 24 Nov 2026 02:20:57 GMT")],
    &[("pragma", "no-cache"), ("expires", "Tue, 24 Nov 2026 02:22:37 GMT")],
    &[("vary", "*")],
    &[("cdn-cache-control", "max-age=5")],
];

const REQUEST_FIELDS: &[&[(&str, &str)]] = &[
    &[],
    &[("authorization", "x")],
    &[("cache-control", "no-cache")],
    &[("cache-control", "no-store")],
    &[("pragma", "no-cache")],
    &[("cache-control", "max-age=20")],
    &[("cache-control", "min-fresh=20")],
    &[("cache-control", "max-stale")],
    &[("cache-control", "max-stale=30")],
];

const STATUSES: &[u16] = &[200, 302, 299, 503];

/// Seconds after receipt, on no boundary.
const LATER: &[u64] = &[1, 45, 75, 115];

struct Case {
    control: &'static str,
    fields: &'static [(&'static str, &'static str)],
    request: &'static [(&'static str, &'static str)],
    status: u16,
    after: u64,
}

/// What it says, and the cases that it is for.
type Rule = (&'static str, fn(&Case) -> bool);

/// The rules by which we differ.
const RULES: &[Rule] = &[
    ("9111 4.2.3: an old Date is an age", |case| case.has("date")),
    ("9111 5.1: of a list of ages the first counts", |case| case.field("age").contains(',')),
    ("9111 5.4: Pragma is for requests", |case| case.has("pragma")),
    ("9110 5.6.7: three formats of dates", |case| case.field("expires").starts_with("Tuesday")),
    ("9111 1.2.2: a huge number is a number", |case| case.control.contains("999999")),
    ("9111 3: any final status is stored when its freshness is explicit", |case| [299, 503].contains(&case.status)),
    ("9111 5.2.2.3: must-understand lifts no-store", |case| case.control.contains("must-understand")),
    ("9111 5.2.2.4, 5.2.2.7: a list of fields is about these fields", |case| case.control.contains("=\"x-a\"")),
    ("9111 5.2.2.8: proxy-revalidate forbids only stale answers", |case| case.control.contains("proxy-revalidate")),
    ("9111 5.2.2.10: s-maxage forbids stale answers", |case| case.control.contains("s-maxage")),
    ("5861 3: stale-while-revalidate", |case| case.control.contains("stale-while-revalidate")),
    ("8246: immutable is no lifetime", |case| case.control == "immutable"),
    ("9213 2.2: CDN-Cache-Control", |case| case.has("cdn-cache-control")),
    ("ours: what is stale at once and has no validator is not stored, max-stale or not", |case| {
        case.asks("max-stale") && !case.has("etag") && !case.has("last-modified")
    }),
    ("9111 5.2.2.4: no-cache forbids stale answers", |case| {
        case.control.contains("no-cache") && case.asks("max-stale")
    }),
];

impl Case {
    fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(field, _)| *field == name)
    }

    fn field(&self, name: &str) -> &str {
        self.fields.iter().find(|(field, _)| *field == name).map_or("", |(_, value)| value)
    }

    fn asks(&self, directive: &str) -> bool {
        self.request.iter().any(|(_, value)| value.starts_with(directive))
    }

    fn response_fields(&self) -> HeaderMap {
        let mut map = fields(self.fields);
        if !self.control.is_empty() {
            map.insert("cache-control", HeaderValue::from_static(self.control));
        }
        map
    }

    /// Is the stored response of this case the answer to the same request again, without asking the origin?
    fn answered_by_us(&self) -> bool {
        let (request, response) = (fields(self.request), self.response_fields());
        let request = RequestView { method: &Method::GET, fields: &request };
        let response = ResponseView {
            status: StatusCode::from_u16(self.status).unwrap(),
            fields: &response,
            complete_length: None,
        };
        let policy = plain_policy();
        let times = Times { request_time: receipt(), response_time: receipt() };
        cache::store(&request, &response, times, &policy).is_ok_and(|meta| {
            let directives = RequestDirectives::parse(request.fields);
            let now = receipt() + Duration::from_secs(self.after);
            let reuse = cache::reuse(&meta, &request, &directives, &policy, now, None);
            matches!(reuse, Reuse::Fresh | Reuse::StaleAllowed | Reuse::StaleWhileRevalidate)
        })
    }

    fn answered_by_peer(&self) -> bool {
        let mut request = Request::get("http://a.test/").body(()).unwrap();
        *request.headers_mut() = fields(self.request);
        let mut response = Response::builder().status(self.status).body(()).unwrap();
        *response.headers_mut() = self.response_fields();
        let options = CacheOptions { shared: true, ..CacheOptions::default() };
        let peer = CachePolicy::new_options(&request, &response, receipt(), options);
        let now = receipt() + Duration::from_secs(self.after);
        peer.is_storable() && peer.before_request(&request, now).satisfies_without_revalidation()
    }
}

fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(*name, HeaderValue::from_static(value));
    }
    map
}

#[test]
fn we_differ_from_http_cache_semantics_only_where_a_rule_says_so() {
    let (mut compared, mut agreed) = (0, 0);
    let mut needed = BTreeSet::new();
    let mut unexplained = Vec::new();
    for &control in RESPONSE_CONTROLS {
        for &fields in RESPONSE_FIELDS {
            for &request in REQUEST_FIELDS {
                for &status in STATUSES {
                    for &after in LATER {
                        let case = Case { control, fields, request, status, after };
                        let (ours, theirs) = (case.answered_by_us(), case.answered_by_peer());
                        compared += 1;
                        if ours == theirs {
                            agreed += 1;
                            continue;
                        }
                        let rules: Vec<_> = RULES.iter().filter(|(_, applies)| applies(&case)).collect();
                        match &*rules {
                            [] => unexplained.push(format!(
                                "{status} {control:?} {fields:?}, asked {request:?} after {after} s: ours {ours}, theirs {theirs}"
                            )),
                            [(rule, _)] => _ = needed.insert(*rule),
                            _ => {}
                        }
                    }
                }
            }
        }
    }
    assert!(
        unexplained.is_empty(),
        "{} of {compared}:\n{}",
        unexplained.len(),
        unexplained[..unexplained.len().min(20)].join("\n")
    );
    let idle: Vec<_> = RULES.iter().map(|(rule, _)| *rule).filter(|rule| !needed.contains(rule)).collect();
    assert!(idle.is_empty(), "rules that explain nothing by themselves: {idle:#?}");
    assert!(agreed * 10 > compared * 8, "the two agree on {agreed} of {compared} only");
}

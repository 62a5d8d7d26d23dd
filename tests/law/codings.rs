//! Content codings: the scenario rows of `tests/scenarios/law/codings/`, and what holds for every `Accept-Encoding`.

use std::sync::Arc;

use eduham_edge::cache::{self, Coding, Compress, Glob, Negotiated, Policy, RequestView, ResponseView, Times};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header::ACCEPT_ENCODING};
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde::Deserialize;
use strum::IntoEnumIterator;

use super::{
    plain_policy, receipt,
    rows::{Named, fields, run},
};

#[test]
fn codings_are_chosen_and_refused_row_by_row() {
    run("codings", Row::failures);
}

/// A request and what it gets, or a response and whether it may have a coded copy; only what is written is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    rfc: String,
    /// Of the policy; `br zstd gzip` where it is not written.
    prefer: Option<String>,
    /// `text/*` where they are not written.
    types: Option<Vec<String>>,
    min_size: Option<u64>,
    #[serde(default)]
    request: Vec<String>,
    /// The coding, `identity`, or `nothing`: the policy does not compress.
    gets: Option<String>,
    /// `Accept-Encoding` from there on.
    sends: Option<String>,
    /// Fields of the request that are left, by name.
    keeps: Option<Vec<String>>,
    response: Option<Vec<String>>,
    status: Option<u16>,
    /// Of the body; not known where it is not written.
    length: Option<u64>,
    /// May it have a coded copy?
    coded: Option<bool>,
    /// Fields of that copy in gzip.
    #[serde(default)]
    has: Vec<String>,
    #[serde(default)]
    lacks: Vec<String>,
}

impl Named for Row {
    fn name(&self) -> &str {
        &self.name
    }

    fn rfc(&self) -> &str {
        &self.rfc
    }
}

fn coding(name: &str) -> Coding {
    Coding::iter().find(|coding| coding.name() == name).unwrap_or_else(|| panic!("no coding {name:?}"))
}

fn compress(prefer: &str) -> Compress {
    Compress {
        prefer: prefer.split_whitespace().map(coding).collect(),
        types: vec![Glob::new("text/*")],
        min_size: 1024,
    }
}

impl Row {
    fn policy(&self) -> Policy {
        if self.prefer.as_deref() == Some("none") {
            return plain_policy();
        }
        let mut compress = compress(self.prefer.as_deref().unwrap_or("br zstd gzip"));
        if let Some(types) = &self.types {
            compress.types = types.iter().map(|glob| Glob::new(glob)).collect();
        }
        compress.min_size = self.min_size.unwrap_or(compress.min_size);
        Policy { compress: Some(compress), ..plain_policy() }
    }

    fn failures(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut differ = |what: &str, found: &str, expected: &str| {
            if found != expected {
                wrong.push(format!("{what}: expected {expected:?}, found {found:?}"));
            }
        };
        let policy = self.policy();
        if let Some(expected) = &self.gets {
            let mut request = Arc::new(fields(&self.request));
            let directives = cache::directives(&request, &policy);
            let gets = match cache::normalise_encoding(&mut request, &directives, &policy) {
                Negotiated::Nothing => "nothing",
                Negotiated::Identity => "identity",
                Negotiated::Coding(coding) => coding.name(),
            };
            differ("gets", gets, expected);
            let text = |name: &str| request.get(name).map_or("", |value| value.to_str().unwrap());
            if let Some(expected) = &self.sends {
                differ("sends", text("accept-encoding"), expected);
            }
            if let Some(expected) = &self.keeps {
                let mut kept: Vec<_> = request.keys().map(|name| name.as_str()).collect();
                kept.retain(|name| *name != "accept-encoding");
                differ("keeps", &kept.join(" "), &expected.join(" "));
            }
        }
        if let Some(response) = &self.response {
            let response = fields(response);
            let status = StatusCode::from_u16(self.status.unwrap_or(200)).unwrap();
            let may = policy.compress.as_ref().is_some_and(|compress| compress.applies(status, &response, self.length));
            differ("coded", &may.to_string(), &self.coded.unwrap_or_default().to_string());
            if !self.has.is_empty() || !self.lacks.is_empty() {
                let view = ResponseView { status, fields: &response, complete_length: self.length };
                let nothing = HeaderMap::new();
                let request = RequestView { method: &Method::GET, fields: &nothing };
                let times = Times { request_time: receipt(), response_time: receipt() };
                let meta = cache::store(&request, &view, times, &policy).unwrap();
                let mut copy = cache::coded(&meta, Coding::Gzip).fields;
                cache::vary_on_encoding(&mut copy);
                for (name, value) in &fields(&self.has) {
                    let lines: Vec<_> = copy.get_all(name).iter().map(|line| line.to_str().unwrap()).collect();
                    differ(name.as_str(), &lines.join(", "), value.to_str().unwrap());
                }
                for name in &self.lacks {
                    differ(name, &copy.contains_key(name.as_str()).to_string(), "false");
                }
            }
        }
        wrong
    }
}

/// A member of `Accept-Encoding`: a name, and a weight in thousandths where one is said.
fn member() -> impl Strategy<Value = (&'static str, Option<u16>)> {
    (select(&["br", "zstd", "gzip", "identity", "*", "deflate"][..]), option::of(0..=1000_u16))
}

fn spelled(members: &[(&str, Option<u16>)], upper: bool, space: &str) -> HeaderMap {
    let members = members.iter().map(|(name, weight)| match weight {
        Some(weight) => format!("{name}{space};{space}q={}.{:03}", weight / 1000, weight % 1000),
        None => (*name).to_owned(),
    });
    let text = members.collect::<Vec<_>>().join(&format!("{space},{space}"));
    let text = if upper { text.to_ascii_uppercase() } else { text };
    let mut fields = HeaderMap::new();
    fields.insert(ACCEPT_ENCODING, HeaderValue::try_from(text).unwrap());
    fields
}

proptest! {
    /// Against the definition, with each name said once: the first of ours that weighs the most, if it is acceptable and
    /// weighs no less than the identity.
    #[test]
    fn the_client_has_the_first_word_and_the_policy_the_second(
        members in vec(member(), 0..7),
        prefer in Just(Coding::iter().collect::<Vec<_>>()).prop_shuffle(),
        kept in 0..=3_usize,
        upper: bool,
        space in select(&["", " ", "\t "][..]),
    ) {
        let mut once: Vec<(&str, Option<u16>)> = Vec::new();
        for member in members {
            if !once.iter().any(|(name, _)| *name == member.0) {
                once.push(member);
            }
        }
        let said = |name: &str| once.iter().find(|(other, _)| *other == name).map(|(_, weight)| weight.unwrap_or(1000));
        let weight = |coding: Coding| said(coding.name()).or(said("*")).unwrap_or(0);
        let compress = Compress { prefer: prefer[..kept].to_vec(), types: Vec::new(), min_size: 0 };
        let most = compress.prefer.iter().map(|coding| weight(*coding)).max().unwrap_or(0);
        let expected = compress.prefer.iter().copied().find(|coding| weight(*coding) == most);
        let expected = expected.filter(|_| most > 0 && most >= said("identity").unwrap_or(0));
        let request = spelled(&once, upper, space);
        prop_assert_eq!(compress.choose(&request), expected, "{:?}", request);
    }

    /// However it is written, what is chosen is what would be chosen of the normal form.
    #[test]
    fn what_is_normal_stays_as_it_is(text in "[a-z*;=, q01.-]{0,40}") {
        let policy = Policy { compress: Some(compress("br zstd gzip")), ..plain_policy() };
        let mut request = HeaderMap::new();
        request.insert(ACCEPT_ENCODING, HeaderValue::try_from(text).unwrap());
        let directives = cache::directives(&request, &policy);
        let mut request = Arc::new(request);
        let first = cache::normalise_encoding(&mut request, &directives, &policy);
        let normal = request.clone();
        prop_assert_eq!(cache::normalise_encoding(&mut request, &directives, &policy), first);
        prop_assert_eq!(request, normal);
    }
}

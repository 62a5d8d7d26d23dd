//! What would change a refusal: a key of the configuration, a field of the origin's response, a field of the request.

use std::{
    borrow::Cow,
    fmt,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName, StatusCode, header};
use serde::Serialize;

use super::Scene;
use crate::{
    cache::{
        self, Carried, Carries, GROUP_BYTES_MAX, GROUPS_MAX, Glob, Meta, Policy, Reason, ResponseDirectives,
        SURROGATE_KEY_BYTES_MAX, SURROGATE_KEYS_BYTES_MAX, SURROGATE_KEYS_MAX, SetCookie, StaleWindow,
    },
    config::{Spot, print_size},
    store::DISK_OBJECT_MAX,
};

const CDN_CACHE_CONTROL: &str = "cdn-cache-control";
/// An example of a lifetime; what is right is the operator's to say.
const EXAMPLE: Duration = Duration::from_secs(60);

/// One change that lets the refusal fall. It may uncover another reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    pub of: Party,
    /// A key of the configuration, or the name of a field; `status` for the response's status.
    pub key: String,
    /// Its new value; none: it is taken away.
    pub to: Option<String>,
    /// Where the key is, in the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Spot>,
    /// What else it means.
    pub note: Cow<'static, str>,
}

/// Who would have to change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Party {
    Config,
    Origin,
    Client,
}

/// What a refusal was about.
pub(super) struct Facts<'a> {
    pub(super) scene: Scene<'a>,
    pub(super) route: &'a str,
    pub(super) policy: &'a Policy,
    pub(super) request: &'a HeaderMap,
    pub(super) query: Option<&'a str>,
    pub(super) status: StatusCode,
    /// The response's, as it came or as it is stored.
    pub(super) response: &'a HeaderMap,
    pub(super) length: Option<u64>,
    /// Its age then.
    pub(super) age: Duration,
    /// How long it has been expired, by age or by a soft purge.
    pub(super) expired: Duration,
    /// Who would let it be answered nonetheless.
    pub(super) window: StaleWindow,
}

impl<'a> Facts<'a> {
    /// Before there is a response.
    pub(super) fn of_request(
        scene: Scene<'a>,
        route: &'a str,
        policy: &'a Policy,
        request: &'a HeaderMap,
        query: Option<&'a str>,
        nothing: &'a HeaderMap,
    ) -> Self {
        let (age, expired) = (Duration::ZERO, Duration::ZERO);
        Self {
            scene,
            route,
            policy,
            request,
            query,
            status: StatusCode::OK,
            response: nothing,
            length: None,
            age,
            expired,
            window: StaleWindow::default(),
        }
    }

    /// Is the body larger than the policy itself lets be stored?
    pub(super) fn is_longer_than_policy(&self) -> bool {
        self.policy.object_max.is_some_and(|max| self.length.unwrap_or_default() > max)
    }

    fn config(&self, key: &str, to: impl Into<String>, note: impl Into<Cow<'static, str>>) -> Change {
        let place = self.scene.config.places.of_policy(self.route, key);
        let key = place.as_ref().map_or_else(|| key.to_owned(), |spot| spot.key.clone());
        Change { of: Party::Config, key, to: Some(to.into()), place, note: note.into() }
    }

    /// The field whose directives count (RFC 9213 2.2).
    fn cache_control(&self) -> HeaderName {
        let targeted = ResponseDirectives::targeted(self.response).is_some();
        match targeted || self.policy.ignore_origin.cache_control {
            true => HeaderName::from_static(CDN_CACHE_CONTROL),
            false => header::CACHE_CONTROL,
        }
    }

    fn directives(&self) -> ResponseDirectives {
        ResponseDirectives::targeted(self.response).unwrap_or_else(|| ResponseDirectives::parse(self.response))
    }

    /// The origin's directives without some, and with others; and the field that they are in.
    fn members_with(&self, without: &[&str], with: &[String]) -> (HeaderName, Vec<String>) {
        let name = self.cache_control();
        let mut members = members(self.response, &name);
        members.retain(|member| !without.iter().any(|gone| word(member).eq_ignore_ascii_case(gone)));
        for added in with {
            members.retain(|member| !word(member).eq_ignore_ascii_case(word(added)));
            members.push(added.clone());
        }
        (name, members)
    }

    /// [`members_with`](Self::members_with), with a lifetime where there would be none.
    fn directives_changed(&self, without: &[&str], with: &[String], note: impl Into<Cow<'static, str>>) -> Change {
        let (name, mut members) = self.members_with(without, with);
        let says_how_long =
            |member: &String| ["max-age", "s-maxage"].iter().any(|name| word(member).eq_ignore_ascii_case(name));
        let listens = name == header::CACHE_CONTROL && !self.policy.ignore_origin.expires;
        let expires = listens && self.response.contains_key(header::EXPIRES);
        if !members.iter().any(says_how_long) && !expires {
            members.push(directive("max-age", EXAMPLE));
        }
        origin(name.as_str(), Some(members.join(", ")), note)
    }

    /// One more word of the origin that is not listened to.
    fn ignoring(&self, word: &'static str) -> Change {
        let ignored = &self.policy.ignore_origin;
        let words = [
            (ignored.cache_control, "cache-control"),
            (ignored.expires, "expires"),
            (ignored.no_cache, "no-cache"),
            (ignored.no_store, "no-store"),
            (ignored.private, "private"),
            (ignored.must_revalidate, "must-revalidate"),
            (ignored.vary, "vary"),
        ];
        let words = words.into_iter().filter(|(is, _)| *is).map(|(_, word)| word).chain([word]);
        let list = words.collect::<Vec<_>>().join(", ");
        self.config(
            "ignore_origin",
            format!("[{list}]"),
            "the origin's word does not count then, for all of the policy",
        )
    }

    /// What would have this request carry nothing of `carries` that is of the kind by which it is meant.
    fn uncarried(&self, key: &str, carries: &Carries) -> Vec<Change> {
        let of = |kind: &str, globs: &[Glob], names: &mut dyn Iterator<Item = &str>| {
            self.config(&format!("{key}.{kind}"), without(globs, names), "")
        };
        match carries.by(self.request, self.query) {
            None => Vec::new(),
            Some(Carried::Header(name)) => {
                let names = &mut self.request.keys().map(HeaderName::as_str);
                vec![of("headers", &carries.headers, names), client(name, None, "")]
            }
            Some(Carried::Cookie(_)) => {
                let names = &mut cache::cookie_names(self.request);
                vec![of("cookies", &carries.cookies, names), client("cookie", None, "")]
            }
            Some(Carried::Query(_)) => vec![of("query", &carries.query, &mut cache::parameter_names(self.query))],
        }
    }

    /// A lifetime that the age has not reached, by the directive that counts.
    fn longer(&self) -> Change {
        let counts = if self.directives().s_maxage.is_some() { "s-maxage" } else { "max-age" };
        self.directives_changed(&[], &[directive(counts, self.age + EXAMPLE)], "longer than its age")
    }
}

/// What would let `reason` fall.
pub(super) fn of(reason: Reason, facts: &Facts<'_>) -> Vec<Change> {
    let policy = facts.policy;
    let ignore_client = || facts.config("client_directives", "ignore", "no client's Cache-Control counts then");
    let client_directive = |name: &str| {
        let left = members(facts.request, &header::CACHE_CONTROL);
        let left: Vec<_> = left.into_iter().filter(|member| !word(member).eq_ignore_ascii_case(name)).collect();
        let to = (!left.is_empty()).then(|| left.join(", "));
        let by_pragma = !facts.request.contains_key(header::CACHE_CONTROL);
        client(if by_pragma { "pragma" } else { "cache-control" }, to, "")
    };
    match reason {
        Reason::Method => vec![client("method", Some("GET".to_owned()), "what other methods get is not stored")],
        Reason::BypassCookie | Reason::BypassHeader | Reason::BypassQuery => facts.uncarried("bypass", &policy.bypass),
        Reason::Refresh => facts.uncarried("refresh", &policy.refresh),
        Reason::MinUses => vec![facts.config("min_uses", "1", "stored the first time that it is asked for")],
        Reason::RequestNoStore => vec![ignore_client(), client_directive("no-store")],
        Reason::RequestNoCache => vec![ignore_client(), client_directive("no-cache")],
        Reason::RequestMaxAge => vec![ignore_client(), client_directive("max-age")],
        Reason::RequestMinFresh => vec![ignore_client(), client_directive("min-fresh")],
        Reason::OnlyIfCached => vec![ignore_client(), client_directive("only-if-cached")],
        Reason::Interim | Reason::Conditional => {
            vec![origin("status", Some("200".to_owned()), "a final answer that stands by itself")]
        }
        Reason::Partial => match facts.request.contains_key(header::IF_RANGE) {
            true => vec![client("if-range", None, "which of two answers it is, the client's own validator says")],
            false => vec![origin("status", Some("200".to_owned()), "the whole, where no range was asked for")],
        },
        Reason::Status => match facts.status.as_u16() {
            428 | 429 | 431 | 511 => vec![origin("status", Some("200".to_owned()), "this status is never stored")],
            code => vec![
                facts.config("status_ttl", status_ttl(policy, code), "how long such an answer is fresh"),
                facts.directives_changed(&[], &[], ""),
            ],
        },
        Reason::MustUnderstand => {
            vec![facts.directives_changed(&["must-understand", "no-store"], &[], "the status is not known here")]
        }
        Reason::NoStore => vec![facts.ignoring("no-store"), facts.directives_changed(&["no-store"], &[], "")],
        Reason::Private => vec![
            facts.ignoring("private"),
            facts.directives_changed(&["private"], &[], "then everybody may get this answer"),
        ],
        Reason::Authorization => vec![
            facts.directives_changed(&[], &["public".to_owned()], "then everybody may get this answer"),
            client("authorization", None, ""),
        ],
        Reason::SetCookie => {
            let set: Option<Vec<_>> = cache::set_cookie_names(facts.response).collect();
            let config = match (&policy.set_cookie, set) {
                (SetCookie::Strip(names), Some(set)) => {
                    let names = list(names.iter().map(Glob::as_str).chain(set));
                    facts.config("strip_set_cookie", names, "nobody gets this cookie then")
                }
                _ => facts.config("set_cookie", "store", "everybody gets this cookie then"),
            };
            vec![config, origin("set-cookie", None, "set it on another answer")]
        }
        Reason::EdgeRequires => vec![origin("edge-requires", None, "then everybody may get this answer")],
        Reason::VaryStar => {
            vec![facts.ignoring("vary"), origin("vary", None, "or the names of the fields that matter")]
        }
        Reason::NoFreshness => vec![
            facts.config("default_ttl", seconds(EXAMPLE), "how long answers are fresh where the origin is silent"),
            facts.directives_changed(&[], &[], ""),
            origin("etag", Some("\"1\"".to_owned()), "a validator: stored, and asked about each time"),
        ],
        Reason::ExpiredOnArrival => vec![
            facts.config("force_ttl", seconds(EXAMPLE), "counts from receipt, whatever age it had"),
            facts.longer(),
        ],
        Reason::SurrogateKeys => ["surrogate-key", "cache-tag"]
            .into_iter()
            .filter(|name| facts.response.contains_key(*name))
            .map(|name| {
                let together = print_size(SURROGATE_KEYS_BYTES_MAX as u64);
                let keys = format!("at most {SURROGATE_KEYS_MAX} keys of at most {SURROGATE_KEY_BYTES_MAX} bytes");
                origin(name, None, format!("or {keys}, {together} together"))
            })
            .collect(),
        Reason::CacheGroups => {
            let note = format!("or at most {GROUPS_MAX} groups of at most {GROUP_BYTES_MAX} bytes");
            vec![origin("cache-groups", None, note)]
        }
        Reason::CookieForwarded => {
            let names = list(cache::cookie_names(facts.request));
            vec![
                facts.config("forward_cookies", "[]", "the origin sees no cookie then, of nobody"),
                facts.config("key.cookies", names, "stored once for each value"),
                facts.directives_changed(&[], &[], "the origin says so: it does not hang on the cookie"),
                client("cookie", None, ""),
            ]
        }
        Reason::CloseDelimited => {
            vec![origin("content-length", Some(facts.length.unwrap_or(0).to_string()), "or chunked")]
        }
        Reason::RequestBody => vec![client("content-length", None, "a GET without a body")],
        Reason::TooLarge => {
            let mut changes = Vec::new();
            let length = facts.length.unwrap_or_default();
            if facts.is_longer_than_policy() {
                changes.push(facts.config("object_max", length.to_string(), ""));
            }
            if length > facts.scene.object_max {
                let key = facts.scene.config.store.object_max_key();
                let place = facts.scene.config.places.key(key);
                changes.push(Change {
                    of: Party::Config,
                    key: place.key.clone(),
                    to: Some(length.to_string()),
                    place: Some(place),
                    note: match key {
                        "store.disk.object_max" => {
                            format!("at most store.disk.size and {}", print_size(DISK_OBJECT_MAX)).into()
                        }
                        _ => "at most store.memory.size".into(),
                    },
                });
            }
            changes
        }
        Reason::Stale | Reason::Purged => {
            let (window, note) = (facts.expired + EXAMPLE, "answered stale at once, and validated behind");
            let mut changes = match facts.window {
                StaleWindow::Forbidden => Vec::new(),
                StaleWindow::Origin => {
                    let (name, members) = facts.members_with(&[], &[directive("stale-while-revalidate", window)]);
                    vec![origin(name.as_str(), Some(members.join(", ")), note)]
                }
                StaleWindow::Policy => vec![facts.config("stale_while_revalidate", seconds(window), note)],
            };
            if reason == Reason::Stale {
                changes.push(facts.config("force_ttl", seconds(facts.age + EXAMPLE), ""));
                changes.push(facts.longer());
            }
            changes
        }
        Reason::NoCache => vec![facts.ignoring("no-cache"), facts.directives_changed(&["no-cache"], &[], "")],
        Reason::MustRevalidate => {
            vec![facts.config("force_ttl", seconds(facts.age + EXAMPLE), ""), facts.longer()]
        }
        Reason::ValidatorMismatch => vec![origin("etag", None, "the validator of what it answered 304 about")],
    }
}

/// What would keep a stored response past its time.
pub(super) fn outlived(facts: &Facts<'_>) -> Vec<Change> {
    vec![facts.config("keep", seconds(facts.age + EXAMPLE), "kept to be validated"), facts.longer()]
}

/// What would let a node answer that may not have heard of a purge.
pub(super) fn unheard(facts: &Facts<'_>) -> Vec<Change> {
    if !facts.scene.config.fleet.revalidates_when_cut_off() {
        return Vec::new();
    }
    let place = facts.scene.config.places.key("fleet.when_cut_off");
    let (key, to) = (place.key.clone(), Some("serve".to_owned()));
    vec![Change {
        of: Party::Config,
        key,
        to,
        place: Some(place),
        note: "what was purged meanwhile is answered then".into(),
    }]
}

/// What would give a route a policy.
pub(super) fn cached(policy: &Policy, place: Spot) -> Change {
    let (key, to) = (place.key.clone(), Some(policy.name.clone()));
    Change { of: Party::Config, key, to, place: Some(place), note: "or another policy".into() }
}

/// The facts of a stored response at an instant.
pub(super) fn facts_of<'a>(
    request: Facts<'a>,
    meta: &'a Meta,
    now: SystemTime,
    soft_purged: Option<SystemTime>,
) -> Facts<'a> {
    let expired = Duration::from_secs(meta.ttl_at(now, soft_purged).min(0).unsigned_abs());
    let (age, window) = (meta.age(now), meta.stale_window());
    Facts { status: meta.status, response: &meta.fields, age, expired, window, ..request }
}

fn origin(key: &str, to: Option<String>, note: impl Into<Cow<'static, str>>) -> Change {
    Change { of: Party::Origin, key: key.to_owned(), to, place: None, note: note.into() }
}

fn client(key: &str, to: Option<String>, note: impl Into<Cow<'static, str>>) -> Change {
    Change { of: Party::Client, key: key.to_owned(), to, place: None, note: note.into() }
}

/// The members of a list field, commas in quotes not counted.
fn members(fields: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let mut found = Vec::new();
    for line in fields.get_all(name).iter().filter_map(|line| line.to_str().ok()) {
        let (mut member, mut quoted) = (String::new(), false);
        for character in line.chars().chain([',']) {
            match character {
                ',' if !quoted => {
                    let text = std::mem::take(&mut member);
                    found.extend(Some(text.trim().to_owned()).filter(|text| !text.is_empty()));
                    continue;
                }
                '"' => quoted = !quoted,
                _ => {}
            }
            member.push(character);
        }
    }
    found
}

/// The name of a directive.
fn word(member: &str) -> &str {
    member.split('=').next().unwrap_or_default().trim()
}

fn directive(name: &str, duration: Duration) -> String {
    format!("{name}={}", whole_seconds(duration))
}

fn seconds(duration: Duration) -> String {
    format!("{}s", whole_seconds(duration))
}

fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// A list without the globs that name one of `names`.
fn without(globs: &[Glob], names: &mut dyn Iterator<Item = &str>) -> String {
    let names: Vec<_> = names.collect();
    list(globs.iter().filter(|glob| !names.iter().any(|name| glob.matches(name))).map(Glob::as_str))
}

/// A list as a configuration has it: JSON is YAML.
fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    serde_json::json!(names.collect::<Vec<_>>()).to_string()
}

/// The policy's `status_ttl` with one more status.
fn status_ttl(policy: &Policy, code: u16) -> String {
    let codes = policy.status_ttl.codes.iter().map(|(code, ttl)| (code.to_string(), *ttl));
    let classes = policy.status_ttl.classes.iter().map(|(class, ttl)| (format!("{class}xx"), *ttl));
    let entries = codes.chain(classes).chain([(code.to_string(), EXAMPLE)]);
    let entries: Vec<_> = entries.map(|(status, ttl)| format!("{status}: {}", seconds(ttl))).collect();
    format!("{{ {} }}", entries.join(", "))
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of: &str = self.of.into();
        match &self.to {
            Some(to) => write!(f, "{of}: {}: {to}", self.key)?,
            None => write!(f, "{of}: without {}", self.key)?,
        }
        if let Some(Spot { file, line, column, written, .. }) = &self.place {
            write!(f, " ({}{file}:{line}:{column})", if *written { "" } else { "not written yet; near " })?;
        }
        if !self.note.is_empty() {
            write!(f, " - {}", self.note)?;
        }
        Ok(())
    }
}

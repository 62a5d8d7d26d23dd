//! The community's HTTP cache cases (`tests/conformance/cache-cases.json`), with the clock moved in place of pauses.
//!
//! What does not pass must be named in `tests/conformance/cache-cases-missed.yaml` with the reason, and what is named
//! there must not pass. Of the required cases only void ones may be named: those whose own preparation fails.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use eduham_edge::clock::Clock;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;

use crate::support::{Answer, Asked, Edge, Page, ask, edge, origin, page, reset};

const CASES: &str = include_str!("../conformance/cache-cases.json");
const MISSED: &str = include_str!("../conformance/cache-cases-missed.yaml");
/// How the reason of a case begins that says nothing about the cache.
const VOID: &str = "void: ";
/// `pause_after`
const PAUSE: Duration = Duration::from_secs(3);

#[derive(Deserialize)]
struct Group {
    id: String,
    tests: Vec<Case>,
}

#[derive(Deserialize, Clone)]
struct Case {
    id: String,
    #[serde(default)]
    kind: Kind,
    #[serde(default)]
    depends_on: Vec<String>,
    requests: Vec<Step>,
}

#[derive(Deserialize, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Required,
    Optimal,
    Check,
}

/// An interim response: its status and fields.
type Interim = (u16, Vec<(String, String)>);

/// One request of a case. What is not written is `null`, which serde would take for "not written" too where it matters.
#[derive(Deserialize, Clone, Default)]
#[serde(default)]
struct Step {
    request_method: Option<String>,
    request_headers: Vec<Value>,
    request_body: Option<String>,
    query_arg: Option<String>,
    filename: Option<String>,
    pause_after: bool,
    disconnect: bool,
    magic_locations: bool,
    magic_ims: bool,
    rfc850date: Vec<String>,
    response_status: Option<(u16, String)>,
    response_headers: Vec<Value>,
    response_body: Option<String>,
    interim_responses: Vec<Interim>,
    response_pause: u64,
    check_body: Option<bool>,
    expected_type: Option<String>,
    expected_method: Option<String>,
    #[serde(deserialize_with = "present")]
    expected_status: Option<Option<u16>>,
    expected_request_headers: Vec<Value>,
    expected_request_headers_missing: Vec<Value>,
    expected_response_headers: Vec<Value>,
    expected_response_headers_missing: Vec<Value>,
    expected_response_text: Option<String>,
    expected_interim_responses: Option<Vec<Interim>>,
    setup: bool,
    setup_tests: Vec<String>,
}

/// Tells `null` from what is not written.
fn present<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Option<u16>>, D::Error> {
    Deserialize::deserialize(value).map(Some)
}

impl Step {
    fn method(&self) -> &str {
        self.request_method.as_deref().unwrap_or("GET")
    }

    fn validates(&self) -> bool {
        self.expected_type.as_deref().is_some_and(|expected| expected.ends_with("validated"))
    }
}

/// What the origin of the cases remembers.
struct Script {
    clock: Clock,
    /// By case.
    seen: Mutex<HashMap<String, Vec<Seen>>>,
    cases: HashMap<String, Case>,
}

#[derive(Clone)]
struct Seen {
    /// Of the step, from 0.
    step: usize,
    asked: Asked,
    /// The fields of the answer, with their dates as sent.
    answered: Vec<(String, String)>,
}

#[tokio::test]
async fn the_cache_cases_pass_but_for_those_that_are_named() {
    let groups: Vec<Group> = serde_json::from_str(CASES).expect("the cases are JSON");
    let missed: BTreeMap<String, String> = serde_yaml::from_str(MISSED).expect("the list of misses is YAML");
    let origin = origin().await;
    let cases = groups.iter().flat_map(|group| &group.tests).map(|case| (case.id.clone(), case.clone())).collect();
    let edge = edge(&origin).policy("set_cookie: store, stale_if_error: 1h").start().await;
    let script = Arc::new(Script { clock: edge.clock.clone(), seen: Mutex::default(), cases });
    for id in script.cases.keys() {
        for path in ["", "/location_target", "/content_location_target"] {
            let script = Arc::clone(&script);
            origin.answer(&format!("/{id}{path}"), move |asked| script.answer(asked));
        }
    }

    let mut failed: BTreeMap<String, String> = BTreeMap::new();
    let mut results = Vec::new();
    for group in &groups {
        for case in &group.tests {
            let result = match case.depends_on.iter().find(|other| failed.contains_key(*other)) {
                Some(other) => Err(format!("{VOID}depends on {other}")),
                None => run(&edge, &script, case).await,
            };
            if let Err(reason) = &result {
                failed.insert(case.id.clone(), reason.clone());
            }
            results.push((group.id.as_str(), case, result));
        }
    }

    let mut complaints = Vec::new();
    for kind in [Kind::Required, Kind::Optimal, Kind::Check] {
        let of_kind = || results.iter().filter(|(_, case, _)| case.kind == kind);
        println!("{kind:?}: {} of {}", of_kind().filter(|(.., result)| result.is_ok()).count(), of_kind().count());
        for (group, case, result) in of_kind() {
            let id = &case.id;
            match (result, missed.get(id)) {
                (Err(reason), Some(_)) if kind == Kind::Required && !reason.starts_with(VOID) => {
                    complaints.push(format!("{id} is required, but: {reason}"));
                }
                (Err(reason), Some(explained)) => println!("  {group} {id}: {reason} ({explained})"),
                (Err(reason), None) => complaints.push(format!("{group} {kind:?} {id}: {reason}")),
                (Ok(()), Some(_)) => complaints.push(format!("{id} passes; it is no miss any more")),
                (Ok(()), None) => {}
            }
        }
    }
    let ids: HashSet<&String> = script.cases.keys().collect();
    complaints.extend(missed.keys().filter(|id| !ids.contains(id)).map(|id| format!("{id} is no case")));
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// Runs one case; an error says what was not as expected.
async fn run(edge: &Edge, script: &Script, case: &Case) -> Result<(), String> {
    let mut last_modified: Option<SystemTime> = None;
    for (index, step) in case.requests.iter().enumerate() {
        let mut request = ask(step.method(), &url(case, step));
        for field in &step.request_headers {
            let (name, value) = (name(field), &field[1]);
            let value = match value.as_i64() {
                Some(delta) if step.magic_ims => {
                    date(last_modified.unwrap_or_else(|| edge.now()), delta, is_rfc850(step, name))
                }
                _ => written(step, name, value, edge.now()),
            };
            request = request.field(name, &value);
        }
        request = request.field("Req-Num", &index.to_string());
        if let Some(body) = &step.request_body {
            request = request.body(body.as_str());
        }
        let answer = edge.ask(&request).await;
        // What goes on behind the answer ends before the clock moves.
        edge.settled().await;
        let seen = script.seen.lock().get(&case.id).cloned().unwrap_or_default();
        if let Some(last) = seen.last()
            && let Some((_, value)) = last.answered.iter().find(|(name, _)| name.eq_ignore_ascii_case("last-modified"))
        {
            last_modified = httpdate::parse_http_date(value).ok();
        }
        if let Err((check, what)) = judge(case, index, step, &answer, &seen) {
            let void = step.setup || step.setup_tests.iter().any(|test| test == check);
            let void = if void { VOID } else { "" };
            return Err(format!("{void}request {}: {what}", index + 1));
        }
        if step.pause_after {
            edge.clock.advance(PAUSE);
        }
    }
    Ok(())
}

fn url(case: &Case, step: &Step) -> String {
    let mut url = format!("/{}", case.id);
    if let Some(filename) = &step.filename {
        url.push_str(&format!("/{filename}"));
    }
    if let Some(query) = &step.query_arg {
        url.push_str(&format!("?{query}"));
    }
    url
}

fn name(field: &Value) -> &str {
    field[0].as_str().or(field.as_str()).expect("a field has a name")
}

fn is_rfc850(step: &Step, name: &str) -> bool {
    step.rfc850date.iter().any(|other| other.eq_ignore_ascii_case(name))
}

/// The text of a field: a number is a date that far from now where the field is one.
fn written(step: &Step, name: &str, value: &Value, now: SystemTime) -> String {
    const DATES: [&str; 5] = ["date", "expires", "last-modified", "if-modified-since", "if-unmodified-since"];
    match value.as_i64() {
        Some(delta) if DATES.contains(&name.to_ascii_lowercase().as_str()) => date(now, delta, is_rfc850(step, name)),
        Some(number) => number.to_string(),
        None => value.as_str().expect("a text or a number").to_owned(),
    }
}

fn date(from: SystemTime, delta: i64, rfc850: bool) -> String {
    let by = Duration::from_secs(delta.unsigned_abs());
    let at = if delta < 0 { from - by } else { from + by };
    if !rfc850 {
        return httpdate::fmt_http_date(at);
    }
    let format = time::macros::format_description!(
        "[weekday], [day]-[month repr:short]-[year repr:last_two] [hour]:[minute]:[second] GMT"
    );
    time::OffsetDateTime::from(at).format(&format).expect("a date of this century")
}

impl Script {
    fn answer(&self, asked: &Asked) -> Page {
        let id = asked.path().split('/').nth(1).unwrap_or_default().to_owned();
        let case = &self.cases[&id];
        let index: usize =
            asked.field("req-num").and_then(|number| number.parse().ok()).expect("a request has a number");
        let step = &case.requests[index];
        self.clock.advance(Duration::from_secs(step.response_pause));
        let now = self.clock.now();
        let mut answered: Vec<(String, String)> = Vec::new();
        for field in &step.response_headers {
            let name = name(field);
            let mut value = written(step, name, &field[1], now);
            if step.magic_locations && ["location", "content-location"].contains(&name.to_ascii_lowercase().as_str()) {
                value = format!("http://a.test/{id}/{value}");
            }
            answered.push((name.to_owned(), value));
        }
        let mut seen = self.seen.lock();
        let seen = seen.entry(id.clone()).or_default();
        let before = index.checked_sub(1).and_then(|before| seen.iter().rev().find(|seen| seen.step == before));
        let same = |asked_by: &str, was: &str| {
            let was = before.and_then(|seen| field(&seen.answered, was));
            was.is_some() && asked.field(asked_by) == was
        };
        let status = match &step.response_status {
            Some((code, phrase)) => format!("{code} {phrase}"),
            None if step.validates()
                && (same("if-none-match", "etag") || same("if-modified-since", "last-modified")) =>
            {
                "304 Not Modified".into()
            }
            None if step.validates() => "999 Not a Validation".into(),
            None => "200 OK".into(),
        };
        seen.push(Seen { step: index, asked: asked.clone(), answered: answered.clone() });
        if step.disconnect {
            return reset();
        }
        let mut answer = page(step.response_body.clone().unwrap_or(id)).status(&status);
        for (code, fields) in &step.interim_responses {
            let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            answer = answer.interim(&format!("{code} Interim\r\n{}", fields.join("\r\n")));
        }
        if field(&answered, "date").is_none() {
            answer = answer.field("Date", &httpdate::fmt_http_date(now));
        }
        if field(&answered, "content-type").is_none() {
            answer = answer.field("Content-Type", "text/plain");
        }
        for (name, value) in &answered {
            answer = answer.field(name, value);
        }
        answer
            .field("Server-Now", &httpdate::fmt_http_date(now))
            .field("Server-Request-Count", &seen.len().to_string())
            .field("Client-Request-Count", &(index + 1).to_string())
    }
}

fn field(fields: &[(String, String)], wanted: &str) -> Option<String> {
    fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.clone())
}

/// Compares what came with what is expected; the error names the check that failed first.
fn judge(case: &Case, index: usize, step: &Step, answer: &Answer, seen: &[Seen]) -> Result<(), (&'static str, String)> {
    let arrived = seen.iter().find(|seen| seen.step == index);
    // How often the origin had been asked when it made this answer.
    let made_at: Option<usize> = answer.field("server-request-count").and_then(|count| count.parse().ok());
    let check = |name, holds: bool, what: String| if holds { Ok(()) } else { Err((name, what)) };

    check("expected_status", !answer.cut, "the answer is cut off".into())?;
    match step.expected_type.as_deref() {
        Some("cached") => {
            let cached = made_at.is_some_and(|count| count < index + 1);
            check("expected_type", cached, format!("not from the cache ({})", answer.cache_status()))?;
        }
        Some("not_cached") => {
            check("expected_type", made_at == Some(index + 1), format!("from the cache ({})", answer.cache_status()))?;
        }
        Some(expected @ ("etag_validated" | "lm_validated")) => {
            let by = if expected == "etag_validated" { "if-none-match" } else { "if-modified-since" };
            let validated = arrived.is_some_and(|seen| seen.asked.field(by).is_some());
            check("expected_type", validated && answer.status != 999, format!("the origin saw no {by} that matches"))?;
        }
        _ => {}
    }
    let expected_status = match (&step.expected_status, &step.response_status) {
        (Some(expected), _) => *expected,
        (None, Some((code, _))) => Some(*code),
        (None, None) => Some(200),
    };
    if let Some(expected) = expected_status {
        check("expected_status", answer.status == expected, format!("status {}, not {expected}", answer.status))?;
    }
    if let Some(expected) = &step.expected_method {
        let method = arrived.map(|seen| seen.asked.method.as_str());
        check("expected_method", method == Some(expected), format!("the origin saw {method:?}, not {expected}"))?;
    }
    for expected in &step.expected_request_headers {
        let found = arrived.and_then(|seen| seen.asked.field(name(expected)));
        let holds = found.is_some() && (expected.is_string() || found.as_deref() == expected[1].as_str());
        check("expected_request_headers", holds, format!("the origin saw {expected} as {found:?}"))?;
    }
    for expected in &step.expected_request_headers_missing {
        let found = arrived.and_then(|seen| seen.asked.field(name(expected)));
        check("expected_request_headers_missing", found.is_none(), format!("the origin saw {expected} as {found:?}"))?;
    }
    if let Some(sent) = arrived.filter(|_| made_at == Some(index + 1) && answer.status != 304 && !step.validates()) {
        for (declared, (name, value)) in step.response_headers.iter().zip(&sent.answered) {
            // What is said to caches alone ends here, as some of the cases know.
            let checked = declared[2] != false && !name.eq_ignore_ascii_case("cdn-cache-control");
            if checked && !answer.fields.iter().any(|(other, got)| other.eq_ignore_ascii_case(name) && got == value) {
                let found = answer.field(name);
                return Err(("response_headers", format!("{name} is {found:?}, not {value:?}")));
            }
        }
    }
    let server_now = answer.field("server-now").and_then(|now| httpdate::parse_http_date(&now).ok());
    for expected in &step.expected_response_headers {
        let found = answer.field(name(expected));
        let holds = match (&expected[1], &expected[2]) {
            _ if expected.is_string() => found.is_some(),
            (Value::String(sign), other) if sign == "=" => {
                found.is_some() && found == answer.field(other.as_str().unwrap_or_default())
            }
            (Value::String(sign), least) if sign == ">" => found
                .as_deref()
                .and_then(|found| found.parse().ok())
                .is_some_and(|found: i64| Some(found) > least.as_i64()),
            (value, _) => server_now.is_some_and(|now| found == Some(written(step, name(expected), value, now))),
        };
        check("expected_response_headers", holds, format!("{expected} came as {found:?}"))?;
    }
    for unwanted in &step.expected_response_headers_missing {
        let found = answer.field(name(unwanted));
        let holds = match unwanted[1].as_str() {
            Some(value) => {
                !answer.fields.iter().any(|(other, got)| other.eq_ignore_ascii_case(name(unwanted)) && got == value)
            }
            None => found.is_none(),
        };
        check("expected_response_headers_missing", holds, format!("{unwanted} came as {found:?}"))?;
    }
    if let Some(expected) = &step.expected_interim_responses {
        let codes: Vec<u16> = answer.interim.iter().map(|(code, _)| *code).collect();
        let holds = codes.len() == expected.len()
            && expected.iter().zip(&answer.interim).all(|((code, fields), (came, got))| {
                code == came && fields.iter().all(|(name, value)| field(got, name).as_ref() == Some(value))
            });
        check("expected_interim_responses", holds, format!("interim responses {codes:?}"))?;
    }
    let bodyless = step.method() == "HEAD" || matches!(answer.status, 204 | 304);
    if step.check_body != Some(false) && !bodyless {
        let expected = step.expected_response_text.as_ref().or(step.response_body.as_ref()).unwrap_or(&case.id);
        let text = String::from_utf8_lossy(&answer.body);
        check("expected_response_text", text == *expected, format!("the body is {text:?}, not {expected:?}"))?;
    }
    Ok(())
}

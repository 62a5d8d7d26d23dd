//! Pages and JSON: what they hold, who may store them.

use axum::http::{Method, StatusCode};

use crate::support::{Bench, PICTURE};

const PUBLIC: (&str, &str) = ("public, max-age=60", "max-age=3600, stale-while-revalidate=86400, stale-if-error=86400");
const IMMUTABLE: (&str, &str) = ("public, max-age=31536000, immutable", "");
const UNCACHED: (&str, &str) = ("no-store", "");

pub(crate) async fn every_path_says_who_may_store_it_and_how_it_is_purged(bench: Bench) {
    let course = bench.sample().await.course_id;
    let outline = bench.get("/v1/courses/knots/modules").await.json();
    let lesson = outline["modules"][0]["lessons"][0]["id"].as_str().expect("an id").to_owned();
    let page = bench.get("/courses/knots/lessons/reef").await;
    let media = between(page.text(), "<img src=\"/media/", "\"").to_owned();
    let asset = media.split('/').next().expect("an id").to_owned();
    let style = between(page.text(), "<link rel=\"stylesheet\" href=\"", "\"").to_owned();

    let course_key = format!("course:{course}");
    let lesson_keys = format!("course:{course} lesson:{lesson}");
    for (path, status, (cache_control, cdn), keys) in [
        ("/", 200, PUBLIC, "catalog"),
        ("/courses", 200, PUBLIC, "catalog"),
        ("/courses/knots", 200, PUBLIC, &*course_key),
        ("/courses/knots/lessons/reef", 200, PUBLIC, &*lesson_keys),
        (&*format!("/media/{media}"), 200, IMMUTABLE, &*format!("asset:{asset} course:{course}")),
        (&*style, 200, IMMUTABLE, "web"),
        ("/v1/catalog", 200, PUBLIC, "catalog"),
        ("/v1/catalog?q=knot&limit=1", 200, PUBLIC, "catalog"),
        ("/v1/courses/knots", 200, PUBLIC, &*course_key),
        ("/v1/courses/knots/modules", 200, PUBLIC, &*course_key),
        (&*format!("/v1/lessons/{lesson}"), 200, PUBLIC, &*lesson_keys),
        ("/v1/status", 200, UNCACHED, ""),
        ("/v1/me", 401, UNCACHED, ""),
        ("/v1/nothing", 404, UNCACHED, ""),
        ("/nothing", 404, UNCACHED, ""),
        ("/healthz", 200, UNCACHED, ""),
        ("/readyz", 200, UNCACHED, ""),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let answer = bench.send(method.clone(), path, &[]).await;
            assert_eq!(answer.status.as_u16(), status, "{method} {path}");
            let found =
                (answer.field("cache-control"), answer.field("cdn-cache-control"), answer.field("surrogate-key"));
            assert_eq!(found, (cache_control, cdn, keys), "{method} {path}");
            assert_eq!(answer.field("vary"), "", "{method} {path}");
            assert_eq!(answer.field("set-cookie"), "", "{method} {path}");
            let stored = cache_control != UNCACHED.0;
            assert_eq!(answer.field("etag").starts_with('"'), stored, "{method} {path}");
            assert_eq!(answer.body.is_empty(), method == Method::HEAD, "{method} {path}");
            assert_ne!(answer.field("content-length"), "", "{method} {path}");
        }
    }
}

pub(crate) async fn pages_lead_from_lesson_to_lesson(bench: Bench) {
    bench.sample().await;
    let home = bench.get("/").await;
    assert!(
        home.text().contains("href=\"/courses/knots\"") && home.text().contains("Knots &#38; bends"),
        "{}",
        home.text()
    );
    let course = bench.get("/courses/knots").await;
    for lesson in ["reef", "sub-bowline", "secret"] {
        assert!(course.text().contains(&format!("href=\"/courses/knots/lessons/{lesson}\"")), "{}", course.text());
    }
    for (lesson, previous, next) in [
        ("reef", None, Some("sub-bowline")),
        ("sub-bowline", Some("reef"), Some("secret")),
        ("secret", Some("sub-bowline"), None),
    ] {
        let page = bench.get(&format!("/courses/knots/lessons/{lesson}")).await;
        let link = |rel: &str, to: &str| format!("rel=\"{rel}\" href=\"/courses/knots/lessons/{to}\"");
        assert_eq!(page.text().contains("rel=\"prev\""), previous.is_some(), "{lesson}");
        assert_eq!(page.text().contains("rel=\"next\""), next.is_some(), "{lesson}");
        assert!(previous.is_none_or(|to| page.text().contains(&link("prev", to))), "{lesson}");
        assert!(next.is_none_or(|to| page.text().contains(&link("next", to))), "{lesson}");
        assert_eq!(page.text().matches("<h1").count(), 1, "{lesson}");
        assert!(page.field("content-security-policy").starts_with("default-src 'none';"), "{lesson}");
    }
}

pub(crate) async fn a_page_that_the_client_has_is_not_sent_again(bench: Bench) {
    bench.sample().await;
    for path in ["/", "/courses/knots", "/courses/knots/lessons/reef", "/v1/catalog"] {
        let first = bench.get(path).await;
        let etag = first.field("etag").to_owned();
        assert_eq!(bench.get(path).await.field("etag"), etag, "{path}");
        let again = bench.send(Method::GET, path, &[("if-none-match", &etag)]).await;
        assert_eq!((again.status, again.body.len()), (StatusCode::NOT_MODIFIED, 0), "{path}");
        for field in ["etag", "cache-control", "cdn-cache-control", "surrogate-key"] {
            assert_eq!(again.field(field), first.field(field), "{field} of {path}");
        }
        let other = bench.send(Method::GET, path, &[("if-none-match", "\"other\"")]).await;
        assert_eq!((other.status, other.body), (StatusCode::OK, first.body), "{path}");
    }
}

pub(crate) async fn a_course_is_found_by_slug_by_id_and_by_words(bench: Bench) {
    let id = bench.sample().await.course_id;
    let by_slug = bench.get("/v1/courses/knots").await.json();
    assert_eq!(by_slug["id"], *id);
    assert_eq!(by_slug["lessons"], 3);
    assert_eq!(bench.get(&format!("/v1/courses/{id}")).await.json(), by_slug);
    // Pages have one address.
    assert_eq!(bench.get(&format!("/courses/{id}")).await.status, StatusCode::NOT_FOUND);
    for (query, found) in
        [("knot", 1), ("BENDS", 1), ("100%25%20of", 1), ("1%25", 0), ("_", 0), ("sailing", 0), ("%20", 1)]
    {
        let page = bench.get(&format!("/v1/catalog?q={query}")).await.json();
        assert_eq!(page["items"].as_array().expect("a list").len(), found, "{query}");
    }
}

pub(crate) async fn the_catalogue_is_read_in_steps(bench: Bench) {
    for number in 1..=5 {
        let yaml = format!("title: Course {number}\nsummary: s\nmodules: [{{ title: m, lessons: [a.md] }}]\n");
        bench.import(&bench.folder(&[("course.yaml", &yaml), ("a.md", "# A\n")])).await;
    }
    let mut seen = Vec::new();
    let mut path = "/v1/catalog?limit=2".to_owned();
    for _ in 0..3 {
        let page = bench.get(&path).await.json();
        let items = page["items"].as_array().expect("a list");
        seen.extend(items.iter().map(|course| course["slug"].as_str().expect("text").to_owned()));
        path = format!("/v1/catalog?limit=2&after={}", page["next"].as_str().unwrap_or("end"));
    }
    assert_eq!(seen, ["course-5", "course-4", "course-3", "course-2", "course-1"]);
    assert!(path.ends_with("after=end"));
    for wrong in ["?limit=0", "?limit=101", "?limit=x", "?after=x", &format!("?q={}", "x".repeat(101))] {
        let answer = bench.get(&format!("/v1/catalog{wrong}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{wrong}");
        assert_eq!(answer.field("content-type"), "application/problem+json", "{wrong}");
    }
}

pub(crate) async fn a_lesson_outside_the_preview_keeps_its_text(bench: Bench) {
    bench.sample().await;
    let page = bench.get("/courses/knots/lessons/secret").await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.text().contains("Secret knots") && !page.text().contains("hidden text"));
    let outline = bench.get("/v1/courses/knots/modules").await.json();
    let secret = outline["modules"][1]["lessons"][0]["id"].as_str().expect("an id").to_owned();
    let answer = bench.get(&format!("/v1/lessons/{secret}")).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(!answer.text().contains("hidden text"));
}

pub(crate) async fn failures_are_pages_or_problems_and_are_stored_by_nobody(bench: Bench) {
    bench
        .import(&bench.folder(&[
            ("course.yaml", "title: T\nsummary: s\ncover: c.svg\nmodules: [{ title: m, lessons: [a.md] }]\n"),
            ("a.md", "# A\n"),
            ("c.svg", PICTURE),
        ]))
        .await;
    for (method, path, status, is_problem) in [
        (Method::GET, "/courses/none", 404, false),
        (Method::GET, "/courses/t/lessons/none", 404, false),
        (Method::GET, "/courses?limit=x", 400, false),
        (Method::GET, "/assets/site-000000000000.css", 404, false),
        (Method::POST, "/courses/t", 405, false),
        (Method::GET, "/v1/courses/none", 404, true),
        (Method::GET, "/v1/lessons/none", 404, true),
        (Method::GET, "/v1/me", 401, true),
        (Method::GET, "/v1", 404, false),
    ] {
        let answer = bench.send(method, path, &[]).await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
        assert_eq!(answer.field("cache-control"), "no-store", "{path}");
        assert_eq!(answer.field("etag"), "", "{path}");
        let kind = if is_problem { "application/problem+json" } else { "text/html; charset=utf-8" };
        assert_eq!(answer.field("content-type"), kind, "{path}");
        if is_problem {
            assert_eq!(answer.json()["status"], status, "{path}");
        }
    }
    assert_eq!(bench.get("/v1/me").await.field("www-authenticate"), "Session");

    bench.app.db.close().await;
    let answer = bench.get("/courses/t").await;
    assert_eq!((answer.status.as_u16(), answer.field("cache-control")), (503, "no-store"));
    assert_eq!(bench.get("/v1/catalog").await.field("retry-after"), "1");
}

/// What stands between two texts, the first time.
pub(crate) fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let start = text.find(before).unwrap_or_else(|| panic!("no {before} in {text}")) + before.len();
    let rest = &text[start..];
    &rest[..rest.find(after).expect("an end")]
}

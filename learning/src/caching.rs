//! The only place that says who may store an answer, for how long, and by which keys it is purged.
//!
//! | what | policy | surrogate keys |
//! |---|---|---|
//! | `/`, `/courses`, `/v1/catalog` | public | `catalog` |
//! | `/courses/{slug}`, `/v1/courses/{id}`, `/v1/courses/{id}/modules` | public | `course:{id}` |
//! | `/courses/{slug}/lessons/{lesson}`, `/v1/lessons/{id}` | public | `course:{id} lesson:{id}` |
//! | `/media/{asset}/{sha256}/{file}` | immutable | `asset:{id} course:{id}` |
//! | `/assets/{name}-{hash}.{ext}` | immutable | `web` |
//! | everything else, and every error | uncached | none |
//!
//! No answer depends on a cookie, a language or an encoding, so none carries `Vary`.

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::{
    conditional::{self, Validators},
    objects::sha256_hex,
};

/// RFC 9213: what caches of this platform obey, in place of `Cache-Control`.
const CDN_CACHE_CONTROL: &str = "cdn-cache-control";
/// Names by which a stored response is purged.
const SURROGATE_KEY: &str = "surrogate-key";

/// Who may store an answer and for how long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Policy {
    /// Browsers for a minute; edges for an hour, since publishing purges them, and a day past that when the origin is
    /// slow or gone. Never `s-maxage`: it would forbid edges to serve stale (RFC 9111, 5.2.2.10).
    Public,
    /// For good: the URL names the content.
    Immutable,
    /// By nobody.
    Uncached,
}

/// A policy and the surrogate keys of one answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Caching {
    policy: Policy,
    keys: Vec<String>,
}

impl Caching {
    /// A list of courses.
    #[must_use]
    pub fn catalog() -> Self {
        Self { policy: Policy::Public, keys: vec![catalog_key()] }
    }

    /// A course or its outline.
    #[must_use]
    pub fn course(id: &str) -> Self {
        Self { policy: Policy::Public, keys: vec![course_key(id)] }
    }

    /// A lesson.
    #[must_use]
    pub fn lesson(course_id: &str, id: &str) -> Self {
        Self { policy: Policy::Public, keys: vec![course_key(course_id), format!("lesson:{id}")] }
    }

    /// A picture, a video, a stylesheet of a course.
    #[must_use]
    pub fn asset(id: &str, course_id: &str) -> Self {
        Self { policy: Policy::Immutable, keys: vec![format!("asset:{id}"), course_key(course_id)] }
    }

    /// A part of the site itself.
    #[must_use]
    pub fn web() -> Self {
        Self { policy: Policy::Immutable, keys: vec!["web".into()] }
    }

    /// What is not the same for everybody, or not worth keeping.
    #[must_use]
    pub const fn uncached() -> Self {
        Self { policy: Policy::Uncached, keys: Vec::new() }
    }

    /// Writes the fields.
    pub fn write(&self, headers: &mut HeaderMap) {
        let (cache_control, cdn) = match self.policy {
            Policy::Public => {
                ("public, max-age=60", Some("max-age=3600, stale-while-revalidate=86400, stale-if-error=86400"))
            }
            Policy::Immutable => ("public, max-age=31536000, immutable", None),
            Policy::Uncached => ("no-store", None),
        };
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache_control));
        if let Some(cdn) = cdn {
            headers.insert(CDN_CACHE_CONTROL, HeaderValue::from_static(cdn));
        }
        // Keys are made of ids, which are plain text; one that were not could not be purged either.
        if !self.keys.is_empty()
            && let Ok(keys) = HeaderValue::try_from(self.keys.join(" "))
        {
            headers.insert(SURROGATE_KEY, keys);
        }
    }

    /// A whole answer in memory, with a strong `ETag` made of its bytes: 304 when `request` has it already.
    ///
    /// The tag follows everything that the bytes are made of (the course's version, the templates, this program), so it
    /// changes with each of them and with nothing else.
    #[must_use]
    pub fn answer(
        &self,
        request: &HeaderMap,
        media_type: &'static str,
        body: impl Into<Body> + AsRef<[u8]>,
    ) -> Response {
        let validators = Validators { etag: format!("\"{}\"", &sha256_hex(body.as_ref())[..32]), last_modified: None };
        let mut response = if conditional::not_modified(request, &validators) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            ([(header::CONTENT_TYPE, media_type)], body.into()).into_response()
        };
        self.write(response.headers_mut());
        validators.write(response.headers_mut());
        response
    }
}

/// The keys that publishing a course purges: its own and that of every list.
#[must_use]
pub fn keys_of_publication(course_id: &str) -> [String; 2] {
    [catalog_key(), course_key(course_id)]
}

/// Answers on which nobody decided are stored by nobody.
pub async fn uncached_unless_said(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if !response.headers().contains_key(header::CACHE_CONTROL) {
        Caching::uncached().write(response.headers_mut());
    }
    response
}

fn catalog_key() -> String {
    "catalog".into()
}

fn course_key(id: &str) -> String {
    format!("course:{id}")
}

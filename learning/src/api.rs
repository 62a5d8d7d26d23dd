//! `/v1`: what is published, as JSON.

use axum::{
    extract::{Path, Query, State, rejection::QueryRejection},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use crate::{
    app::App,
    caching::Caching,
    catalogue::{self, Course, Lesson, Module, Wanted},
    failure::{ApiFailure, Failure},
};

const JSON: &str = "application/json";

/// The query of `/v1/catalog`.
#[derive(Debug, Deserialize)]
pub struct CatalogQuery {
    q: Option<String>,
    after: Option<String>,
    limit: Option<u32>,
}

impl CatalogQuery {
    /// What it asks for, if that makes sense.
    ///
    /// # Errors
    /// 400 with what to change.
    pub fn wanted(self) -> Result<Wanted, Failure> {
        let search = self.q.map(|q| q.trim().to_owned()).filter(|q| !q.is_empty());
        if search.as_ref().is_some_and(|q| q.len() > catalogue::SEARCH_BYTES_MAX) {
            return Err(Failure::BadRequest(format!("`q` may have {} bytes", catalogue::SEARCH_BYTES_MAX)));
        }
        if let Some(after) = &self.after
            && uuid::Uuid::try_parse(after).is_err()
        {
            return Err(Failure::BadRequest("`after` must be the `next` of an earlier answer".into()));
        }
        let limit = self.limit.unwrap_or(catalogue::PAGE_DEFAULT);
        if !(1..=catalogue::PAGE_MAX).contains(&limit) {
            return Err(Failure::BadRequest(format!("`limit` must be 1 to {}", catalogue::PAGE_MAX)));
        }
        Ok(Wanted { search, after: self.after, limit })
    }
}

/// `GET /v1/catalog?q&after&limit`.
///
/// # Errors
/// 400 for a query that makes no sense.
pub async fn catalog(
    State(app): State<App>,
    query: Result<Query<CatalogQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiFailure> {
    let Query(query) = query.map_err(|rejection| Failure::BadRequest(rejection.body_text()))?;
    let page = catalogue::courses(&app.db, &query.wanted()?).await?;
    json(&Caching::catalog(), &headers, &page)
}

/// `GET /v1/courses/{id}`, by id or slug.
///
/// # Errors
/// 404.
pub async fn course(
    State(app): State<App>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiFailure> {
    let course = find(&app, &name).await?;
    json(&Caching::course(&course.id), &headers, &course)
}

/// `GET /v1/courses/{id}/modules`: the outline, without the text of lessons.
///
/// # Errors
/// 404.
pub async fn modules(
    State(app): State<App>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiFailure> {
    #[derive(Serialize)]
    struct Outline {
        course_id: String,
        version: i64,
        modules: Vec<Module>,
    }
    let course = find(&app, &name).await?;
    let modules = catalogue::outline(&app.db, &course.id).await?;
    let caching = Caching::course(&course.id);
    json(&caching, &headers, &Outline { course_id: course.id, version: course.version, modules })
}

/// `GET /v1/lessons/{id}`: a lesson of the free preview.
///
/// # Errors
/// 404, and 403 for the others.
pub async fn lesson(
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiFailure> {
    let lesson: Lesson =
        catalogue::lesson(&app.db, &id).await?.ok_or(Failure::NotFound("There is no lesson with this id."))?;
    if !lesson.entry.free_preview {
        return Err(Failure::Forbidden("This lesson is not part of the free preview.").into());
    }
    json(&Caching::lesson(&lesson.course_id, &lesson.entry.id), &headers, &lesson)
}

/// `GET /v1/me`: nobody has a session yet.
pub async fn me() -> ApiFailure {
    Failure::NoSession("There is no session with this request.").into()
}

/// `GET /v1/status`: what this process is and holds, as of now.
///
/// # Errors
/// 503 when the database does not answer.
pub async fn status(State(app): State<App>) -> Result<Response, ApiFailure> {
    #[derive(Serialize)]
    struct Status {
        service: &'static str,
        version: &'static str,
        state: eduham_platform::serve::State,
        courses: i64,
        purges_pending: i64,
    }
    let status = Status {
        service: "learning",
        version: env!("CARGO_PKG_VERSION"),
        state: app.lifecycle.state(),
        courses: catalogue::count(&app.db).await?,
        purges_pending: crate::purging::pending(&app.db).await?,
    };
    let mut response = axum::Json(status).into_response();
    Caching::uncached().write(response.headers_mut());
    Ok(response)
}

/// Everything else below `/v1`.
pub async fn nothing_here() -> ApiFailure {
    Failure::NotFound("There is nothing at this path.").into()
}

async fn find(app: &App, name: &str) -> Result<Course, Failure> {
    catalogue::course(&app.db, name).await?.ok_or(Failure::NotFound("There is no course with this id or slug."))
}

fn json(caching: &Caching, headers: &HeaderMap, value: &impl Serialize) -> Result<Response, ApiFailure> {
    // Our own types: strings, numbers and lists of them, which serde_json always writes.
    let body = serde_json::to_vec(value).expect("plain data becomes JSON");
    Ok(caching.answer(headers, JSON, body))
}

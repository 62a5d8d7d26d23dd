//! The public pages: server-made HTML, the same for everybody, readable without scripts.

use askama::Template;
use axum::{
    extract::{Path, Query, State, rejection::QueryRejection},
    http::HeaderMap,
    response::Response,
};

use crate::{
    api::CatalogQuery,
    app::App,
    caching::Caching,
    catalogue::{self, Course, Lesson, LessonEntry, Module, Wanted},
    failure::{Failure, PageFailure},
    site_assets::{ICON, STYLE},
};

const HTML: &str = "text/html; charset=utf-8";
/// Courses on the front page.
const HOME_COURSES: u32 = 6;

/// What the layout needs.
#[derive(Clone, Debug)]
pub struct Site {
    pub(crate) style: String,
    pub(crate) icon: String,
}

impl Site {
    /// The site of this build.
    #[must_use]
    pub fn new() -> Self {
        Self { style: STYLE.url(), icon: ICON.url() }
    }
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Template)]
#[template(path = "home.html")]
struct Home {
    site: Site,
    courses: Vec<Course>,
}

#[derive(Template)]
#[template(path = "courses.html")]
struct Courses {
    site: Site,
    courses: Vec<Course>,
    next: Option<String>,
}

#[derive(Template)]
#[template(path = "course.html")]
struct CoursePage {
    site: Site,
    course: Course,
    modules: Vec<Module>,
    first: Option<LessonEntry>,
}

#[derive(Template)]
#[template(path = "lesson.html")]
struct LessonPage {
    site: Site,
    course: Course,
    modules: Vec<Module>,
    module: Place,
    lesson: Lesson,
    has_heading: bool,
    previous: Option<LessonEntry>,
    next: Option<LessonEntry>,
}

/// Where a lesson stands in its course; numbers count from 1.
struct Place {
    id: String,
    title: String,
    lesson_number: usize,
    lessons: usize,
}

/// `GET /`.
///
/// # Errors
/// 503 when the database does not answer.
pub async fn home(State(app): State<App>, headers: HeaderMap) -> Result<Response, PageFailure> {
    let wanted = Wanted { limit: HOME_COURSES, ..Wanted::default() };
    let courses = catalogue::courses(&app.db, &wanted).await?.items;
    let page = Home { site: Site::new(), courses }.render()?;
    Ok(Caching::catalog().answer(&headers, HTML, page))
}

/// `GET /courses?after`.
///
/// # Errors
/// 400 for a query that makes no sense.
pub async fn courses(
    State(app): State<App>,
    query: Result<Query<CatalogQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, PageFailure> {
    let Query(query) = query.map_err(|rejection| Failure::BadRequest(rejection.body_text()))?;
    let page = catalogue::courses(&app.db, &query.wanted()?).await?;
    let page = Courses { site: Site::new(), courses: page.items, next: page.next }.render()?;
    Ok(Caching::catalog().answer(&headers, HTML, page))
}

/// `GET /courses/{slug}`.
///
/// # Errors
/// 404.
pub async fn course(
    State(app): State<App>,
    Path(slug): Path<String>,
    headers: HeaderMap,
) -> Result<Response, PageFailure> {
    let course = find(&app, &slug).await?;
    let modules = catalogue::outline(&app.db, &course.id).await?;
    let first = modules.first().and_then(|module| module.lessons.first()).cloned();
    let caching = Caching::course(&course.id);
    let page = CoursePage { site: Site::new(), course, modules, first }.render()?;
    Ok(caching.answer(&headers, HTML, page))
}

/// `GET /courses/{slug}/lessons/{lesson}`.
///
/// # Errors
/// 404.
pub async fn lesson(
    State(app): State<App>,
    Path((slug, lesson)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, PageFailure> {
    let course = find(&app, &slug).await?;
    let found = catalogue::lesson_of_course(&app.db, &course.id, &lesson).await?;
    let lesson = found.ok_or(Failure::NotFound("This course has no such lesson."))?;
    let modules = catalogue::outline(&app.db, &course.id).await?;
    let order: Vec<&LessonEntry> = modules.iter().flat_map(|module| &module.lessons).collect();
    // Absent only when the course is published anew between the two queries; the page is purged a moment later.
    let at = order.iter().position(|entry| entry.id == lesson.entry.id).unwrap_or_default();
    let previous = at.checked_sub(1).and_then(|at| order.get(at)).map(|entry| (*entry).clone());
    let next = order.get(at + 1).map(|entry| (*entry).clone());
    let module = modules.iter().find(|module| module.lessons.iter().any(|entry| entry.id == lesson.entry.id));
    let module = Place {
        id: module.map(|module| module.id.clone()).unwrap_or_default(),
        title: module.map(|module| module.title.clone()).unwrap_or_default(),
        lesson_number: at + 1,
        lessons: order.len(),
    };
    let caching = Caching::lesson(&course.id, &lesson.entry.id);
    let has_heading = lesson.body.contains("<h1");
    let page =
        LessonPage { site: Site::new(), course, modules, module, lesson, has_heading, previous, next }.render()?;
    Ok(caching.answer(&headers, HTML, page))
}

/// Every other path.
pub async fn nothing_here() -> PageFailure {
    Failure::NotFound("There is no page at this address.").into()
}

/// A method that a path does not have.
pub async fn wrong_method() -> PageFailure {
    Failure::Method.into()
}

async fn find(app: &App, slug: &str) -> Result<Course, Failure> {
    let course = catalogue::course(&app.db, slug).await?;
    // Pages have one address: the id is for the API.
    course.filter(|course| course.slug == slug).ok_or(Failure::NotFound("There is no such course."))
}

//! The service put together: its parts and its routes.

use axum::{
    Router,
    http::{HeaderValue, header},
    middleware::{self, Next},
    response::Response,
    routing::get,
};
use eduham_platform::{db::Db, serve::Lifecycle};

use crate::{api, caching, media, objects::Objects, pages, site_assets};

/// What a page may load: its own origin's pictures, videos and styles, and no script at all.
const PAGE_CSP: &str = "default-src 'none'; img-src 'self' data:; media-src 'self'; style-src 'self'; font-src 'self'; \
                        base-uri 'none'; form-action 'self'; frame-ancestors 'self'";

/// The parts of the service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct App {
    /// What is published.
    pub db: Db,
    /// The files of what is published.
    pub objects: Objects,
    /// Where the process stands.
    pub lifecycle: Lifecycle,
}

/// All routes.
pub fn router(app: App) -> Router {
    let health = app.lifecycle.routes();
    Router::new()
        .route("/", get(pages::home))
        .route("/courses", get(pages::courses))
        .route("/courses/{slug}", get(pages::course))
        .route("/courses/{slug}/lessons/{lesson}", get(pages::lesson))
        .route("/media/{asset}/{sha256}/{file}", get(media::serve))
        .route("/assets/{file}", get(site_assets::serve))
        .route("/v1/catalog", get(api::catalog))
        .route("/v1/courses/{id}", get(api::course))
        .route("/v1/courses/{id}/modules", get(api::modules))
        .route("/v1/lessons/{id}", get(api::lesson))
        .route("/v1/me", get(api::me))
        .route("/v1/status", get(api::status))
        .route("/v1/{*rest}", axum::routing::any(api::nothing_here))
        .merge(health)
        .fallback(pages::nothing_here)
        .method_not_allowed_fallback(pages::wrong_method)
        .layer(middleware::from_fn(caching::uncached_unless_said))
        .layer(middleware::from_fn(guard))
        .with_state(app)
}

/// Fields that keep browsers from guessing types and from running what a page should not hold.
async fn guard(request: axum::extract::Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("strict-origin-when-cross-origin"));
    let is_page = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    if is_page {
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_CSP));
    }
    response
}

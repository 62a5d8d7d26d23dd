//! What goes wrong while answering, and how it is told: a page to a browser, problem JSON (RFC 9457) to a program.

use askama::Template;
use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use serde::Serialize;

use crate::{caching::Caching, objects::ObjectError, pages::Site};

/// Why there is no answer. Each is uncached.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// 404.
    #[error("{0}")]
    NotFound(&'static str),
    /// 400.
    #[error("{0}")]
    BadRequest(String),
    /// 401.
    #[error("{0}")]
    NoSession(&'static str),
    /// 403.
    #[error("{0}")]
    Forbidden(&'static str),
    /// 405.
    #[error("this method is not supported here")]
    Method,
    /// 503, since it may work again in a moment.
    #[error("the database does not answer")]
    Database(#[from] sqlx::Error),
    /// 500.
    #[error("a file of this course cannot be read")]
    Object(#[from] ObjectError),
    /// 500.
    #[error("the page cannot be made")]
    Template(#[from] askama::Error),
}

impl Failure {
    fn status(&self) -> StatusCode {
        match self {
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::NoSession(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Database(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Object(_) | Self::Template(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Says it to the operator, with the cause that a client is not shown.
    fn log(&self) {
        match self {
            Self::Database(error) => tracing::error!(%error, "the database does not answer"),
            Self::Object(error) => tracing::error!(%error, "an object cannot be read"),
            Self::Template(error) => tracing::error!(%error, "a template failed"),
            Self::NotFound(_) | Self::BadRequest(_) | Self::NoSession(_) | Self::Forbidden(_) | Self::Method => {}
        }
    }

    fn complete(&self, mut response: Response) -> Response {
        self.log();
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        Caching::uncached().write(headers);
        match self {
            Self::NoSession(_) => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Session"));
            }
            Self::Database(_) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

/// A failure told as problem JSON.
#[derive(Debug)]
pub struct ApiFailure(Failure);

impl<E: Into<Failure>> From<E> for ApiFailure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for ApiFailure {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Problem {
            r#type: &'static str,
            title: &'static str,
            status: u16,
            detail: String,
        }
        let status = self.0.status();
        let problem = Problem {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: self.0.to_string(),
        };
        let mut response = Json(problem).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        self.0.complete(response)
    }
}

/// A failure told as a page.
#[derive(Debug)]
pub struct PageFailure(Failure);

impl<E: Into<Failure>> From<E> for PageFailure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for PageFailure {
    fn into_response(self) -> Response {
        #[derive(Template)]
        #[template(path = "error.html")]
        struct Page {
            site: Site,
            status: u16,
            title: &'static str,
            detail: String,
        }
        let status = self.0.status();
        let title = status.canonical_reason().unwrap_or("Error");
        let page = Page { site: Site::new(), status: status.as_u16(), title, detail: self.0.to_string() };
        let response = match page.render() {
            Ok(page) => Html(page).into_response(),
            Err(_) => title.into_response(),
        };
        self.0.complete(response)
    }
}

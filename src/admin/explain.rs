//! `GET /explain?url=&method=&header=`: why a request would get what it would get now, and what is stored of its URL.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use http::StatusCode;

use super::{parts::Question, problem::Problem, server::Control};

/// What may be asked; `header` may stand several times.
const SHAPE: &str = "ask as /explain?url=http://HOST/PATH&method=GET&header=Name:%20value";

pub(super) async fn explain(
    State(control): State<Arc<Control>>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Json<serde_json::Value>, Problem> {
    let bad = |reason: String| Problem::new(StatusCode::BAD_REQUEST, format!("{reason}; {SHAPE}"));
    let Query(parameters) = query.map_err(|rejection| bad(rejection.body_text()))?;
    let mut question = Question { url: String::new(), method: http::Method::GET, headers: Vec::new() };
    for (name, value) in parameters {
        match name.as_str() {
            "url" => question.url = value,
            "method" => {
                let method = value.parse();
                question.method = method.map_err(|_| bad(format!("`{value}` is no method")))?;
            }
            "header" => question.headers.push(value),
            _ => return Err(bad(format!("`{name}` is no parameter"))),
        }
    }
    if question.url.is_empty() {
        return Err(bad("`url` is missing".to_owned()));
    }
    control.parts.explain.explain(question).await.map(Json).map_err(bad)
}

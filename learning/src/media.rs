//! `/media/{asset}/{sha256}/{file}`: pictures, videos and stylesheets of courses, whole or in part.

use std::io::SeekFrom;

use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use eduham_platform::clock::from_unix_ms;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use crate::{
    app::App,
    caching::Caching,
    catalogue,
    conditional::{self, Validators},
    failure::{Failure, PageFailure},
    objects::ObjectError,
    ranges::{self, Wanted},
};

/// Bytes read from a file at a time; what one reader holds in memory.
const CHUNK_BYTES: usize = 64 * 1024;

/// Serves one content of an asset. The same for GET and HEAD; the server leaves the body of the latter out.
///
/// # Errors
/// 404 for a URL that was never published: every part of it must be right.
pub async fn serve(
    State(app): State<App>,
    Path((asset, sha256, file)): Path<(String, String, String)>,
    request: HeaderMap,
) -> Result<Response, PageFailure> {
    let found = catalogue::asset_version(&app.db, &asset, &sha256, &file).await?;
    let version = found.ok_or(Failure::NotFound("There is no such file."))?;
    let validators =
        Validators { etag: format!("\"{sha256}\""), last_modified: Some(from_unix_ms(version.created_at)) };

    let mut response = if conditional::precondition_failed(&request, &validators) {
        StatusCode::PRECONDITION_FAILED.into_response()
    } else if conditional::not_modified(&request, &validators) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let range = request.get(header::RANGE).and_then(|field| field.to_str().ok());
        let range = range.filter(|_| conditional::range_holds(&request, &validators));
        match ranges::wanted(range, version.bytes) {
            Wanted::Whole => body(&app, &sha256, 0, version.bytes).await?,
            Wanted::Part(part) => {
                let length = part.end() - part.start() + 1;
                let mut response = body(&app, &sha256, *part.start(), length).await?;
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                let field = format!("bytes {}-{}/{}", part.start(), part.end(), version.bytes);
                insert(response.headers_mut(), header::CONTENT_RANGE, field);
                response
            }
            Wanted::Unsatisfiable => {
                let mut response = StatusCode::RANGE_NOT_SATISFIABLE.into_response();
                insert(response.headers_mut(), header::CONTENT_RANGE, format!("bytes */{}", version.bytes));
                // An error about this request, not the content: nobody keeps it.
                Caching::uncached().write(response.headers_mut());
                return Ok(response);
            }
        }
    };
    let headers = response.headers_mut();
    Caching::asset(&asset, &version.course_id).write(headers);
    validators.write(headers);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if response.status().is_success() {
        let headers = response.headers_mut();
        insert(headers, header::CONTENT_TYPE, version.mime);
        // A picture that is opened as a page of its own must not run as one (SVG can hold scripts).
        let sandbox = "default-src 'none'; style-src 'unsafe-inline'; sandbox";
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(sandbox));
    } else if response.status() == StatusCode::PRECONDITION_FAILED {
        Caching::uncached().write(response.headers_mut());
    }
    Ok(response)
}

/// `length` bytes of the object from `first` on, streamed.
async fn body(app: &App, sha256: &str, first: u64, length: u64) -> Result<Response, ObjectError> {
    let mut file = app.objects.open(sha256).await?;
    if first > 0 {
        let moved = file.seek(SeekFrom::Start(first)).await;
        moved.map_err(|source| app.objects.error(sha256, source))?;
    }
    let stream = ReaderStream::with_capacity(file.take(length), CHUNK_BYTES);
    let mut response = Body::from_stream(stream).into_response();
    insert(response.headers_mut(), header::CONTENT_LENGTH, length.to_string());
    Ok(response)
}

/// Inserts a value that we made of numbers and of media types from our own table.
fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

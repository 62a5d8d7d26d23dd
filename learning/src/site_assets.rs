//! The stylesheet and the icon of the site, under URLs that name their content.

use std::sync::LazyLock;

use axum::{extract::Path, http::HeaderMap, response::Response};

use crate::{
    caching::Caching,
    failure::{Failure, PageFailure},
    objects::sha256_hex,
};

/// A part of the site.
#[derive(Debug)]
pub struct SiteAsset {
    /// The last segment of its URL: `{name}-{hash}.{ext}`.
    pub file: String,
    media_type: &'static str,
    content: &'static str,
}

impl SiteAsset {
    fn new(name: &str, extension: &str, media_type: &'static str, content: &'static str) -> Self {
        let file = format!("{name}-{}.{extension}", &sha256_hex(content.as_bytes())[..12]);
        Self { file, media_type, content }
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("/assets/{}", self.file)
    }
}

/// The one stylesheet.
pub static STYLE: LazyLock<SiteAsset> =
    LazyLock::new(|| SiteAsset::new("site", "css", "text/css; charset=utf-8", include_str!("../static/site.css")));
/// The icon.
pub static ICON: LazyLock<SiteAsset> =
    LazyLock::new(|| SiteAsset::new("icon", "svg", "image/svg+xml", include_str!("../static/icon.svg")));

/// `GET /assets/{file}`.
///
/// # Errors
/// Another name, such as that of an earlier build: 404.
pub async fn serve(Path(file): Path<String>, headers: HeaderMap) -> Result<Response, PageFailure> {
    let assets: [&SiteAsset; 2] = [&STYLE, &ICON];
    let asset = assets.into_iter().find(|asset| asset.file == file);
    let asset = asset.ok_or(Failure::NotFound("There is no such file."))?;
    Ok(Caching::web().answer(&headers, asset.media_type, asset.content))
}

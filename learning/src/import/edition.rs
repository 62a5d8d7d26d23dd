//! A draft with everything resolved: lessons as they will be served, files kept, links turned into URLs.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::{
    ImportError, Problem,
    draft::{Content, Draft},
    folder::{self, Folder, Reference, media_type},
    html::{self, Use},
    manifest::hint,
    publish::Identities,
    stylesheet,
};
use crate::objects::{Object, ObjectError, Objects, sha256_hex};

/// Files of one course, at most.
const ASSETS_MAX: usize = 10_000;
/// Bytes of one file, at most.
const ASSET_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// How deep stylesheets may import each other.
const IMPORTS_DEPTH_MAX: usize = 8;

/// What stays as it is in the last segment of a media URL.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A course as it will be published. Its JSON form is what [`Edition::digest`] is made of.
#[derive(Debug, Serialize)]
pub struct Edition {
    /// Its id.
    pub id: String,
    /// Its name in URLs.
    pub slug: String,
    /// For people.
    pub title: String,
    /// One or two sentences.
    pub summary: String,
    /// The URL of a picture.
    pub cover: Option<String>,
    /// In order.
    pub modules: Vec<ModuleEdition>,
    /// By their path.
    pub assets: BTreeMap<String, AssetEdition>,
    /// The version that is published now; none for a new course.
    #[serde(skip)]
    pub replaces: Option<Published>,
    /// What was left out or looks wrong.
    #[serde(skip)]
    pub warnings: Vec<Problem>,
}

/// What is published of a course.
#[derive(Clone, Debug)]
pub struct Published {
    /// Its version.
    pub version: i64,
    /// Its digest.
    pub digest: String,
}

/// A module as it will be published.
#[derive(Debug, Serialize)]
pub struct ModuleEdition {
    /// Its id.
    pub id: String,
    /// For people.
    pub title: String,
    /// In order.
    pub lessons: Vec<LessonEdition>,
}

/// A lesson as it will be published.
#[derive(Debug, Serialize)]
pub struct LessonEdition {
    /// Its id.
    pub id: String,
    /// Its file.
    pub source: String,
    /// Its name in URLs.
    pub slug: String,
    /// For people.
    pub title: String,
    /// `text` or `video`.
    pub kind: &'static str,
    /// Whether anybody may read it.
    pub free_preview: bool,
    /// URLs of its stylesheets.
    pub styles: Vec<String>,
    /// Sanitised HTML.
    pub body: String,
}

/// A file as it will be published.
#[derive(Clone, Debug, Serialize)]
pub struct AssetEdition {
    /// Its id.
    pub id: String,
    /// SHA-256 of its content in hex.
    pub sha256: String,
    /// The last segment of its URL, decoded.
    pub file: String,
    /// Its media type.
    pub mime: &'static str,
    /// Its length.
    pub bytes: u64,
}

impl AssetEdition {
    fn url(&self) -> String {
        format!("/media/{}/{}/{}", self.id, self.sha256, utf8_percent_encode(&self.file, SEGMENT))
    }
}

impl Edition {
    /// A hash of everything that will be published: equal for equal content.
    #[must_use]
    pub fn digest(&self) -> String {
        // Strings, numbers, lists and a map with string keys, which serde_json always writes.
        sha256_hex(&serde_json::to_vec(self).expect("plain data becomes JSON"))
    }
}

/// Resolves a draft. Blocking: files are read and kept.
///
/// # Errors
/// All references of a strict draft that lead nowhere; files that cannot be kept.
pub fn make(
    folder: Folder,
    draft: Draft,
    identities: Identities,
    objects: &Objects,
    now: SystemTime,
) -> Result<Edition, ImportError> {
    let lessons = draft.lessons().map(|lesson| (lesson.source.clone(), lesson.slug.clone())).collect();
    let resolver = Arc::new(Mutex::new(Resolver {
        folder,
        slug: draft.slug.clone(),
        lessons,
        identities,
        objects: objects.clone(),
        now,
        assets: BTreeMap::new(),
        in_work: HashSet::new(),
        problems: Vec::new(),
        failed: None,
    }));

    let cover = draft.cover.as_deref().and_then(|cover| lock(&resolver).asset("course.yaml", cover));
    let mut modules = Vec::with_capacity(draft.modules.len());
    for module in draft.modules {
        let mut lessons = Vec::with_capacity(module.lessons.len());
        for lesson in module.lessons {
            let id = lock(&resolver).identities.lesson(&lesson.source, now);
            let styles =
                lesson.styles.iter().filter_map(|style| lock(&resolver).asset(&lesson.source, style)).collect();
            let body = match lesson.content {
                Content::Video(path) => {
                    let url = lock(&resolver).asset(&lesson.source, &path).unwrap_or_default();
                    format!("<figure><video controls=\"\" preload=\"metadata\" src=\"{url}\"></video></figure>")
                }
                Content::Html(text) => {
                    let (resolver, source) = (Arc::clone(&resolver), lesson.source.clone());
                    html::clean(&text, move |href, usage| lock(&resolver).reference(&source, href, usage))
                }
            };
            let kind = if body.contains("<video") { "video" } else { "text" };
            let (source, slug, title, free_preview) = (lesson.source, lesson.slug, lesson.title, lesson.free_preview);
            lessons.push(LessonEdition { id, source, slug, title, kind, free_preview, styles, body });
        }
        let id = lock(&resolver).identities.module(&module.title, now);
        modules.push(ModuleEdition { id, title: module.title, lessons });
    }

    let mut resolver = lock(&resolver);
    if let Some(error) = resolver.failed.take() {
        return Err(error.into());
    }
    let mut problems = std::mem::take(&mut resolver.problems);
    if draft.strict && !problems.is_empty() {
        return Err(problems.into());
    }
    problems.sort();
    problems.dedup();
    Ok(Edition {
        id: resolver.identities.course_id.clone(),
        slug: draft.slug,
        title: draft.title,
        summary: draft.summary,
        cover,
        modules,
        assets: std::mem::take(&mut resolver.assets),
        replaces: resolver.identities.published.clone(),
        warnings: problems,
    })
}

/// The cleaner wants a closure that may outlive this function and cross threads, hence the lock; it does neither.
fn lock(resolver: &Mutex<Resolver>) -> std::sync::MutexGuard<'_, Resolver> {
    resolver.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Resolver {
    folder: Folder,
    slug: String,
    /// Slugs by file.
    lessons: HashMap<String, String>,
    identities: Identities,
    objects: Objects,
    now: SystemTime,
    assets: BTreeMap<String, AssetEdition>,
    /// Stylesheets that are being read: one may import itself.
    in_work: HashSet<String>,
    problems: Vec<Problem>,
    /// The first file that could not be kept.
    failed: Option<ObjectError>,
}

impl Resolver {
    /// What stands in the place of `href` in the file `from`.
    fn reference(&mut self, from: &str, href: &str, usage: Use) -> Option<String> {
        match (folder::resolve(from, href), usage) {
            (Reference::Here, Use::Link) => Some(href.to_owned()),
            (Reference::Elsewhere, Use::Link) => Some(href.to_owned()),
            (Reference::Here, Use::Embed) => None,
            (Reference::Elsewhere, Use::Embed) => {
                let what = format!("shows {href:?} from another server; put the file into the folder");
                self.problems.push(Problem::new(from, what));
                None
            }
            (Reference::Wrong(why), _) => {
                self.problems.push(Problem::new(from, format!("refers to {href:?}, which {why}")));
                None
            }
            (Reference::Path { path, fragment }, Use::Link) => match self.lessons.get(&path) {
                Some(lesson) => Some(format!("/courses/{}/lessons/{lesson}{fragment}", self.slug)),
                // The folder itself, or its index, stands for the course.
                None if path.is_empty() => Some(format!("/courses/{}{fragment}", self.slug)),
                None => self.asset(from, &path).map(|url| url + &fragment),
            },
            (Reference::Path { path, fragment }, Use::Embed) => self.asset(from, &path).map(|url| url + &fragment),
        }
    }

    /// The URL of the file at `path`, to which `from` refers.
    fn asset(&mut self, from: &str, path: &str) -> Option<String> {
        if let Some(asset) = self.assets.get(path) {
            return Some(asset.url());
        }
        match self.keep(path) {
            Ok(asset) => {
                let url = asset.url();
                self.assets.insert(path.to_owned(), asset);
                Some(url)
            }
            Err(Unkept::Problem(why)) => {
                self.problems.push(Problem::new(from, format!("refers to {path:?}: {why}{}", hint(path))));
                None
            }
            Err(Unkept::Failed(error)) => {
                self.failed.get_or_insert(error);
                None
            }
        }
    }

    fn keep(&mut self, path: &str) -> Result<AssetEdition, Unkept> {
        let found = self.folder.locate(path)?;
        let Some(mime) = media_type(path) else {
            let what = format!("this kind of file cannot be shown; a course may hold {}", folder::known_extensions());
            return Err(what.into());
        };
        if self.assets.len() >= ASSETS_MAX {
            return Err(format!("the course has more than {ASSETS_MAX} files").into());
        }
        let bytes = std::fs::metadata(&found).map_err(|error| format!("it cannot be read: {error}"))?.len();
        if bytes == 0 {
            return Err("the file is empty".to_owned().into());
        }
        if bytes > ASSET_BYTES_MAX {
            return Err(format!("the file has {bytes} bytes, at most {ASSET_BYTES_MAX} are kept").into());
        }
        let object = if mime.starts_with("text/css") {
            self.keep_stylesheet(path)?
        } else {
            self.objects.keep_file(&found, self.now)?
        };
        let Object { sha256, bytes } = object;
        let file = path.rsplit('/').next().unwrap_or(path).to_owned();
        Ok(AssetEdition { id: self.identities.asset(path, self.now), sha256, file, mime, bytes })
    }

    fn keep_stylesheet(&mut self, path: &str) -> Result<Object, Unkept> {
        if self.in_work.len() >= IMPORTS_DEPTH_MAX || !self.in_work.insert(path.to_owned()) {
            return Err("stylesheets import each other in a circle or too deep".to_owned().into());
        }
        let confined = self.folder.text(path).map_err(|problem| problem.what).map(|css| {
            stylesheet::confine(&css, &mut |href| match folder::resolve(path, href) {
                // Data URLs carry their content with them.
                Reference::Elsewhere if href.starts_with("data:") => Some(href.to_owned()),
                Reference::Here => Some(href.to_owned()),
                _ => self.reference(path, href, Use::Embed),
            })
        });
        self.in_work.remove(path);
        Ok(self.objects.keep_bytes(confined?.as_bytes(), self.now)?)
    }
}

/// Why a file was not kept.
enum Unkept {
    /// The folder's fault.
    Problem(String),
    /// The objects' directory.
    Failed(ObjectError),
}

impl From<String> for Unkept {
    fn from(why: String) -> Self {
        Self::Problem(why)
    }
}

impl From<ObjectError> for Unkept {
    fn from(error: ObjectError) -> Self {
        Self::Failed(error)
    }
}

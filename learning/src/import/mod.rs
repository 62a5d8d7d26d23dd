//! Publishing a folder of files as a course.
//!
//! Two kinds of folders are understood. One with a `course.yaml` is a course by intent: it names its modules, lessons and
//! cover, and everything that it gets wrong is an error ([`manifest`]). One without is a book of HTML pages made
//! elsewhere: its table of contents becomes the modules, each page a lesson, and what it gets wrong is a warning
//! ([`html_folder`]).
//!
//! Both make a [`draft::Draft`]. The draft becomes an [`edition::Edition`]: Markdown is rendered ([`markdown`]), HTML
//! cleaned of everything that runs ([`html`]), stylesheets confined to the lesson ([`stylesheet`]), files kept by their
//! content, and every link between them turned into a URL of this site. Then [`publish`] writes all of it, and what
//! edges must forget, in one transaction. Until that transaction commits nothing is visible, and a folder that is
//! refused changes nothing.
//!
//! What was published before keeps its ids, file by file, so that links from outside stay right. The same folder again
//! is not a new version.

pub mod draft;
pub mod folder;

pub mod html_folder;
pub mod manifest;

pub mod html;
pub mod markdown;
pub mod stylesheet;

pub mod edition;
pub mod publish;

use std::{path::Path, time::SystemTime};

use eduham_platform::db::Db;

use crate::objects::{ObjectError, Objects};

/// Something in the folder that is wrong.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, thiserror::Error)]
#[error("{place}: {what}")]
pub struct Problem {
    /// The file, relative to the folder.
    pub place: String,
    /// What is wrong with it and what to do.
    pub what: String,
}

impl Problem {
    /// `what` is wrong in `place`.
    pub fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }
}

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The folder cannot be used; all that is wrong with it.
    #[error("the course was not published, nothing has changed:\n{}", .0.iter().map(|p| format!("  - {p}")).collect::<Vec<_>>().join("\n"))]
    Refused(Vec<Problem>),
    /// Another import of this course was faster.
    #[error("the course was published by somebody else at the same moment; nothing of this import was kept, try again")]
    Conflict,
    /// The objects' directory.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The database.
    #[error("the database refused: {0}")]
    Database(#[from] sqlx::Error),
    /// The reading task failed.
    #[error("reading the folder failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl From<Vec<Problem>> for ImportError {
    fn from(mut problems: Vec<Problem>) -> Self {
        problems.sort();
        problems.dedup();
        Self::Refused(problems)
    }
}

/// What an import did.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The course.
    pub course_id: String,
    /// Its name in URLs.
    pub slug: String,
    /// The version that is published now.
    pub version: i64,
    /// Whether this import published it.
    pub published: bool,
    /// How much there is.
    pub modules: usize,
    /// Of all modules.
    pub lessons: usize,
    /// Pictures, videos, stylesheets.
    pub files: usize,
    /// Their length together.
    pub bytes: u64,
    /// What was left out or looks wrong.
    pub warnings: Vec<Problem>,
}

/// Publishes the course in `folder`, under `slug` where one is given.
///
/// # Errors
/// See [`ImportError`]; nothing is visible then.
pub async fn import(
    db: &Db,
    objects: &Objects,
    folder: &Path,
    slug: Option<String>,
    now: SystemTime,
) -> Result<Outcome, ImportError> {
    let path = folder.to_owned();
    let (folder, draft) = tokio::task::spawn_blocking(move || {
        let folder = folder::Folder::open(&path)?;
        let draft =
            if folder.has(manifest::FILE) { manifest::read(&folder, slug)? } else { html_folder::read(&folder, slug)? };
        Ok::<_, ImportError>((folder, draft))
    })
    .await??;

    let identities = publish::identities(db, &draft, now).await?;
    let objects = objects.clone();
    let edition =
        tokio::task::spawn_blocking(move || edition::make(folder, draft, identities, &objects, now)).await??;
    publish::publish(db, edition, now).await
}

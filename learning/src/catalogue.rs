//! What is published, as the pages and the API ask for it.

use eduham_platform::db::Db;
use serde::Serialize;
use sqlx::{Row, any::AnyRow};

/// Courses on one page of the catalogue, at most: what a reader scrolls and an edge stores well.
pub const PAGE_MAX: u32 = 100;
/// Courses on one page when nobody says how many.
pub const PAGE_DEFAULT: u32 = 20;
/// Bytes of a search text; longer ones find nothing that a shorter one would not.
pub const SEARCH_BYTES_MAX: usize = 100;

/// A published course.
#[derive(Clone, Debug, Serialize)]
pub struct Course {
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
    /// How often it was published.
    pub version: i64,
    /// When it was published last, in milliseconds since 1970.
    pub published_at: i64,
    /// How many lessons it has.
    pub lessons: i64,
}

/// One module and its lessons, without their text.
#[derive(Clone, Debug, Serialize)]
pub struct Module {
    /// Its id.
    pub id: String,
    /// For people.
    pub title: String,
    /// In order.
    pub lessons: Vec<LessonEntry>,
}

/// A lesson as the outline shows it.
#[derive(Clone, Debug, Serialize)]
pub struct LessonEntry {
    /// Its id.
    pub id: String,
    /// Its name in URLs, within its course.
    pub slug: String,
    /// For people.
    pub title: String,
    /// `text` or `video`.
    pub kind: String,
    /// Whether anybody may read it.
    pub free_preview: bool,
}

/// A lesson with its text.
#[derive(Clone, Debug, Serialize)]
pub struct Lesson {
    /// What the outline shows.
    #[serde(flatten)]
    pub entry: LessonEntry,
    /// The course it belongs to.
    pub course_id: String,
    /// URLs of the stylesheets made for it.
    pub styles: Vec<String>,
    /// Sanitised HTML.
    pub body: String,
}

/// One content of an asset.
#[derive(Clone, Debug)]
pub struct AssetVersion {
    /// The course it belongs to.
    pub course_id: String,
    /// Its media type.
    pub mime: String,
    /// Its length.
    pub bytes: u64,
    /// When it was first published, in milliseconds since 1970.
    pub created_at: i64,
}

/// Which courses are wanted.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Words of title or summary.
    pub search: Option<String>,
    /// The id of the last course already seen.
    pub after: Option<String>,
    /// How many, at most [`PAGE_MAX`]; 0 means [`PAGE_DEFAULT`].
    pub limit: u32,
}

/// Some courses.
#[derive(Clone, Debug, Serialize)]
pub struct Page {
    /// The newest first.
    pub items: Vec<Course>,
    /// What to give as `after` for the next ones; none at the end.
    pub next: Option<String>,
}

/// A statement that yields what [`course_of`] reads.
macro_rules! select_course {
    ($where:literal) => {
        concat!(
            "SELECT c.id, c.slug, c.title, c.summary, c.cover, c.version, c.published_at, ",
            "(SELECT COUNT(*) FROM lessons l WHERE l.course_id = c.id) AS lessons FROM courses c ",
            $where
        )
    };
}

/// A page of the catalogue, newest course first.
///
/// # Errors
/// What the database says.
pub async fn courses(db: &Db, wanted: &Wanted) -> Result<Page, sqlx::Error> {
    let limit = if wanted.limit == 0 { PAGE_DEFAULT } else { wanted.limit.min(PAGE_MAX) };
    // Ids are hex digits and ascend with time; `g` sorts behind every one of them, in any collation.
    let after = wanted.after.as_deref().unwrap_or("g");
    let pattern = wanted.search.as_deref().map_or_else(|| "%".to_owned(), like_pattern);
    let sql = select_course!("WHERE c.id < $1 AND c.search LIKE $2 ESCAPE '!' ORDER BY c.id DESC LIMIT $3");
    let rows = sqlx::query(sql).bind(after).bind(pattern).bind(i64::from(limit) + 1).fetch_all(db.reader()).await?;
    let mut items = rows.iter().map(course_of).collect::<Result<Vec<_>, _>>()?;
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next = if more { items.last().map(|course| course.id.clone()) } else { None };
    Ok(Page { items, next })
}

/// The course with this slug or id.
///
/// # Errors
/// What the database says.
pub async fn course(db: &Db, name: &str) -> Result<Option<Course>, sqlx::Error> {
    let sql = select_course!("WHERE c.slug = $1 OR c.id = $1");
    let row = sqlx::query(sql).bind(name).fetch_optional(db.reader()).await?;
    row.as_ref().map(course_of).transpose()
}

/// The modules of a course with their lessons, in order.
///
/// # Errors
/// What the database says.
pub async fn outline(db: &Db, course_id: &str) -> Result<Vec<Module>, sqlx::Error> {
    let sql = "SELECT m.id AS module_id, m.title AS module_title, l.id, l.slug, l.title, l.kind, l.free_preview \
               FROM modules m JOIN lessons l ON l.module_id = m.id WHERE m.course_id = $1 ORDER BY l.pos";
    let mut modules: Vec<Module> = Vec::new();
    for row in sqlx::query(sql).bind(course_id).fetch_all(db.reader()).await? {
        let id: String = row.try_get("module_id")?;
        let entry = entry_of(&row)?;
        match modules.last_mut() {
            Some(module) if module.id == id => module.lessons.push(entry),
            _ => modules.push(Module { id, title: row.try_get("module_title")?, lessons: vec![entry] }),
        }
    }
    Ok(modules)
}

/// The lesson of this course with this slug.
///
/// # Errors
/// What the database says.
pub async fn lesson_of_course(db: &Db, course_id: &str, slug: &str) -> Result<Option<Lesson>, sqlx::Error> {
    let sql = "SELECT id, slug, title, kind, free_preview, course_id, styles, body FROM lessons \
               WHERE course_id = $1 AND slug = $2";
    let row = sqlx::query(sql).bind(course_id).bind(slug).fetch_optional(db.reader()).await?;
    row.as_ref().map(lesson_of).transpose()
}

/// The lesson with this id.
///
/// # Errors
/// What the database says.
pub async fn lesson(db: &Db, id: &str) -> Result<Option<Lesson>, sqlx::Error> {
    let sql = "SELECT id, slug, title, kind, free_preview, course_id, styles, body FROM lessons WHERE id = $1";
    let row = sqlx::query(sql).bind(id).fetch_optional(db.reader()).await?;
    row.as_ref().map(lesson_of).transpose()
}

/// What is published under `/media/{asset}/{sha256}/{file}`.
///
/// # Errors
/// What the database says.
pub async fn asset_version(
    db: &Db,
    asset: &str,
    sha256: &str,
    file: &str,
) -> Result<Option<AssetVersion>, sqlx::Error> {
    let sql = "SELECT a.course_id, v.mime, v.bytes, v.created_at FROM asset_versions v JOIN assets a ON a.id = v.asset_id \
               WHERE v.asset_id = $1 AND v.sha256 = $2 AND v.file = $3";
    let row = sqlx::query(sql).bind(asset).bind(sha256).bind(file).fetch_optional(db.reader()).await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(AssetVersion {
        course_id: row.try_get("course_id")?,
        mime: row.try_get("mime")?,
        bytes: u64::try_from(row.try_get::<i64, _>("bytes")?).unwrap_or_default(),
        created_at: row.try_get("created_at")?,
    }))
}

/// How many courses are published.
///
/// # Errors
/// What the database says.
pub async fn count(db: &Db) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT COUNT(*) FROM courses").fetch_one(db.reader()).await
}

fn course_of(row: &AnyRow) -> Result<Course, sqlx::Error> {
    Ok(Course {
        id: row.try_get("id")?,
        slug: row.try_get("slug")?,
        title: row.try_get("title")?,
        summary: row.try_get("summary")?,
        cover: row.try_get("cover")?,
        version: row.try_get("version")?,
        published_at: row.try_get("published_at")?,
        lessons: row.try_get("lessons")?,
    })
}

fn entry_of(row: &AnyRow) -> Result<LessonEntry, sqlx::Error> {
    Ok(LessonEntry {
        id: row.try_get("id")?,
        slug: row.try_get("slug")?,
        title: row.try_get("title")?,
        kind: row.try_get("kind")?,
        free_preview: row.try_get::<i64, _>("free_preview")? != 0,
    })
}

fn lesson_of(row: &AnyRow) -> Result<Lesson, sqlx::Error> {
    Ok(Lesson {
        entry: entry_of(row)?,
        course_id: row.try_get("course_id")?,
        styles: row.try_get::<String, _>("styles")?.split_whitespace().map(str::to_owned).collect(),
        body: row.try_get("body")?,
    })
}

/// A LIKE pattern, with `!` as its escape, that finds `text` anywhere in a lower-cased column.
fn like_pattern(text: &str) -> String {
    let mut pattern = String::from("%");
    for character in text.to_lowercase().chars() {
        if matches!(character, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_text_is_data_not_a_pattern() {
        assert_eq!(like_pattern("50% Off_Now!"), "%50!% off!_now!!%");
    }
}

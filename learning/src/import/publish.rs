//! The database's side of an import: who is who, and the one transaction that publishes.

use std::{collections::HashMap, time::SystemTime};

use eduham_platform::{clock::unix_ms, db::Db, ids::new_id};
use sqlx::{Any, Row, Transaction};

use super::{
    ImportError, Outcome,
    draft::Draft,
    edition::{Edition, Published},
};
use crate::{caching, purging};

/// Ids that the course has already, by what they belong to. New ones are made as they are asked for.
#[derive(Clone, Debug)]
pub struct Identities {
    /// Of the course.
    pub course_id: String,
    /// What is published of it.
    pub published: Option<Published>,
    modules: HashMap<String, Vec<String>>,
    lessons: HashMap<String, String>,
    assets: HashMap<String, String>,
}

impl Identities {
    /// The id of the lesson made from this file.
    pub fn lesson(&mut self, source: &str, now: SystemTime) -> String {
        self.lessons.entry(source.to_owned()).or_insert_with(|| new_id(now)).clone()
    }

    /// The id of this file.
    pub fn asset(&mut self, source: &str, now: SystemTime) -> String {
        self.assets.entry(source.to_owned()).or_insert_with(|| new_id(now)).clone()
    }

    /// The id of the next module with this title: several may have the same.
    pub fn module(&mut self, title: &str, now: SystemTime) -> String {
        let known = self.modules.get_mut(title).filter(|ids| !ids.is_empty());
        known.map(|ids| ids.remove(0)).unwrap_or_else(|| new_id(now))
    }
}

/// Looks up what the course of this draft is known by.
///
/// # Errors
/// What the database says.
pub async fn identities(db: &Db, draft: &Draft, now: SystemTime) -> Result<Identities, sqlx::Error> {
    let course = "SELECT id, version, digest FROM courses WHERE slug = $1";
    let row = sqlx::query(course).bind(&draft.slug).fetch_optional(db.reader()).await?;
    let Some(row) = row else {
        return Ok(Identities {
            course_id: new_id(now),
            published: None,
            modules: HashMap::new(),
            lessons: HashMap::new(),
            assets: HashMap::new(),
        });
    };
    let course_id: String = row.try_get("id")?;
    let published = Some(Published { version: row.try_get("version")?, digest: row.try_get("digest")? });

    let mut modules: HashMap<String, Vec<String>> = HashMap::new();
    let sql = "SELECT id, title FROM modules WHERE course_id = $1 ORDER BY pos";
    for row in sqlx::query(sql).bind(&course_id).fetch_all(db.reader()).await? {
        modules.entry(row.try_get("title")?).or_default().push(row.try_get("id")?);
    }
    let lessons = sources(db, "SELECT source, id FROM lessons WHERE course_id = $1", &course_id).await?;
    let assets = sources(db, "SELECT source, id FROM assets WHERE course_id = $1", &course_id).await?;
    Ok(Identities { course_id, published, modules, lessons, assets })
}

async fn sources(db: &Db, sql: &'static str, course_id: &str) -> Result<HashMap<String, String>, sqlx::Error> {
    let rows = sqlx::query(sql).bind(course_id).fetch_all(db.reader()).await?;
    rows.iter().map(|row| Ok((row.try_get("source")?, row.try_get("id")?))).collect()
}

/// Publishes: the course, its files, and what edges must forget, all or nothing.
///
/// # Errors
/// [`ImportError::Conflict`] when the course is no longer the one that the edition replaces.
pub async fn publish(db: &Db, mut edition: Edition, now: SystemTime) -> Result<Outcome, ImportError> {
    let digest = edition.digest();
    let warnings = std::mem::take(&mut edition.warnings);
    let mut outcome = Outcome {
        course_id: edition.id.clone(),
        slug: edition.slug.clone(),
        version: edition.replaces.as_ref().map_or(1, |published| published.version + 1),
        published: true,
        modules: edition.modules.len(),
        lessons: edition.modules.iter().map(|module| module.lessons.len()).sum(),
        files: edition.assets.len(),
        bytes: edition.assets.values().map(|asset| asset.bytes).sum(),
        warnings,
    };
    if let Some(published) = edition.replaces.as_ref().filter(|published| published.digest == digest) {
        outcome.version = published.version;
        outcome.published = false;
        return Ok(outcome);
    }

    let now_ms = unix_ms(now);
    let mut transaction = db.begin().await?;
    match write_course(&mut transaction, &edition, outcome.version, &digest, now_ms).await {
        Ok(true) => {}
        // Dropping the transaction takes everything back.
        Ok(false) => return Err(ImportError::Conflict),
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => return Err(ImportError::Conflict),
        Err(error) => return Err(error.into()),
    }
    write_lessons(&mut transaction, &edition).await?;
    write_assets(&mut transaction, &edition, now_ms).await?;
    purging::enqueue(&mut transaction, &caching::keys_of_publication(&edition.id), now).await?;
    transaction.commit().await?;
    Ok(outcome)
}

/// Whether the course was still the one that is replaced.
async fn write_course(
    transaction: &mut Transaction<'_, Any>,
    edition: &Edition,
    version: i64,
    digest: &str,
    now_ms: i64,
) -> Result<bool, sqlx::Error> {
    let search = format!("{} {}", edition.title, edition.summary).to_lowercase();
    let sql = if edition.replaces.is_none() {
        "INSERT INTO courses (id, slug, title, summary, search, cover, version, digest, published_at, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)"
    } else {
        // The slug is bound and compared so that both statements take the same values.
        "UPDATE courses SET title = $3, summary = $4, search = $5, cover = $6, version = $7, digest = $8, \
         published_at = $9 WHERE id = $1 AND slug = $2 AND version = $7 - 1"
    };
    let written = sqlx::query(sql)
        .bind(&edition.id)
        .bind(&edition.slug)
        .bind(&edition.title)
        .bind(&edition.summary)
        .bind(search)
        .bind(edition.cover.as_deref())
        .bind(version)
        .bind(digest)
        .bind(now_ms)
        .execute(&mut **transaction)
        .await?;
    Ok(written.rows_affected() == 1)
}

async fn write_lessons(transaction: &mut Transaction<'_, Any>, edition: &Edition) -> Result<(), sqlx::Error> {
    for sql in ["DELETE FROM lessons WHERE course_id = $1", "DELETE FROM modules WHERE course_id = $1"] {
        sqlx::query(sql).bind(&edition.id).execute(&mut **transaction).await?;
    }
    let mut lesson_pos: i64 = 0;
    for (pos, module) in (0_i64..).zip(&edition.modules) {
        sqlx::query("INSERT INTO modules (id, course_id, pos, title) VALUES ($1, $2, $3, $4)")
            .bind(&module.id)
            .bind(&edition.id)
            .bind(pos)
            .bind(&module.title)
            .execute(&mut **transaction)
            .await?;
        for lesson in &module.lessons {
            let sql = "INSERT INTO lessons (id, course_id, module_id, pos, source, slug, title, kind, free_preview, \
                       styles, body) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
            sqlx::query(sql)
                .bind(&lesson.id)
                .bind(&edition.id)
                .bind(&module.id)
                .bind(lesson_pos)
                .bind(&lesson.source)
                .bind(&lesson.slug)
                .bind(&lesson.title)
                .bind(lesson.kind)
                .bind(i64::from(lesson.free_preview))
                .bind(lesson.styles.join(" "))
                .bind(&lesson.body)
                .execute(&mut **transaction)
                .await?;
            lesson_pos += 1;
        }
    }
    Ok(())
}

async fn write_assets(
    transaction: &mut Transaction<'_, Any>,
    edition: &Edition,
    now_ms: i64,
) -> Result<(), sqlx::Error> {
    for (source, asset) in &edition.assets {
        sqlx::query("INSERT INTO assets (id, course_id, source) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING")
            .bind(&asset.id)
            .bind(&edition.id)
            .bind(source)
            .execute(&mut **transaction)
            .await?;
        let sql = "INSERT INTO asset_versions (asset_id, sha256, file, mime, bytes, created_at) \
                   VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (asset_id, sha256, file) DO NOTHING";
        sqlx::query(sql)
            .bind(&asset.id)
            .bind(&asset.sha256)
            .bind(&asset.file)
            .bind(asset.mime)
            .bind(i64::try_from(asset.bytes).unwrap_or(i64::MAX))
            .bind(now_ms)
            .execute(&mut **transaction)
            .await?;
    }
    Ok(())
}

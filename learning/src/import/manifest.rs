//! A folder with a `course.yaml`.
//!
//! ```yaml
//! slug: how-the-web-stays-fast      # optional: made of the title
//! title: How the web stays fast
//! summary: What happens between a click and a page.
//! cover: pictures/cover.svg         # optional
//! modules:
//!   - title: Distance
//!     lessons:
//!       - 01-distance.md
//!       - { file: media/intro.webm, title: A short film, free_preview: false }
//! ```
//!
//! A lesson is a Markdown file, an HTML page or a video. Its title is `title`, else its first heading.

use serde::Deserialize;

use super::{
    ImportError, Problem,
    draft::{self, Content, Draft, LESSONS_MAX, LessonDraft, ModuleDraft, SUMMARY_BYTES_MAX, TITLE_BYTES_MAX},
    folder::{self, Folder, Reference, extension, is_page, is_picture, is_video},
    html, markdown,
};

/// The file that makes a folder a course.
pub const FILE: &str = "course.yaml";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    slug: Option<String>,
    title: String,
    summary: String,
    cover: Option<String>,
    modules: Vec<ModuleEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModuleEntry {
    title: String,
    lessons: Vec<LessonEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a file name or { file, title, free_preview }")]
enum LessonEntry {
    File(String),
    Described(DescribedLesson),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DescribedLesson {
    file: String,
    title: Option<String>,
    free_preview: Option<bool>,
}

/// Reads the folder.
///
/// # Errors
/// Everything that is wrong with `course.yaml` and the files that it names.
pub fn read(folder: &Folder, slug: Option<String>) -> Result<Draft, ImportError> {
    let text = folder.text(FILE).map_err(|problem| vec![problem])?;
    let manifest: Manifest =
        serde_yaml::from_str(&text).map_err(|error| vec![Problem::new(FILE, error.to_string())])?;
    let mut reader = Reader { folder, problems: Vec::new(), slugs: Vec::new() };
    let draft = reader.draft(manifest, slug);
    if reader.problems.is_empty() { Ok(draft) } else { Err(reader.problems.into()) }
}

struct Reader<'a> {
    folder: &'a Folder,
    problems: Vec<Problem>,
    /// Of the lessons so far, with their file.
    slugs: Vec<(String, String)>,
}

impl Reader<'_> {
    fn draft(&mut self, manifest: Manifest, slug: Option<String>) -> Draft {
        let title = self.text("title", &manifest.title, TITLE_BYTES_MAX);
        let summary = self.text("summary", &manifest.summary, SUMMARY_BYTES_MAX);
        let slug = slug.or(manifest.slug).unwrap_or_else(|| draft::slug_of(&title));
        if !draft::is_slug(&slug) {
            self.problem(format!("slug {slug:?} is not words of a-z and 0-9 joined by hyphens; set `slug`"));
        }
        let cover = manifest.cover.and_then(|cover| self.file("cover", &cover));
        if let Some(cover) = cover.as_deref().filter(|cover| !is_picture(cover)) {
            self.problem(format!("cover {cover:?} is not a picture"));
        }
        if manifest.modules.is_empty() {
            self.problem("modules is empty; a course has at least one module with one lesson");
        }
        let modules = manifest.modules.into_iter().map(|module| self.module(module)).collect();
        if self.slugs.len() > LESSONS_MAX {
            self.problem(format!("{} lessons are too many, a course may have {LESSONS_MAX}", self.slugs.len()));
        }
        Draft { slug, title, summary, cover, modules, strict: true }
    }

    fn module(&mut self, module: ModuleEntry) -> ModuleDraft {
        let title = self.text("module title", &module.title, TITLE_BYTES_MAX);
        if module.lessons.is_empty() {
            self.problem(format!("module {title:?} has no lessons"));
        }
        let lessons = module.lessons.into_iter().filter_map(|lesson| self.lesson(lesson)).collect();
        ModuleDraft { title, lessons }
    }

    fn lesson(&mut self, lesson: LessonEntry) -> Option<LessonDraft> {
        let DescribedLesson { file, title, free_preview } = match lesson {
            LessonEntry::File(file) => DescribedLesson { file, title: None, free_preview: None },
            LessonEntry::Described(described) => described,
        };
        let source = self.file("lesson", &file)?;
        let title = title.map(|title| self.text("lesson title", &title, TITLE_BYTES_MAX));
        let (found_title, styles, content) = if is_video(&source) {
            (None, Vec::new(), Content::Video(source.clone()))
        } else if is_page(&source) {
            let page = self.read(&source)?;
            let scan = html::scan(&page);
            (scan.title, styles_of(&source, &scan.stylesheets), Content::Html(page))
        } else if matches!(extension(&source).as_str(), "md" | "markdown") {
            let rendered = markdown::render(&self.read(&source)?);
            (rendered.title, Vec::new(), Content::Html(rendered.html))
        } else {
            self.problem(format!(
                "lesson {source:?} is neither Markdown (.md), HTML (.html) nor a video (.webm, .mp4)"
            ));
            return None;
        };
        let Some(title) = title.or_else(|| found_title.map(|title| draft::one_line(&title, TITLE_BYTES_MAX))) else {
            self.problem(format!("lesson {source:?} has no title; give it a first heading, or `title` here"));
            return None;
        };
        let slug = draft::slug_of_file(&source);
        if !draft::is_slug(&slug) {
            self.problem(format!("lesson {source:?} has no letter or digit to name it by; rename the file"));
        }
        if let Some((_, other)) = self.slugs.iter().find(|(known, _)| *known == slug) {
            let what = format!("lessons {other:?} and {source:?} would have the same address {slug:?}; name each once");
            self.problem(what);
        }
        self.slugs.push((slug.clone(), source.clone()));
        Some(LessonDraft { source, slug, title, free_preview: free_preview.unwrap_or(true), styles, content })
    }

    fn read(&mut self, path: &str) -> Option<String> {
        self.folder.text(path).map_err(|problem| self.problems.push(problem)).ok()
    }

    /// The path of a file that course.yaml names.
    fn file(&mut self, what: &str, name: &str) -> Option<String> {
        let Reference::Path { path, .. } = folder::resolve(FILE, name) else {
            self.problem(format!("{what} {name:?} is not the path of a file in this folder"));
            return None;
        };
        match self.folder.locate(&path) {
            Ok(_) => Some(path),
            Err(why) => {
                self.problem(format!("{what} {name:?}: {why}{}", hint(&path)));
                None
            }
        }
    }

    fn text(&mut self, what: &str, text: &str, max: usize) -> String {
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if line.is_empty() || line.len() > max {
            self.problem(format!("{what} has {} bytes; it must have 1 to {max}", line.len()));
        }
        line
    }

    fn problem(&mut self, what: impl Into<String>) {
        self.problems.push(Problem::new(FILE, what));
    }
}

/// What to do about a file that is not there.
#[must_use]
pub fn hint(path: &str) -> &'static str {
    if is_video(path) { "; if the folder has a make-video.sh, run it with this file as its argument first" } else { "" }
}

/// The stylesheets of a page that belong to the folder.
pub(super) fn styles_of(source: &str, hrefs: &[String]) -> Vec<String> {
    let paths = hrefs.iter().filter_map(|href| match folder::resolve(source, href) {
        Reference::Path { path, .. } => Some(path),
        _ => None,
    });
    paths.collect()
}

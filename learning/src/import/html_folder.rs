//! A folder of HTML pages without a `course.yaml`, such as a book that a documentation tool made.
//!
//! The page to begin with is `index.html`, or the first one by name. Its links, in their order, are the table of
//! contents: a link that stands in the outermost list begins a module, the pages linked further in are its lessons. Pages
//! that the contents leave out follow in a module of their own, so every page becomes a lesson.

use std::collections::BTreeMap;

use super::{
    ImportError, Problem,
    draft::{self, Content, Draft, LESSONS_MAX, LessonDraft, ModuleDraft, SUMMARY_BYTES_MAX, TITLE_BYTES_MAX},
    folder::{self, Folder, Reference},
    html::{self, Scan},
    manifest::{self, styles_of},
};

/// What the module is called that holds the page to begin with, and those that no link of it leads to.
const START: &str = "Start here";
const MORE: &str = "More pages";

struct Page {
    text: String,
    scan: Scan,
}

/// Reads the folder.
///
/// # Errors
/// There are no pages, too many, or one of them cannot be read.
pub fn read(folder: &Folder, slug: Option<String>) -> Result<Draft, ImportError> {
    let paths = folder.pages()?;
    let Some(start) = start_of(&paths) else {
        let what = format!("holds neither {} nor HTML pages; there is nothing to import", manifest::FILE);
        return Err(vec![Problem::new(".", what)].into());
    };
    if paths.len() > LESSONS_MAX {
        let what = format!("holds {} pages, a course may have {LESSONS_MAX} lessons", paths.len());
        return Err(vec![Problem::new(".", what)].into());
    }
    let mut problems = Vec::new();
    let mut pages = BTreeMap::new();
    for path in &paths {
        match folder.text(path) {
            Ok(text) => drop(pages.insert(path.clone(), Page { scan: html::scan(&text), text })),
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        return Err(problems.into());
    }

    let first = &pages[&start].scan;
    let title = first.title.clone().unwrap_or_else(|| folder.name());
    let title = draft::one_line(&title, TITLE_BYTES_MAX);
    let summary = first.description.clone().unwrap_or_else(|| format!("{title}, in {} pages.", pages.len()));
    let summary = draft::one_line(&summary, SUMMARY_BYTES_MAX);
    let slug = slug.unwrap_or_else(|| draft::slug_of(&title));
    if !draft::is_slug(&slug) {
        let what = format!("slug {slug:?} is not words of a-z and 0-9 joined by hyphens; give one with --slug");
        return Err(vec![Problem::new(".", what)].into());
    }

    let links = first.links.clone();
    let mut lessons = LessonMaker { pages, slugs: Vec::new() };
    let modules = modules(&start, links, &mut lessons);
    Ok(Draft { slug, title, summary, cover: None, modules, strict: false })
}

/// The page to begin with: the index nearest to the root, else the first page.
fn start_of(paths: &[String]) -> Option<String> {
    let is_index = |path: &&String| matches!(path.rsplit('/').next(), Some("index.html" | "index.htm" | "index.xhtml"));
    let index = paths.iter().filter(is_index).min_by_key(|path| path.matches('/').count());
    index.or(paths.first()).cloned()
}

fn modules(start: &str, links: Vec<html::Link>, lessons: &mut LessonMaker) -> Vec<ModuleDraft> {
    let mut modules = vec![ModuleDraft { title: START.into(), lessons: Vec::from_iter(lessons.make(start)) }];
    let links: Vec<_> = links
        .into_iter()
        .filter_map(|link| match folder::resolve(start, &link.href) {
            Reference::Path { path, .. } if lessons.pages.contains_key(&path) => Some((link, path)),
            _ => None,
        })
        .collect();
    let outermost = links.iter().map(|(link, _)| link.depth).min().unwrap_or_default();
    let nested = links.iter().any(|(link, _)| link.depth > outermost);
    for (link, path) in &links {
        let Some(lesson) = lessons.make(path) else { continue };
        if nested && link.depth == outermost {
            // A page is often linked more than once: "Next" says less than its name in the contents.
            let texts = links.iter().filter(|(other, to)| to == path && other.depth == outermost);
            let longest = texts.map(|(other, _)| other.text.as_str()).max_by_key(|text| text.len());
            let title = longest.filter(|text| !text.is_empty()).unwrap_or(&lesson.title).to_owned();
            modules.push(ModuleDraft { title: draft::one_line(&title, TITLE_BYTES_MAX), lessons: vec![lesson] });
        } else if let Some(module) = modules.last_mut() {
            module.lessons.push(lesson);
        }
    }
    let rest: Vec<_> = lessons.pages.keys().cloned().collect();
    let rest: Vec<_> = rest.iter().filter_map(|path| lessons.make(path)).collect();
    if !rest.is_empty() {
        modules.push(ModuleDraft { title: MORE.into(), lessons: rest });
    }
    modules
}

struct LessonMaker {
    /// Those that are not yet lessons.
    pages: BTreeMap<String, Page>,
    slugs: Vec<String>,
}

impl LessonMaker {
    /// The lesson of a page, once.
    fn make(&mut self, path: &str) -> Option<LessonDraft> {
        let Page { text, scan } = self.pages.remove(path)?;
        let title = scan.title.map(|title| draft::one_line(&title, TITLE_BYTES_MAX)).unwrap_or_else(|| path.to_owned());
        let slug = self.free_slug(path);
        let styles = styles_of(path, &scan.stylesheets);
        Some(LessonDraft {
            source: path.to_owned(),
            slug,
            title,
            free_preview: true,
            styles,
            content: Content::Html(text),
        })
    }

    /// The file's own slug, with a number behind it where another page has the same.
    fn free_slug(&mut self, path: &str) -> String {
        let own = Some(draft::slug_of_file(path)).filter(|slug| draft::is_slug(slug)).unwrap_or_else(|| "page".into());
        let numbered = (2..).map(|number| format!("{own}-{number}"));
        let slug = std::iter::once(own.clone()).chain(numbered).find(|slug| !self.slugs.contains(slug));
        // The numbers do not end before the pages do.
        let slug = slug.unwrap_or(own);
        self.slugs.push(slug.clone());
        slug
    }
}

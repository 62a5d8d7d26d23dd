//! What a folder says a course is, before links and files are resolved.

/// A course as its folder describes it. Paths are relative to the folder, with `/`, without `.` and `..`.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Its name in URLs.
    pub slug: String,
    /// For people.
    pub title: String,
    /// One or two sentences.
    pub summary: String,
    /// The path of a picture.
    pub cover: Option<String>,
    /// In order.
    pub modules: Vec<ModuleDraft>,
    /// Whether a link that leads nowhere refuses the import, or is left out with a warning.
    pub strict: bool,
}

/// A module of a draft.
#[derive(Clone, Debug)]
pub struct ModuleDraft {
    /// For people.
    pub title: String,
    /// In order.
    pub lessons: Vec<LessonDraft>,
}

/// A lesson of a draft.
#[derive(Clone, Debug)]
pub struct LessonDraft {
    /// Its file.
    pub source: String,
    /// Its name in URLs.
    pub slug: String,
    /// For people.
    pub title: String,
    /// Whether anybody may read it.
    pub free_preview: bool,
    /// Paths of the stylesheets that its page names.
    pub styles: Vec<String>,
    /// Its text.
    pub content: Content,
}

/// The text of a lesson.
#[derive(Clone, Debug)]
pub enum Content {
    /// HTML, from a page or rendered from Markdown, not yet cleaned.
    Html(String),
    /// The path of a video.
    Video(String),
}

/// Bytes of a title, at most: what an outline can show.
pub const TITLE_BYTES_MAX: usize = 300;
/// Bytes of a summary, at most.
pub const SUMMARY_BYTES_MAX: usize = 2_000;
/// Bytes of a slug, at most: it is a part of every URL of the course.
pub const SLUG_BYTES_MAX: usize = 80;
/// Lessons of a course, at most: each lesson's page shows the outline.
pub const LESSONS_MAX: usize = 2_000;

impl Draft {
    /// All lessons, in order.
    pub fn lessons(&self) -> impl Iterator<Item = &LessonDraft> {
        self.modules.iter().flat_map(|module| &module.lessons)
    }
}

/// Whether `text` can be a slug: groups of `a`-`z` and digits, joined by single hyphens.
#[must_use]
pub fn is_slug(text: &str) -> bool {
    let group = |group: &str| !group.is_empty() && group.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    // An id in the place of a slug would be ambiguous in the API.
    text.len() <= SLUG_BYTES_MAX && text.split('-').all(group) && uuid::Uuid::try_parse(text).is_err()
}

/// A slug made of a title or a file name; empty where it has no letter or digit of ASCII.
#[must_use]
pub fn slug_of(text: &str) -> String {
    let mut slug = String::new();
    // An apostrophe joins: "Administrator's" is one word.
    for character in text.chars().filter(|character| !matches!(character, '\'' | '\u{2019}')) {
        if character.is_ascii_alphanumeric() {
            slug.push(character.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
        if slug.len() >= SLUG_BYTES_MAX {
            break;
        }
    }
    slug.trim_end_matches('-').to_owned()
}

/// The name of a lesson in URLs: its file's path without the extension.
#[must_use]
pub fn slug_of_file(path: &str) -> String {
    let stem = path.rsplit_once('.').map_or(path, |(stem, _extension)| stem);
    slug_of(stem)
}

/// `text` on one line, cut to at most `max` bytes between words.
#[must_use]
pub fn one_line(text: &str, max: usize) -> String {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if line.len() + word.len() + 4 > max {
            line.push('…');
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_plain_words() {
        assert_eq!(slug_of("The Debian Administrator's Handbook"), "the-debian-administrators-handbook");
        assert_eq!(slug_of(" 1.2: Größe -- & more "), "1-2-gr-e-more");
        assert_eq!(slug_of("日本"), "");
        assert_eq!(slug_of_file("part/sect.apt-get.html"), "part-sect-apt-get");
        assert!(is_slug("how-the-web-stays-fast") && is_slug("a1"));
        for wrong in ["", "-a", "a-", "a--b", "A", "a b", "ä", "0198f3b2-0000-7000-8000-000000000000"] {
            assert!(!is_slug(wrong), "{wrong}");
        }
        assert!(slug_of(&"word ".repeat(100)).len() <= SLUG_BYTES_MAX);
    }

    #[test]
    fn long_text_is_cut_between_words() {
        assert_eq!(one_line(" a\n b  c ", 300), "a b c");
        assert_eq!(one_line("alpha beta gamma", 12), "alpha…");
    }
}

//! The files of a folder: nothing outside it is ever read.

use std::{
    fs,
    path::{Path, PathBuf},
};

use percent_encoding::percent_decode_str;

use super::Problem;

/// Bytes of a text file, at most: the longest chapters of real books stay well below.
const TEXT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Files of a folder that are looked at when it has no `course.yaml`.
const FILES_MAX: usize = 20_000;
/// How deep folders may be nested.
const DEPTH_MAX: usize = 16;

/// What kinds of files a course may hold besides its texts: extension and media type.
const MEDIA_TYPES: [(&str, &str); 13] = [
    ("svg", "image/svg+xml"),
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("avif", "image/avif"),
    ("mp4", "video/mp4"),
    ("webm", "video/webm"),
    ("vtt", "text/vtt; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("woff2", "font/woff2"),
    ("pdf", "application/pdf"),
];

/// The media type of a file that a course may hold, by its extension.
#[must_use]
pub fn media_type(path: &str) -> Option<&'static str> {
    let extension = extension(path);
    MEDIA_TYPES.iter().find(|(known, _)| *known == extension).map(|(_, media_type)| *media_type)
}

/// Whether this is a video by its extension.
#[must_use]
pub fn is_video(path: &str) -> bool {
    media_type(path).is_some_and(|media_type| media_type.starts_with("video/"))
}

/// Whether this is a picture by its extension.
#[must_use]
pub fn is_picture(path: &str) -> bool {
    media_type(path).is_some_and(|media_type| media_type.starts_with("image/"))
}

/// The extension in lower case, or nothing.
#[must_use]
pub fn extension(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase()).unwrap_or_default()
}

/// The kinds of files that a course may hold, for messages.
#[must_use]
pub fn known_extensions() -> String {
    MEDIA_TYPES.map(|(extension, _)| extension).join(" ")
}

/// A folder that is imported.
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// Opens it.
    ///
    /// # Errors
    /// It is not a directory that can be read.
    pub fn open(path: &Path) -> Result<Self, Vec<Problem>> {
        let shown = path.display().to_string();
        let root =
            path.canonicalize().map_err(|error| vec![Problem::new(&shown, format!("cannot be read: {error}"))])?;
        if root.is_dir() {
            Ok(Self { root })
        } else {
            Err(vec![Problem::new(shown, "is not a directory; give the folder that holds course.yaml or the pages")])
        }
    }

    /// The name of the folder itself.
    #[must_use]
    pub fn name(&self) -> String {
        self.root.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Whether there is such a file inside the folder.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        self.locate(path).is_ok()
    }

    /// Where the file is; symbolic links may not lead out of the folder.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn locate(&self, path: &str) -> Result<PathBuf, String> {
        let found = self.root.join(path).canonicalize().map_err(|_| "there is no such file".to_owned())?;
        if !found.starts_with(&self.root) {
            return Err("it leads out of the folder".into());
        }
        if found.is_file() { Ok(found) } else { Err("it is not a file".into()) }
    }

    /// Reads a text file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn text(&self, path: &str) -> Result<String, Problem> {
        let problem = |what: String| Problem::new(path, what);
        let found = self.locate(path).map_err(problem)?;
        let bytes = fs::metadata(&found).map_err(|error| problem(format!("cannot be read: {error}")))?.len();
        if bytes > TEXT_BYTES_MAX {
            return Err(problem(format!("has {bytes} bytes, a text may have {TEXT_BYTES_MAX}; split it")));
        }
        let bytes = fs::read(&found).map_err(|error| problem(format!("cannot be read: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|_| problem("is not UTF-8; convert it".into()))?;
        Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
    }

    /// The paths of all HTML pages, in the order of their names.
    ///
    /// # Errors
    /// The folder cannot be read, or holds more than an import looks at.
    pub fn pages(&self) -> Result<Vec<String>, Vec<Problem>> {
        let mut pages = Vec::new();
        let mut seen = 0;
        self.walk("", 0, &mut seen, &mut pages).map_err(|problem| vec![problem])?;
        pages.sort();
        Ok(pages)
    }

    fn walk(&self, below: &str, depth: usize, seen: &mut usize, pages: &mut Vec<String>) -> Result<(), Problem> {
        let shown = if below.is_empty() { "." } else { below };
        if depth > DEPTH_MAX {
            return Err(Problem::new(shown, format!("is nested deeper than {DEPTH_MAX} folders")));
        }
        let unreadable = |error: std::io::Error| Problem::new(shown, format!("cannot be read: {error}"));
        for entry in fs::read_dir(self.root.join(below)).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            *seen += 1;
            if *seen > FILES_MAX {
                return Err(Problem::new(".", format!("holds more than {FILES_MAX} files")));
            }
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = if below.is_empty() { name } else { format!("{below}/{name}") };
            let kind = entry.file_type().map_err(unreadable)?;
            if kind.is_dir() {
                self.walk(&path, depth + 1, seen, pages)?;
            } else if is_page(&path) {
                pages.push(path);
            }
        }
        Ok(())
    }
}

/// Whether this is an HTML page by its extension.
#[must_use]
pub fn is_page(path: &str) -> bool {
    matches!(extension(path).as_str(), "html" | "htm" | "xhtml")
}

/// A reference in a file of the folder.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reference {
    /// Within the same page: the fragment, or nothing at all.
    Here,
    /// With a scheme or a host: not ours.
    Elsewhere,
    /// A path of this folder and the fragment with its `#`.
    Path { path: String, fragment: String },
    /// What cannot be meant.
    Wrong(&'static str),
}

/// Reads the reference `href` as written in the file `from`.
#[must_use]
pub fn resolve(from: &str, href: &str) -> Reference {
    let href = href.trim();
    let (rest, fragment) = href.find('#').map_or((href, ""), |at| href.split_at(at));
    if rest.is_empty() {
        return Reference::Here;
    }
    if rest.starts_with("//") || has_scheme(rest) {
        return Reference::Elsewhere;
    }
    if rest.starts_with('/') {
        return Reference::Wrong("begins with `/`; write it relative to the file");
    }
    let path = rest.split('?').next().unwrap_or(rest);
    let Ok(path) = percent_decode_str(path).decode_utf8() else { return Reference::Wrong("is not UTF-8") };
    let mut segments: Vec<&str> = from.split('/').collect();
    // The file itself: references are relative to its folder.
    segments.pop();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                if segments.pop().is_none() {
                    return Reference::Wrong("leads out of the folder");
                }
            }
            segment => segments.push(segment),
        }
    }
    Reference::Path { path: segments.join("/"), fragment: fragment.to_owned() }
}

fn has_scheme(text: &str) -> bool {
    let Some((scheme, _)) = text.split_once(':') else { return false };
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_from_the_place_they_stand_in() {
        let path = |path: &str, fragment: &str| Reference::Path { path: path.into(), fragment: fragment.into() };
        for (from, href, expected) in [
            ("a.md", "b.md", path("b.md", "")),
            ("x/a.html", "b.html#c", path("x/b.html", "#c")),
            ("x/a.html", "../i//p%20q.png", path("i/p q.png", "")),
            ("x/a.html", "./b.html?v=1", path("x/b.html", "")),
            ("a.html", "..", Reference::Wrong("leads out of the folder")),
            ("a.html", "../../etc/passwd", Reference::Wrong("leads out of the folder")),
            ("a.html", "/b.html", Reference::Wrong("begins with `/`; write it relative to the file")),
            ("a.html", "https://a.test/", Reference::Elsewhere),
            ("a.html", "//a.test/", Reference::Elsewhere),
            ("a.html", "mailto:a@b.test", Reference::Elsewhere),
            ("a.html", "#top", Reference::Here),
            ("a.html", "", Reference::Here),
        ] {
            assert_eq!(resolve(from, href), expected, "{href} in {from}");
        }
    }

    #[test]
    fn a_symbolic_link_out_of_the_folder_is_not_followed() {
        let place = tempfile::tempdir().expect("a directory");
        let inside = place.path().join("course");
        fs::create_dir(&inside).expect("made");
        fs::write(place.path().join("secret.md"), "secret").expect("written");
        std::os::unix::fs::symlink("../secret.md", inside.join("a.md")).expect("linked");
        let folder = Folder::open(&inside).expect("opens");
        assert_eq!(folder.text("a.md").expect_err("refused").to_string(), "a.md: it leads out of the folder");
        assert!(!folder.has("../secret.md"));
    }
}

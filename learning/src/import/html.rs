//! HTML from elsewhere: what a page says about itself, and its body without anything that runs.

use std::{borrow::Cow, cell::RefCell};

use html5ever::{
    tendril::StrTendril,
    tokenizer::{
        BufferQueue, Tag, TagKind, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts, states::RawKind,
    },
};

/// What a page says about itself.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Scan {
    /// `<title>`, or the first `<h1>`.
    pub title: Option<String>,
    /// `<meta name="description">`.
    pub description: Option<String>,
    /// Stylesheets for screens.
    pub stylesheets: Vec<String>,
    /// All links, in order.
    pub links: Vec<Link>,
}

/// A link of a page.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Link {
    /// Where it leads.
    pub href: String,
    /// What it says.
    pub text: String,
    /// How many lists it stands in.
    pub depth: usize,
}

/// Reads a page's head and links.
#[must_use]
pub fn scan(page: &str) -> Scan {
    let tokenizer = Tokenizer::new(Scanner::default(), TokenizerOpts::default());
    let input = BufferQueue::default();
    input.push_back(StrTendril::from_slice(page));
    // The tokenizer pauses at the end of each script, which is nothing to us.
    while !input.is_empty() {
        let _ = tokenizer.feed(&input);
    }
    tokenizer.end();
    let state = tokenizer.sink.0.into_inner();
    let mut scan = state.scan;
    let text = |text: String| Some(text.split_whitespace().collect::<Vec<_>>().join(" ")).filter(|t| !t.is_empty());
    scan.title = text(state.title).or_else(|| text(state.heading));
    for link in &mut scan.links {
        link.text = link.text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    scan
}

#[derive(Default)]
struct Scanner(RefCell<ScanState>);

#[derive(Default)]
struct ScanState {
    scan: Scan,
    title: String,
    heading: String,
    in_title: bool,
    in_heading: bool,
    heading_over: bool,
    in_link: bool,
    depth: usize,
}

impl TokenSink for Scanner {
    type Handle = ();

    fn process_token(&self, token: Token, _line: u64) -> TokenSinkResult<()> {
        let mut state = self.0.borrow_mut();
        match token {
            Token::CharacterTokens(text) => state.text(&text),
            Token::TagToken(tag) if tag.kind == TagKind::StartTag => {
                state.start(&tag);
                match &*tag.name {
                    "title" | "textarea" => return TokenSinkResult::RawData(RawKind::Rcdata),
                    "style" | "iframe" | "noembed" | "noframes" => return TokenSinkResult::RawData(RawKind::Rawtext),
                    "script" => return TokenSinkResult::RawData(RawKind::ScriptData),
                    _ => {}
                }
            }
            Token::TagToken(tag) => state.end(&tag),
            _ => {}
        }
        TokenSinkResult::Continue
    }
}

impl ScanState {
    fn text(&mut self, text: &str) {
        if self.in_title {
            self.title.push_str(text);
        }
        if self.in_heading {
            self.heading.push_str(text);
        }
        if self.in_link
            && let Some(link) = self.scan.links.last_mut()
        {
            link.text.push_str(text);
        }
    }

    fn start(&mut self, tag: &Tag) {
        match &*tag.name {
            "title" if self.title.is_empty() => self.in_title = true,
            "h1" if !self.heading_over => self.in_heading = true,
            "ul" | "ol" | "dl" => self.depth += 1,
            "a" => {
                if let Some(href) = attribute(tag, "href") {
                    self.in_link = true;
                    self.scan.links.push(Link { href, text: String::new(), depth: self.depth });
                }
            }
            "link" => self.stylesheet(tag),
            "meta" if attribute(tag, "name").is_some_and(|name| name.eq_ignore_ascii_case("description")) => {
                self.scan.description = attribute(tag, "content").filter(|content| !content.trim().is_empty());
            }
            _ => {}
        }
    }

    fn end(&mut self, tag: &Tag) {
        match &*tag.name {
            "title" => self.in_title = false,
            "h1" => {
                self.in_heading = false;
                self.heading_over = true;
            }
            "ul" | "ol" | "dl" => self.depth = self.depth.saturating_sub(1),
            "a" => self.in_link = false,
            _ => {}
        }
    }

    fn stylesheet(&mut self, tag: &Tag) {
        let rel = attribute(tag, "rel").unwrap_or_default().to_ascii_lowercase();
        let is_stylesheet = rel.split_ascii_whitespace().any(|word| word == "stylesheet");
        let is_alternate = rel.split_ascii_whitespace().any(|word| word == "alternate");
        let media = attribute(tag, "media").unwrap_or_default().to_ascii_lowercase();
        let for_screens = media.is_empty() || media.contains("all") || media.contains("screen");
        if let (true, false, true, Some(href)) = (is_stylesheet, is_alternate, for_screens, attribute(tag, "href")) {
            self.scan.stylesheets.push(href);
        }
    }
}

fn attribute(tag: &Tag, name: &str) -> Option<String> {
    tag.attrs.iter().find(|attribute| &*attribute.name.local == name).map(|attribute| attribute.value.to_string())
}

/// What a reference is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Use {
    /// Followed by a reader.
    Link,
    /// Loaded with the page.
    Embed,
}

/// The body of a page or fragment: no script, style, form, frame or event handler; only relations that `rewrite` gives.
///
/// `rewrite` is handed each reference and answers with what stands in its place; nothing removes the attribute.
#[must_use]
pub fn clean(html: &str, rewrite: impl Fn(&str, Use) -> Option<String> + Send + Sync + 'static) -> String {
    let mut builder = ammonia::Builder::default();
    builder
        .add_tags([
            "section", "main", "video", "audio", "source", "track", "tfoot", "fieldset", "legend", "label", "big",
        ])
        // Their text is not for readers.
        .add_clean_content_tags(["title", "textarea", "select", "iframe", "object", "noscript"])
        .add_generic_attributes(["id", "class", "dir", "lang", "title", "role"])
        .add_generic_attribute_prefixes(["aria-"])
        .add_tag_attributes("a", ["name"])
        .add_tag_attributes("img", ["width", "height", "alt", "src"])
        .add_tag_attributes("video", ["src", "poster", "controls", "preload", "width", "height", "loop", "muted"])
        .add_tag_attributes("source", ["src", "type"])
        .add_tag_attributes("track", ["src", "kind", "srclang", "label", "default"])
        .add_tag_attributes("td", ["headers", "scope"])
        .add_tag_attributes("th", ["headers", "scope"])
        .add_tag_attributes("ol", ["start", "type", "reversed"])
        .link_rel(None)
        .attribute_filter(move |_element, attribute, value| match attribute {
            "href" => rewrite(value, Use::Link).map(Cow::Owned),
            "src" | "poster" => rewrite(value, Use::Embed).map(Cow::Owned),
            // References that no reader follows.
            "cite" | "longdesc" => None,
            _ => Some(Cow::Borrowed(value)),
        });
    builder.clean(html).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_scanned_for_what_it_says_about_itself() {
        let page = r#"<?xml version="1.0"?><!DOCTYPE html><html><head><title>A &amp;
            B</title><meta name="Description" content="About it"/><script>if (a<b) document.write("<a href='x'>")</script>
            <link rel="stylesheet" href="a.css"/><link rel="stylesheet" media="print" href="print.css"/></head>
            <body><h1>Other</h1><ul><li><a href="b.html">B <em>page</em></a><ol><li><a href="c.html#x">C</a></li></ol></ul>
            <a name="n">no link</a></body></html>"#;
        let scan = scan(page);
        assert_eq!(scan.title.as_deref(), Some("A & B"));
        assert_eq!(scan.description.as_deref(), Some("About it"));
        assert_eq!(scan.stylesheets, ["a.css"]);
        let link = |href: &str, text: &str, depth| Link { href: href.into(), text: text.into(), depth };
        assert_eq!(scan.links, [link("b.html", "B page", 1), link("c.html#x", "C", 2)]);
    }

    #[test]
    fn nothing_that_runs_is_left() {
        for (hostile, expected) in [
            ("<p onclick=\"x()\">a</p><script>x()</script>", "<p>a</p>"),
            ("<a href=\"javascript:x()\">a</a>", "<a>a</a>"),
            ("<a href=\"JaVa\tScript:x()\">a</a>", "<a>a</a>"),
            ("<img src=x onerror=x()>", "<img src=\"x\">"),
            ("<svg><script>x()</script></svg>a", "a"),
            ("<iframe srcdoc=\"<script>x()</script>\"></iframe>a", "a"),
            ("<form action=/x><input name=a><button>go</button></form>", "go"),
            ("<style>*{display:none}</style><p style=\"position:fixed\">a</p>", "<p>a</p>"),
            ("<html><head><title>T</title><base href=//evil.test></head><body>a</body>", "a"),
            ("<meta http-equiv=refresh content=0><object data=x>b</object>a", "a"),
        ] {
            assert_eq!(clean(hostile, |href, _| Some(href.into())), expected, "{hostile}");
        }
    }

    #[test]
    fn references_are_rewritten_or_removed() {
        let html = "<a href=\"a.html\" title=\"t\">a</a><img src=\"gone.png\" alt=\"g\"><video src=\"v.webm\" poster=\"p.png\" controls></video>";
        let cleaned = clean(html, |href, usage| (href != "gone.png").then(|| format!("/{usage:?}/{href}")));
        assert!(cleaned.contains("href=\"/Link/a.html\"") && cleaned.contains("title=\"t\""), "{cleaned}");
        assert!(cleaned.contains("<img alt=\"g\">"), "{cleaned}");
        assert!(cleaned.contains("src=\"/Embed/v.webm\"") && cleaned.contains("poster=\"/Embed/p.png\""), "{cleaned}");
    }
}

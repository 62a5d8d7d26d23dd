//! Stylesheets from elsewhere: their references rewritten, their rules confined to the text of a lesson.
//!
//! The rules go into `@layer course { @scope (.lesson-body) { .. } }`: they reach nothing outside the lesson, and where
//! the site has a rule of its own, the site's wins. `@import` rules stay in front, as CSS demands; what they load is
//! confined in the same way.

use cssparser::{ParseError, Parser, Token};

/// A part of the text and what stands in its place.
struct Change {
    start: usize,
    end: usize,
    with: String,
}

/// Rewrites and confines `css`. `rewrite` is handed each reference; nothing in its place becomes an empty `url()`.
#[must_use]
pub fn confine(css: &str, rewrite: &mut impl FnMut(&str) -> Option<String>) -> String {
    let mut changes = Vec::new();
    let mut parser = Parser::new(css);
    let imports_end = imports(&mut parser, &mut changes, rewrite);
    rest(&mut parser, &mut changes, rewrite);

    let mut out = String::with_capacity(css.len() + 64);
    copy(css, 0, imports_end, &changes, &mut out);
    out.push_str("@layer course { @scope (.lesson-body) {\n");
    copy(css, imports_end, css.len(), &changes, &mut out);
    out.push_str("\n} }\n");
    out
}

/// Reads the `@charset` and `@import` rules at the top; answers where they end.
fn imports(
    parser: &mut Parser<'_>,
    changes: &mut Vec<Change>,
    rewrite: &mut impl FnMut(&str) -> Option<String>,
) -> usize {
    let mut end = 0;
    loop {
        let start = parser.state();
        let at = parser.position().byte_index();
        let keyword = match parser.next() {
            Ok(Token::AtKeyword(name)) => name.to_ascii_lowercase(),
            _ => {
                parser.reset(&start);
                return end;
            }
        };
        if keyword != "import" && keyword != "charset" {
            parser.reset(&start);
            return end;
        }
        let mut first = true;
        loop {
            parser.skip_whitespace();
            let from = parser.position().byte_index();
            let token = parser.next().cloned();
            let to = parser.position().byte_index();
            let reference = match token {
                Err(_) | Ok(Token::Semicolon) => break,
                Ok(Token::QuotedString(url) | Token::UnquotedUrl(url)) if first => Some(url.to_string()),
                Ok(Token::Function(name)) if first && name.eq_ignore_ascii_case("url") => inner_string(parser),
                Ok(_) => None,
            };
            if let Some(url) = reference.filter(|_| keyword == "import") {
                let to = parser.position().byte_index().max(to);
                changes.push(Change { start: from, end: to, with: url_text(rewrite(&url)) });
            }
            first = false;
        }
        end = parser.position().byte_index();
        if keyword == "charset" {
            // What we serve is UTF-8 and says so.
            changes.push(Change { start: at, end, with: String::new() });
        }
    }
}

/// Rewrites every `url()` up to the end of this block.
fn rest(parser: &mut Parser<'_>, changes: &mut Vec<Change>, rewrite: &mut impl FnMut(&str) -> Option<String>) {
    loop {
        let start = parser.position().byte_index();
        let Ok(token) = parser.next_including_whitespace_and_comments().cloned() else { return };
        match token {
            Token::UnquotedUrl(url) => {
                let end = parser.position().byte_index();
                changes.push(Change { start, end, with: url_text(rewrite(&url)) });
            }
            Token::Function(name) if name.eq_ignore_ascii_case("url") => {
                if let Some(url) = inner_string(parser) {
                    let end = parser.position().byte_index();
                    changes.push(Change { start, end, with: url_text(rewrite(&url)) });
                }
            }
            Token::Function(_) | Token::ParenthesisBlock | Token::SquareBracketBlock | Token::CurlyBracketBlock => {
                let nested: Result<(), ParseError<()>> = parser.parse_nested_block(|inside| {
                    rest(inside, changes, rewrite);
                    Ok(())
                });
                // The closure does not fail, and reads the block to its end.
                drop(nested);
            }
            _ => {}
        }
    }
}

/// The string in `url( "..." )`, whose opening was just read; the block is read to its end.
fn inner_string(parser: &mut Parser<'_>) -> Option<String> {
    let string: Result<String, ParseError<()>> =
        parser.parse_nested_block(|inside| Ok(inside.expect_string()?.to_string()));
    string.ok()
}

fn url_text(url: Option<String>) -> String {
    // Our URLs are percent-encoded; what else a string could not hold is escaped all the same.
    format!("url(\"{}\")", url.unwrap_or_default().replace('\\', "%5C").replace('"', "%22").replace('\n', ""))
}

fn copy(css: &str, from: usize, to: usize, changes: &[Change], out: &mut String) {
    let mut at = from;
    for change in changes.iter().filter(|change| change.start >= from && change.end <= to) {
        out.push_str(&css[at..change.start]);
        out.push_str(&change.with);
        at = change.end;
    }
    out.push_str(&css[at..to]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_rewritten_and_rules_confined() {
        let css = "@charset \"utf-8\";\n@import url('a.css');@import \"b.css\" screen;\n/* url(no) */ p { background: url( x.png ) }\n\
                   @media print { q::before { content: \"url(no)\" url(\"gone.png\") } }";
        let mut seen = Vec::new();
        let confined = confine(css, &mut |url| {
            seen.push(url.to_owned());
            (url != "gone.png").then(|| format!("/m/{url}"))
        });
        assert_eq!(seen, ["a.css", "b.css", "x.png", "gone.png"]);
        assert_eq!(
            confined,
            "\n@import url(\"/m/a.css\");@import url(\"/m/b.css\") screen;@layer course { @scope (.lesson-body) {\n\
             \n/* url(no) */ p { background: url(\"/m/x.png\") }\n\
             @media print { q::before { content: \"url(no)\" url(\"\") } }\n} }\n"
        );
    }

    #[test]
    fn broken_stylesheets_are_copied_as_far_as_they_go() {
        for css in ["", "p {", "@import", "p { background: url(\"a", "}}", "url(", "@import url(a.css"] {
            let confined = confine(css, &mut |url| Some(url.to_owned()));
            assert!(confined.contains("@scope (.lesson-body)"), "{css}");
        }
    }
}

//! Markdown (CommonMark with tables, footnotes, strikethrough) into HTML.
//!
//! Two additions: a picture that stands alone in its paragraph becomes a figure whose caption is its title, and one that
//! points to a video becomes a player.

use pulldown_cmark::{CowStr, Event, HeadingLevel, Options, Parser, Tag, TagEnd, html};

use super::folder::is_video;

/// A rendered text.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// Its first heading of level 1, which is not in `html`: the page shows it.
    pub title: Option<String>,
    /// Not cleaned yet: Markdown may hold any HTML.
    pub html: String,
}

/// Renders `text`.
#[must_use]
pub fn render(text: &str) -> Rendered {
    let options = Options::ENABLE_TABLES
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_SMART_PUNCTUATION
        | Options::ENABLE_HEADING_ATTRIBUTES;
    let events: Vec<Event<'_>> = Parser::new_ext(text, options).collect();
    let (title, events) = take_title(events);
    let mut out = String::with_capacity(text.len() * 3 / 2);
    html::push_html(&mut out, figures(events).into_iter());
    Rendered { title, html: out }
}

/// Takes the first heading out, if the text begins with one of level 1.
fn take_title(events: Vec<Event<'_>>) -> (Option<String>, Vec<Event<'_>>) {
    let begins = matches!(events.first(), Some(Event::Start(Tag::Heading { level: HeadingLevel::H1, .. })));
    let end = events.iter().position(|event| matches!(event, Event::End(TagEnd::Heading(HeadingLevel::H1))));
    match (begins, end) {
        (true, Some(end)) => (Some(plain(&events[..end])), events.into_iter().skip(end + 1).collect()),
        _ => (None, events),
    }
}

fn figures(events: Vec<Event<'_>>) -> Vec<Event<'_>> {
    let mut out = Vec::with_capacity(events.len());
    let mut rest = events.into_iter().peekable();
    while let Some(event) = rest.next() {
        match event {
            Event::Start(Tag::Paragraph) if matches!(rest.peek(), Some(Event::Start(Tag::Image { .. }))) => {
                // Everything up to the end of the paragraph, to see whether the picture is alone in it.
                let inside: Vec<_> =
                    rest.by_ref().take_while(|event| !matches!(event, Event::End(TagEnd::Paragraph))).collect();
                let ends = inside.iter().filter(|event| matches!(event, Event::End(TagEnd::Image))).count();
                let alone = ends == 1 && matches!(inside.last(), Some(Event::End(TagEnd::Image)));
                match inside.first() {
                    Some(Event::Start(Tag::Image { dest_url, title, .. })) if alone => {
                        let alt = plain(&inside);
                        out.push(Event::Html(figure(dest_url, title, &alt)));
                    }
                    _ => {
                        out.push(Event::Start(Tag::Paragraph));
                        out.extend(inside);
                        out.push(Event::End(TagEnd::Paragraph));
                    }
                }
            }
            event => out.push(event),
        }
    }
    out
}

fn figure(url: &str, caption: &str, alt: &str) -> CowStr<'static> {
    let (url_text, alt_text, caption_text) = (escape(url), escape(alt), escape(caption));
    let mut figure = if is_video(url.split(['?', '#']).next().unwrap_or(url)) {
        format!("<figure><video controls preload=\"metadata\" src=\"{url_text}\" aria-label=\"{alt_text}\"></video>")
    } else {
        format!("<figure><img src=\"{url_text}\" alt=\"{alt_text}\">")
    };
    if !caption.is_empty() {
        figure.push_str(&format!("<figcaption>{caption_text}</figcaption>"));
    }
    figure.push_str("</figure>\n");
    figure.into()
}

fn plain(events: &[Event<'_>]) -> String {
    let mut text = String::new();
    for event in events {
        match event {
            Event::Text(part) | Event::Code(part) => text.push_str(part),
            Event::SoftBreak | Event::HardBreak => text.push(' '),
            _ => {}
        }
    }
    text
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_heading_is_the_title_and_not_shown_twice() {
        let rendered = render("# Fresh *and* `stale`\n\nText.\n\n# Another\n");
        assert_eq!(rendered.title.as_deref(), Some("Fresh and stale"));
        assert_eq!(rendered.html, "<p>Text.</p>\n<h1>Another</h1>\n");
        assert_eq!(render("Text.\n\n# Later").title, None);
    }

    #[test]
    fn a_picture_alone_in_its_paragraph_is_a_figure_and_a_video_a_player() {
        let html = render("![A & B](a.svg \"Two <things>\")\n").html;
        assert_eq!(
            html,
            "<figure><img src=\"a.svg\" alt=\"A &amp; B\"><figcaption>Two &lt;things&gt;</figcaption></figure>\n"
        );
        let html = render("![Film](m/intro.webm)\n").html;
        assert!(html.starts_with("<figure><video controls preload=\"metadata\" src=\"m/intro.webm\""), "{html}");
        let html = render("See ![A](a.svg) here.\n\n![A](a.svg) and more.\n").html;
        assert!(!html.contains("<figure>") && html.matches("<img").count() == 2, "{html}");
    }
}

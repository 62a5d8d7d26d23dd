//! What an import publishes, what it refuses, and what it leaves alone.

use std::path::Path;

use eduham_learning::import::{ImportError, draft::Draft, edition, folder::Folder, manifest, publish};

use crate::{
    answers::between,
    support::{Bench, PICTURE, SAMPLE, now, write},
};

pub(crate) async fn links_and_files_become_addresses_of_this_site(bench: Bench) {
    let outcome = bench.sample().await;
    assert!(outcome.published && outcome.warnings.is_empty());
    assert_eq!((outcome.version, outcome.modules, outcome.lessons, outcome.files), (1, 2, 3, 2));

    let page = bench.get("/courses/knots/lessons/reef").await;
    assert!(page.text().contains("<a href=\"/courses/knots/lessons/sub-bowline#how\">the next</a>"), "{}", page.text());
    assert!(page.text().contains("<figcaption>Right over left</figcaption>"), "{}", page.text());
    let picture = format!("/media/{}", between(page.text(), "<img src=\"/media/", "\""));
    assert!(bench.get(&picture).await.text().contains("M0 0L9 9"));

    let page = bench.get("/courses/knots/lessons/sub-bowline").await;
    let body = between(page.text(), "<div class=\"lesson-body\">", "<nav");
    assert!(
        body.contains("href=\"/courses/knots/lessons/reef\"") && body.contains("href=\"https://a.test/\""),
        "{body}"
    );
    assert!(!page.text().contains("alert(1)"), "{body}");
    let course = bench.get("/v1/courses/knots").await.json();
    assert_eq!(bench.get(course["cover"].as_str().expect("a cover")).await.text(), PICTURE);
}

pub(crate) async fn the_same_folder_again_is_no_new_version(bench: Bench) {
    bench.sample().await;
    let before = bench.get("/courses/knots/lessons/reef").await;
    let again = bench.sample().await;
    assert!(!again.published);
    assert_eq!(again.version, 1);
    assert_eq!(bench.number("SELECT COUNT(*) FROM purge_outbox").await, 1);
    assert_eq!(bench.get("/courses/knots/lessons/reef").await.field("etag"), before.field("etag"));
}

pub(crate) async fn a_new_edition_keeps_ids_and_the_files_of_the_old_one(bench: Bench) {
    let folder = bench.folder(SAMPLE);
    bench.import(&folder).await;
    let old_page = bench.get("/courses/knots/lessons/reef").await;
    let old_picture = format!("/media/{}", between(old_page.text(), "<img src=\"/media/", "\""));
    let old_outline = bench.get("/v1/courses/knots/modules").await.json();

    write(&folder, &[("img/knot.svg", PICTURE), ("secret.md", "# Open knots\n")]);
    let outcome = bench.import(&folder).await;
    assert_eq!((outcome.published, outcome.version), (true, 2));
    let page = bench.get("/courses/knots/lessons/reef").await;
    let picture = format!("/media/{}", between(page.text(), "<img src=\"/media/", "\""));
    assert_ne!(page.field("etag"), old_page.field("etag"));
    assert_ne!(picture, old_picture);
    assert_eq!(picture.split('/').nth(2), old_picture.split('/').nth(2), "the asset's id stays");
    // A page that somebody has stored still finds its picture.
    assert!(bench.get(&old_picture).await.text().contains("M0 0L9 9"));
    assert_eq!(bench.get(&picture).await.text(), PICTURE);

    let outline = bench.get("/v1/courses/knots/modules").await.json();
    assert_eq!(outline["version"], 2);
    assert_eq!(outline["modules"][0], old_outline["modules"][0]);
    assert_eq!(outline["modules"][1]["lessons"][0]["id"], old_outline["modules"][1]["lessons"][0]["id"]);
    assert_eq!(outline["modules"][1]["lessons"][0]["title"], "Open knots");
    let keys = bench.number("SELECT COUNT(*) FROM purge_outbox WHERE keys LIKE 'catalog course:%'").await;
    assert_eq!(keys, 2);
}

pub(crate) async fn a_folder_that_is_wrong_is_refused_with_everything_that_is_wrong(bench: Bench) {
    bench.sample().await;
    let before = bench.get("/courses/knots/lessons/reef").await;
    let yaml =
        |lessons: &str| format!("slug: knots\ntitle: T\nsummary: s\nmodules:\n- title: m\n  lessons: [{lessons}]\n");
    let long = format!("slug: knots\ntitle: {}\nsummary: ''\nmodules: []\n", "x".repeat(301));
    let (twice, links, kinds) = (yaml("a.md, A.html"), yaml("a.md"), yaml("a.md, c.docx, media/x.webm, no-title.md"));
    type Files<'a> = &'a [(&'a str, &'a str)];
    let rows: [(Files<'_>, &[&str]); 8] = [
        (&[], &[".: holds neither course.yaml nor HTML pages"]),
        (&[("course.yaml", "title: [")], &["course.yaml: "]),
        (&[("course.yaml", "title: T\nsumary: s\nmodules: []")], &["course.yaml: unknown field `sumary`"]),
        (&[("course.yaml", &long)], &["title has 301 bytes", "summary has 0 bytes", "modules is empty"]),
        (
            &[("course.yaml", &twice), ("a.md", "# A"), ("A.html", "<title>A</title>")],
            &["lessons \"a.md\" and \"A.html\" would have the same address \"a\""],
        ),
        (
            &[("course.yaml", &kinds), ("a.md", "# A"), ("c.docx", "x"), ("no-title.md", "text")],
            &[
                "lesson \"c.docx\" is neither Markdown (.md), HTML (.html) nor a video",
                "lesson \"media/x.webm\": there is no such file; if the folder has a make-video.sh",
                "lesson \"no-title.md\" has no title",
            ],
        ),
        (
            &[
                ("course.yaml", &links),
                (
                    "a.md",
                    "# A\n[x](b.md) ![p](gone.png) [up](../../etc/passwd) ![r](http://a.test/p.png) ![e](e.png) [r](/abs)",
                ),
                ("e.png", ""),
            ],
            &[
                "a.md: refers to \"b.md\": there is no such file",
                "a.md: refers to \"gone.png\": there is no such file",
                "a.md: refers to \"../../etc/passwd\", which leads out of the folder",
                "a.md: shows \"http://a.test/p.png\" from another server",
                "a.md: refers to \"e.png\": the file is empty",
                "a.md: refers to \"/abs\", which begins with `/`",
            ],
        ),
        (
            &[("course.yaml", &format!("{}cover: ../x.svg\n", yaml("a.md, /etc/passwd"))), ("a.md", "# A")],
            &["cover \"../x.svg\" is not the path", "lesson \"/etc/passwd\" is not the path"],
        ),
    ];
    for (files, expected) in rows {
        let folder = bench.folder(files);
        match bench.try_import(&folder).await {
            Err(ImportError::Refused(problems)) => {
                let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
                assert_eq!(said.len(), expected.len(), "{said:#?}");
                for part in expected {
                    assert!(said.iter().any(|problem| problem.contains(part)), "{part} in {said:#?}");
                }
            }
            other => panic!("{expected:?}: {other:?}"),
        }
    }
    assert!(matches!(bench.try_import(Path::new("/no/such/folder")).await, Err(ImportError::Refused(_))));
    let after = bench.get("/courses/knots/lessons/reef").await;
    assert_eq!((after.status, after.field("etag")), (before.status, before.field("etag")));
    assert_eq!(bench.number("SELECT COUNT(*) FROM courses").await, 1);
    assert_eq!(bench.number("SELECT COUNT(*) FROM purge_outbox").await, 1);
}

pub(crate) async fn two_imports_at_once_do_not_mix(bench: Bench) {
    let first = bench.folder(SAMPLE);
    let second = bench.folder(SAMPLE);
    write(&second, &[("secret.md", "# Other knots\n")]);
    // Twice: while the course is new, and while it is replaced.
    for version in [1, 2] {
        write(&first, &[("reef.md", &format!("# Edition {version}\n"))]);
        let mut editions = Vec::new();
        for path in [&first, &second] {
            let folder = Folder::open(path).expect("opens");
            let draft: Draft = manifest::read(&folder, None).expect("is right");
            let identities = publish::identities(&bench.app.db, &draft, now()).await.expect("reads");
            editions.push(edition::make(folder, draft, identities, &bench.app.objects, now()).expect("resolves"));
        }
        let late = editions.pop().expect("two");
        let early = editions.pop().expect("two");
        assert_eq!(publish::publish(&bench.app.db, early, now()).await.expect("published").version, version);
        let refused = publish::publish(&bench.app.db, late, now()).await;
        assert!(matches!(refused, Err(ImportError::Conflict)), "{refused:?}");
        let page = bench.get("/courses/knots/lessons/reef").await;
        assert!(page.text().contains(&format!("<h1>Edition {version}</h1>")), "{}", page.text());
    }
    assert_eq!(bench.number("SELECT COUNT(*) FROM purge_outbox").await, 2);
}

pub(crate) async fn a_folder_of_html_pages_becomes_a_course(bench: Bench) {
    let page = |title: &str, body: &str| {
        format!(
            "<?xml version=\"1.0\"?><!DOCTYPE html><html><head><title>{title}</title>\
             <link rel=\"stylesheet\" href=\"css/book.css\"/></head><body onload=\"x()\">{body}</body></html>"
        )
    };
    let index = page(
        "The Book",
        "<ul class=\"docnav\"><li><a href=\"one.html\">Next</a></li></ul><ul><li><a href=\"one.html\">Part One</a><ul>\
         <li><a href=\"one.html#s\">Section</a></li><li><a href=\"one-a.html\">One A</a></li></ul></li>\
         <li><a href=\"two.html\">Part Two</a></li></ul>",
    );
    let one = page(
        "One",
        "<h1>One</h1><p onclick=\"x()\">See <a href=\"two.html#end\">two</a>, <a href=\"gone.html\">gone</a>.</p>\
         <img src=\"img/a%20b.svg\"/><script>alert(1)</script>",
    );
    let folder = bench.folder(&[
        ("index.html", &index),
        ("one.html", &one),
        ("one-a.html", &page("One A", "text")),
        ("two.html", &page("Two", "<p id=\"end\">end</p>")),
        ("appendix.html", &page("Appendix", "more")),
        (
            "css/book.css",
            "@import url(\"more.css\"); .x { background: url(../img/dot.svg) } .y { background: url(gone.png) }",
        ),
        ("css/more.css", "h1 { color: red }"),
        ("img/a b.svg", PICTURE),
        ("img/dot.svg", PICTURE),
    ]);
    let outcome = bench.import(&folder).await;
    assert_eq!((outcome.slug.as_str(), outcome.lessons, outcome.files), ("the-book", 5, 4));
    let warnings: Vec<_> = outcome.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "css/book.css: refers to \"css/gone.png\": there is no such file",
            "one.html: refers to \"gone.html\": there is no such file"
        ]
    );

    let outline = bench.get("/v1/courses/the-book/modules").await.json();
    let modules = outline["modules"].as_array().expect("modules").iter().map(|module| {
        let lessons = module["lessons"].as_array().expect("lessons").iter();
        let lessons = lessons.map(|lesson| lesson["slug"].as_str().expect("a slug")).collect::<Vec<_>>();
        (module["title"].as_str().expect("a title"), lessons)
    });
    assert_eq!(
        modules.collect::<Vec<_>>(),
        [
            ("Start here", vec!["index"]),
            ("Part One", vec!["one", "one-a"]),
            ("Part Two", vec!["two"]),
            ("More pages", vec!["appendix"])
        ]
    );

    let page = bench.get("/courses/the-book/lessons/one").await;
    let body = between(page.text(), "<div class=\"lesson-body\">", "</article>");
    assert!(body.contains("<a href=\"/courses/the-book/lessons/two#end\">two</a>, <a>gone</a>"), "{body}");
    assert!(!body.contains("alert(1)") && !body.contains("onclick"), "{body}");
    assert_eq!(page.text().matches("<h1").count(), 1, "the page's own heading is enough");
    let picture = format!("/media/{}", between(body, "<img src=\"/media/", "\""));
    assert!(picture.ends_with("/a%20b.svg"), "{picture}");
    assert_eq!(bench.get(&picture).await.text(), PICTURE);

    let style = between(page.text(), "<link rel=\"stylesheet\" href=\"", "\"");
    let css = bench.get(style).await;
    assert_eq!(css.field("content-type"), "text/css; charset=utf-8");
    assert!(
        css.text().contains("@scope (.lesson-body)") && css.text().contains(".y { background: url(\"\") }"),
        "{}",
        css.text()
    );
    let dot = format!("/media/{}", between(css.text(), "background: url(\"/media/", "\""));
    assert_eq!(bench.get(&dot).await.text(), PICTURE);
    let more = format!("/media/{}", between(css.text(), "@import url(\"/media/", "\""));
    assert!(bench.get(&more).await.text().contains("color: red"));
    assert!(!bench.import(&folder).await.published);
}

pub(crate) async fn the_bundled_course_is_published(bench: Bench) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../course");
    let folder = bench.folder(&[]);
    for part in ["", "pictures"] {
        std::fs::create_dir_all(folder.join(part)).expect("made");
        for entry in std::fs::read_dir(source.join(part)).expect("the course").flatten() {
            if entry.path().is_file() {
                std::fs::copy(entry.path(), folder.join(part).join(entry.file_name())).expect("copied");
            }
        }
    }
    // The film is made at set-up and not a part of the repository; without it the import says what to do.
    match bench.try_import(&folder).await {
        Err(ImportError::Refused(problems)) => {
            assert_eq!(problems.len(), 1, "{problems:#?}");
            assert!(problems[0].to_string().contains("make-video.sh"), "{}", problems[0]);
        }
        other => panic!("{other:?}"),
    }
    write(&folder, &[("media/intro.webm", "film")]);
    let outcome = bench.import(&folder).await;
    assert_eq!((outcome.slug.as_str(), outcome.modules, outcome.lessons), ("how-the-web-stays-fast", 3, 9));
    let page = bench.get("/courses/how-the-web-stays-fast/lessons/01-why-distance-matters").await;
    assert!(page.text().contains("<video controls=\"\""), "{}", page.text());
}

//! An empty backend in the process, and folders to import.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Method, Request, StatusCode},
};
use bytes::Bytes;
use eduham_learning::{
    app::{App, router},
    import::{ImportError, Outcome, import},
    objects::Objects,
    schema::MIGRATIONS,
};
use eduham_platform::{
    clock::from_unix_ms,
    db::{DatabaseUrl, Db},
    serve::Lifecycle,
};
use tempfile::TempDir;
use tower::ServiceExt;

/// When everything in these tests happens.
pub(crate) fn now() -> SystemTime {
    from_unix_ms(1_795_486_897_000)
}

/// A backend of this test's own.
pub(crate) struct Bench {
    pub(crate) app: App,
    pub(crate) url: DatabaseUrl,
    place: TempDir,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The field, or nothing.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

impl Bench {
    pub(crate) async fn sqlite() -> Self {
        let place = tempfile::tempdir().expect("a directory");
        let url = DatabaseUrl::sqlite(place.path().join("eduham.db"));
        Self::at(place, url).await
    }

    pub(crate) async fn open(url: DatabaseUrl) -> Self {
        Self::at(tempfile::tempdir().expect("a directory"), url).await
    }

    async fn at(place: TempDir, url: DatabaseUrl) -> Self {
        let db = Db::open(&url, &MIGRATIONS).await.expect("the database opens");
        let app = App { db, objects: Objects::new(place.path().join("objects")), lifecycle: Lifecycle::new() };
        app.lifecycle.ready();
        Self { app, url, place }
    }

    pub(crate) fn router(&self) -> Router {
        router(self.app.clone())
    }

    pub(crate) async fn send(&self, method: Method, path: &str, fields: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).expect("a request");
        let response = self.router().oneshot(request).await.expect("routers do not fail");
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("the body ends");
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[]).await
    }

    /// A folder with these files, new for each call.
    pub(crate) fn folder(&self, files: &[(&str, &str)]) -> PathBuf {
        let folder = tempfile::tempdir_in(self.place.path()).expect("a directory").keep();
        write(&folder, files);
        folder
    }

    pub(crate) async fn try_import(&self, folder: &Path) -> Result<Outcome, ImportError> {
        import(&self.app.db, &self.app.objects, folder, None, now()).await
    }

    pub(crate) async fn import(&self, folder: &Path) -> Outcome {
        self.try_import(folder).await.expect("the folder is published")
    }

    /// Publishes a small course: two modules, three lessons, one of them outside the preview.
    pub(crate) async fn sample(&self) -> Outcome {
        self.import(&self.folder(SAMPLE)).await
    }

    pub(crate) async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(self.app.db.reader()).await.expect("a number")
    }
}

pub(crate) fn write(folder: &Path, files: &[(&str, &str)]) {
    for (path, content) in files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, content).expect("written");
    }
}

pub(crate) const PICTURE: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\"/>";

pub(crate) const SAMPLE: &[(&str, &str)] = &[
    (
        "course.yaml",
        "slug: knots\ntitle: Knots & bends\nsummary: Eight knots for 100% of uses.\ncover: img/cover.svg\nmodules:\n\
         - title: First\n  lessons: [reef.md, { file: sub/bowline.md, title: The bowline }]\n\
         - title: Second\n  lessons: [{ file: secret.md, free_preview: false }]\n",
    ),
    (
        "reef.md",
        "# The reef knot\n\nSee [the next](sub/bowline.md#how).\n\n![A knot](img/knot.svg \"Right over left\")\n",
    ),
    (
        "sub/bowline.md",
        "## How\n\nBack to [the reef](../reef.md), <script>alert(1)</script> [elsewhere](https://a.test/).\n",
    ),
    ("secret.md", "# Secret knots\n\nThe hidden text.\n"),
    ("img/cover.svg", PICTURE),
    ("img/knot.svg", "<svg xmlns=\"http://www.w3.org/2000/svg\"><path d=\"M0 0L9 9\"/></svg>"),
];

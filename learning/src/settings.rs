//! What an operator sets, all by environment variables.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use eduham_platform::{
    db::DatabaseUrl,
    serve::Drain,
    settings::{Environment, Problems, Secret, Span},
    telemetry::Telemetry,
};

/// The settings of the service; each field names its variable.
#[derive(Debug)]
pub struct Settings {
    /// `DATABASE_URL`: `sqlite://var/eduham.db`.
    pub database: DatabaseUrl,
    /// `EDUHAM_LEARNING_LISTEN`: `127.0.0.1:8101`.
    pub listen: SocketAddr,
    /// `EDUHAM_OBJECTS`: `var/objects`, where the files of courses are kept.
    pub objects: PathBuf,
    /// `EDUHAM_EDGE_ADMIN`: control listeners of all edges, separated by commas; publishing purges each of them.
    pub edges: Vec<EdgeAdmin>,
    /// `EDUHAM_EDGE_TOKEN`: a token of these edges that allows `purge`.
    pub edge_token: Option<Secret>,
    /// `EDUHAM_DRAIN_DELAY` and `EDUHAM_DRAIN_DEADLINE`: `0` and `10s`.
    pub drain: Drain,
}

impl Settings {
    /// Reads them all.
    ///
    /// # Errors
    /// Every variable that cannot be used.
    pub fn read(mut env: Environment) -> Result<(Self, Telemetry), Problems> {
        let drain = Drain::default();
        let settings = Self {
            database: env.value("DATABASE_URL", DatabaseUrl::sqlite("var/eduham.db"), DatabaseUrl::EXPECTS),
            listen: env.value(
                "EDUHAM_LEARNING_LISTEN",
                SocketAddr::from(([127, 0, 0, 1], 8101)),
                "an address and port such as 127.0.0.1:8101",
            ),
            objects: env.value("EDUHAM_OBJECTS", PathBuf::from("var/objects"), "a directory"),
            edges: env.list("EDUHAM_EDGE_ADMIN", "one or more URLs such as http://127.0.0.1:9901, separated by commas"),
            edge_token: env.secret("EDUHAM_EDGE_TOKEN"),
            drain: Drain {
                delay: env.value("EDUHAM_DRAIN_DELAY", Span(drain.delay), "a time such as 5s").0,
                deadline: env.value("EDUHAM_DRAIN_DEADLINE", Span(drain.deadline), "a time such as 10s").0,
            },
        };
        let telemetry = Telemetry::from_env(&mut env);
        env.finish((settings, telemetry))
    }
}

/// The control listener of one edge: `http://host:port`, without a path.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct EdgeAdmin(String);

/// Why an [`EdgeAdmin`] could not be read.
#[derive(Debug, thiserror::Error)]
pub enum NotAnEdgeAdmin {
    /// Not a URL.
    #[error(transparent)]
    Url(<reqwest::Url as FromStr>::Err),
    /// The control listener is reached over loopback or a private network.
    #[error("only http:// is spoken to a control listener")]
    Scheme,
    /// What does not belong there.
    #[error("it takes no path, user or query")]
    Parts,
}

impl EdgeAdmin {
    /// The URL, without a slash at its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EdgeAdmin {
    type Err = NotAnEdgeAdmin;

    fn from_str(text: &str) -> Result<Self, NotAnEdgeAdmin> {
        let url: reqwest::Url = text.parse().map_err(NotAnEdgeAdmin::Url)?;
        if url.scheme() != "http" {
            return Err(NotAnEdgeAdmin::Scheme);
        }
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if !bare || !url.username().is_empty() || url.password().is_some() {
            return Err(NotAnEdgeAdmin::Parts);
        }
        Ok(Self(url.as_str().trim_end_matches('/').to_owned()))
    }
}

impl fmt::Display for EdgeAdmin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_environment_is_enough() {
        let (settings, _) = Settings::read(Environment::default()).expect("defaults");
        assert_eq!(settings.database.to_string(), "sqlite://var/eduham.db");
        assert_eq!(settings.listen.to_string(), "127.0.0.1:8101");
        assert!(settings.edges.is_empty());
    }

    #[test]
    fn edges_are_a_list_of_plain_urls() {
        let env = Environment::of([("EDUHAM_EDGE_ADMIN", "http://127.0.0.1:9901/, http://edge-2.test:9901")]);
        let (settings, _) = Settings::read(env).expect("reads");
        let edges: Vec<_> = settings.edges.iter().map(EdgeAdmin::as_str).collect();
        assert_eq!(edges, ["http://127.0.0.1:9901", "http://edge-2.test:9901"]);
        for wrong in ["https://a.test", "http://a.test/purge", "http://u@a.test", "127.0.0.1:9901"] {
            let problems = Settings::read(Environment::of([("EDUHAM_EDGE_ADMIN", wrong)])).expect_err(wrong);
            assert_eq!(problems.0.len(), 1, "{wrong}");
        }
    }
}

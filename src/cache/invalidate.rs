//! What an unsafe method makes invalid (RFC 9111 4.4).

use http::{HeaderMap, Method, StatusCode, header};

/// A URL on this origin, as [`url_hash`](super::url_hash) takes it apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// Lower case.
    pub scheme: String,
    /// Lower case, without trailing dot.
    pub host: String,
    /// Only where it is not the scheme's.
    pub port: Option<u16>,
    /// Without dot segments; percent-encoding as written, so bring it to the normal form of request targets first.
    pub path: String,
    pub query: Option<String>,
}

/// Methods known to change nothing (RFC 9110 9.2.1, RFC 4918, 3253, 5323). An unknown one may (RFC 9111 4.4).
pub fn is_safe(method: &Method) -> bool {
    matches!(method.as_str(), "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PROPFIND" | "REPORT" | "SEARCH")
}

/// What the answer (without error) to an unsafe request makes invalid: its target, and what `Location` and
/// `Content-Location` name on the same origin.
pub fn invalidated(method: &Method, status: StatusCode, target: &Target, fields: &HeaderMap) -> Vec<Target> {
    if is_safe(method) || !(status.is_success() || status.is_redirection()) {
        return Vec::new();
    }
    let mut targets = vec![target.clone()];
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        let reference = fields.get(&name).and_then(|value| value.to_str().ok());
        if let Some(named) = reference.and_then(|reference| target.resolve(reference))
            && target.is_same_origin(&named)
            && !targets.contains(&named)
        {
            targets.push(named);
        }
    }
    targets
}

impl Target {
    /// The URL that a reference means, seen from this one (RFC 3986 5.2); `None` where it is no http(s) URL.
    pub fn resolve(&self, reference: &str) -> Option<Self> {
        let reference = reference.trim();
        let reference = reference.split_once('#').map_or(reference, |(url, _)| url);
        let scheme = reference
            .split_once(':')
            .filter(|(scheme, _)| scheme.starts_with(|c: char| c.is_ascii_alphabetic()))
            .filter(|(scheme, _)| scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)));
        let (scheme, rest) = match scheme {
            // `http:path` and URLs without an authority name nothing here.
            Some((_, rest)) if !rest.starts_with("//") => return None,
            Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
            None => (self.scheme.clone(), reference),
        };
        if let Some(rest) = rest.strip_prefix("//") {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (authority, path_and_query) = rest.split_at(end);
            let (host, port) = split_authority(authority, default_port(&scheme)?)?;
            let (path, query) = split_query(path_and_query);
            return Some(Self { scheme, host, port, path: remove_dot_segments(path), query });
        }
        let (path, query) = split_query(rest);
        let (path, query) = if path.is_empty() {
            (self.path.clone(), query.or_else(|| self.query.clone()))
        } else if path.starts_with('/') {
            (remove_dot_segments(path), query)
        } else {
            let base = self.path.rfind('/').map_or("/", |at| &self.path[..=at]);
            (remove_dot_segments(&format!("{base}{path}")), query)
        };
        Some(Self { scheme, host: self.host.clone(), port: self.port, path, query })
    }

    /// `scheme://host:port`, as [`Key::origin`](super::Key::origin) has it.
    pub fn origin(&self) -> String {
        match self.port {
            Some(port) => format!("{}://{}:{port}", self.scheme, self.host),
            None => format!("{}://{}", self.scheme, self.host),
        }
    }

    fn is_same_origin(&self, other: &Self) -> bool {
        (&self.scheme, &self.host, self.port) == (&other.scheme, &other.host, other.port)
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// Host and non-default port; user information makes it another's business.
fn split_authority(authority: &str, default: u16) -> Option<(String, Option<u16>)> {
    let colon = authority.rfind(':').filter(|&at| !authority[at..].contains(']'));
    let (host, port) = match colon {
        Some(at) => (&authority[..at], &authority[at + 1..]),
        None => (authority, ""),
    };
    let port = if port.is_empty() { None } else { Some(port.parse().ok()?) };
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    (!host.is_empty() && !host.contains('@')).then_some((host, port.filter(|&port| port != default)))
}

fn split_query(path_and_query: &str) -> (&str, Option<String>) {
    match path_and_query.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (path_and_query, None),
    }
}

/// RFC 3986 5.2.4 for a path that begins with `/`, or is empty and then is `/`.
fn remove_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            _ => {
                kept.push(segment);
                continue;
            }
        }
        if is_last {
            kept.push("");
        }
    }
    format!("/{}", kept.join("/"))
}

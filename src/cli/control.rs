//! A small HTTP client for the control listener of a node, over TCP or a unix socket.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

/// From the first step to the last byte of the answer; above what a purge may wait for other nodes.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of an answer: receipts and reports are small.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// `--admin`: where a node's control listener is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Admin {
    /// `host:port`
    Tcp(String),
    Unix(PathBuf),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("cannot connect to {admin}: {source}; is the edge running, and is this its `admin.address`?")]
    Connect { admin: Admin, source: std::io::Error },
    #[error("{admin} did not answer within {TIMEOUT:?}")]
    Timeout { admin: Admin },
    #[error("{admin} gave no HTTP answer: {source}")]
    Http { admin: Admin, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("cannot start: {0}")]
    Runtime(std::io::Error),
}

/// What the node said.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl Answer {
    /// The sentence of a problem (RFC 9457), or what else there is to show.
    pub(super) fn problem(&self) -> String {
        let problem: Option<serde_json::Value> = serde_json::from_slice(&self.body).ok();
        let detail = problem.as_ref().and_then(|problem| problem["detail"].as_str());
        format!("{}: {}", self.status.as_u16(), detail.map_or_else(|| String::from_utf8_lossy(&self.body), Into::into))
    }
}

/// Asks once, on a runtime of its own. `body` is JSON.
pub(super) fn ask(
    admin: &Admin,
    method: Method,
    path: &str,
    token: Option<&str>,
    body: Option<Vec<u8>>,
) -> Result<Answer, ClientError> {
    let http = |source| ClientError::Http { admin: admin.clone(), source };
    let mut request = Request::builder().method(method).uri(path).header(
        header::HOST,
        match admin {
            Admin::Tcp(authority) => authority,
            Admin::Unix(_) => "localhost",
        },
    );
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let request = request.body(Full::from(body.unwrap_or_default())).map_err(|error| http(error.into()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ClientError::Runtime)?;
    runtime.block_on(async {
        tokio::time::timeout(TIMEOUT, async {
            let connect = |source| ClientError::Connect { admin: admin.clone(), source };
            match admin {
                Admin::Tcp(authority) => exchange(TcpStream::connect(authority).await.map_err(connect)?, request).await,
                Admin::Unix(path) => exchange(UnixStream::connect(path).await.map_err(connect)?, request).await,
            }
            .map_err(http)
        })
        .await
        .unwrap_or_else(|_| Err(ClientError::Timeout { admin: admin.clone() }))
    })
}

async fn exchange<S>(
    stream: S,
    request: Request<Full<Bytes>>,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
        Ok(Answer { status: head.status, body })
    };
    tokio::pin!(connection, answer);
    tokio::select! {
        answer = answer.as_mut() => answer,
        // The connection may end in the same moment as the answer is complete.
        ended = connection => { ended?; answer.await }
    }
}

impl FromStr for Admin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SHAPE: &str = "write it as http://127.0.0.1:9901 or unix:/run/edge-admin.sock";
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(SHAPE) } else { Ok(Self::Unix(path.into())) };
        }
        let uri: Uri = text.parse().map_err(|_| SHAPE)?;
        let authority = uri.authority().ok_or(SHAPE)?;
        if uri.scheme_str() != Some("http") || uri.path() != "/" || uri.query().is_some() {
            return Err(SHAPE);
        }
        Ok(Self::Tcp(format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80))))
    }
}

impl fmt::Display for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => write!(f, "http://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_address_is_a_plain_http_url_or_a_socket() {
        let tcp = |text: &str| Ok(Admin::Tcp(text.into()));
        let rows = [
            ("http://127.0.0.1:9901", tcp("127.0.0.1:9901")),
            ("http://edge.internal", tcp("edge.internal:80")),
            ("http://[::1]:9901/", tcp("[::1]:9901")),
            ("unix:/run/edge.sock", Ok(Admin::Unix("/run/edge.sock".into()))),
            ("https://127.0.0.1:9901", Err(())),
            ("http://127.0.0.1:9901/purge", Err(())),
            ("127.0.0.1:9901", Err(())),
            ("unix:", Err(())),
            ("", Err(())),
        ];
        for (text, expected) in rows {
            assert_eq!(text.parse::<Admin>().map_err(drop), expected, "{text}");
        }
    }
}

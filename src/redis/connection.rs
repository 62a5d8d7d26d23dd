//! Opens a connection to whatever a URL names, and sends commands over it.

use std::{num::NonZeroUsize, time::Duration};

use redis::{
    AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, FromRedisValue, IntoConnectionInfo, RedisConnectionInfo,
    RedisError, TlsMode,
    aio::MultiplexedConnection,
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    io::tcp::TcpSettings,
    sentinel::{SentinelClientBuilder, SentinelServerType},
};

use super::config::{Address, Deployment, Url};

/// The crate's own deadline of an answer, far above ours: an answer may be what a blocking read waits for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// When the kernel gives up a connection on which nothing is acknowledged.
const USER_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that many callers share.
#[derive(Clone)]
pub(super) enum Connection {
    Direct(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    /// Connects and says who we are, within `timeout` for each step of it.
    pub(super) async fn open(url: &Url, timeout: Duration) -> Result<Self, RedisError> {
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(timeout)).set_response_timeout(None);
        match &url.deployment {
            Deployment::Single(address) => {
                let client = redis::Client::open(info(url, address)?)?;
                Ok(Self::Direct(client.get_multiplexed_async_connection_with_config(&config).await?))
            }
            Deployment::Sentinel { sentinels, master } => {
                let sentinels = sentinels.iter().map(|sentinel| addr(url, sentinel));
                let mut builder = SentinelClientBuilder::new(sentinels, master, SentinelServerType::Master)?
                    .set_client_to_redis_db(url.database)
                    .set_client_to_redis_tcp_settings(tcp());
                if url.tls {
                    builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
                }
                if let Some(name) = &url.username {
                    builder = builder.set_client_to_redis_username(name);
                }
                if let Some(password) = &url.password {
                    builder = builder.set_client_to_redis_password(password);
                }
                let mut client = builder.build()?;
                Ok(Self::Direct(client.get_async_connection_with_config(&config).await?))
            }
            Deployment::Cluster(nodes) => {
                let nodes = nodes.iter().map(|node| info(url, node)).collect::<Result<Vec<_>, _>>()?;
                let client = ClusterClient::builder(nodes)
                    .connection_timeout(timeout)
                    .response_timeout(ANSWER_TIMEOUT)
                    // What fails is tried again by the caller, who knows for how long.
                    .retries(1)
                    .max_connection_attempts(NonZeroUsize::MIN)
                    .tcp_settings(tcp())
                    .build()?;
                Ok(Self::Cluster(client.get_async_connection().await?))
            }
        }
    }

    pub(super) async fn query<T: FromRedisValue>(&mut self, command: &redis::Cmd) -> Result<T, RedisError> {
        match self {
            Self::Direct(connection) => command.query_async(connection).await,
            Self::Cluster(connection) => command.query_async(connection).await,
        }
    }
}

fn addr(url: &Url, Address { host, port }: &Address) -> ConnectionAddr {
    if url.tls {
        ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host.clone(), *port)
    }
}

fn info(url: &Url, address: &Address) -> Result<ConnectionInfo, RedisError> {
    let mut who = RedisConnectionInfo::default().set_db(url.database);
    if let Some(name) = &url.username {
        who = who.set_username(name);
    }
    if let Some(password) = &url.password {
        who = who.set_password(password);
    }
    Ok(addr(url, address).into_connection_info()?.set_redis_settings(who).set_tcp_settings(tcp()))
}

fn tcp() -> TcpSettings {
    TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(socket2::TcpKeepalive::new().with_time(USER_TIMEOUT).with_interval(Duration::from_secs(1)))
        .set_user_timeout(USER_TIMEOUT)
}

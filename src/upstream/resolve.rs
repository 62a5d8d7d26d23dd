//! Names of peers: looked up again and again, since what they stand for changes.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::{health::jitter, pool::Pool, target::Place};

/// Between two lookups. The system's resolver hides the time to live, so this is short enough for a moved service and
/// long enough not to burden a name server.
const EVERY: Duration = Duration::from_secs(10);
/// After a failure, and so also until the first success.
const EVERY_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// A lookup that takes longer counts as failed; the thread that does it is left to end by itself.
const LOOKUP_MAX: Duration = Duration::from_secs(5);

/// Keeps the entry `index` of the pool's peers true to its name. Never ends.
pub(super) async fn follow(pool: Arc<Pool>, index: usize, name: String, port: u16) {
    let mut round = 0;
    loop {
        let rest = match lookup(&name, port).await {
            Ok(addresses) => {
                pool.install(index, addresses.into_iter().map(Place::Ip).collect());
                EVERY
            }
            Err(why) => {
                tracing::warn!(
                    upstream = pool.config().name,
                    name,
                    why,
                    "the name of a peer does not resolve; its last addresses stay"
                );
                pool.keep(index);
                EVERY_AFTER_FAILURE
            }
        };
        round += 1;
        tokio::time::sleep(jitter(rest, &name, round)).await;
    }
}

/// Every address of a name, each once, in an order that does not depend on the answer's.
async fn lookup(name: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let found = tokio::time::timeout(LOOKUP_MAX, tokio::net::lookup_host((name, port)))
        .await
        .map_err(|_| format!("no answer within {LOOKUP_MAX:?}"))?
        .map_err(|error| error.to_string())?;
    let mut addresses: Vec<_> = found.collect();
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() { Err("it has no address".to_owned()) } else { Ok(addresses) }
}

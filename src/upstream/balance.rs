//! Which of several peers: rendezvous for rooms, smooth weighted round robin and least requests for the rest.
//!
//! All three look at every candidate; a pool has at most [`super::PEERS_MAX`].

use std::{
    cmp::Ordering,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::peer::Peer;

/// The peer with the highest weighted rendezvous score for `key`: -w / ln(u), u uniform in (0, 1) from the hash of key and
/// peer (Schindelhauer and Schomaker, 2005). A peer wins in proportion to its weight, and when one leaves only its own
/// keys move.
pub(super) fn rendezvous<'a>(candidates: impl Iterator<Item = &'a Arc<Peer>>, key: &str) -> Option<&'a Arc<Peer>> {
    candidates
        .map(|peer| (score(key, peer.seed(), peer.weight()), peer))
        .max_by(|(a, left), (b, right)| a.total_cmp(b).then_with(|| left.id().cmp(right.id())))
        .map(|(_, peer)| peer)
}

/// The rendezvous score of one peer.
pub(super) fn score(key: &str, seed: u64, weight: u32) -> f64 {
    let hash = xxh3_64_with_seed(key.as_bytes(), seed);
    // The upper 53 bits fit a float exactly; the half keeps both ends out, where the logarithm is 0 or infinite.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    let uniform = ((hash >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -f64::from(weight) / uniform.ln()
}

/// The next in smooth weighted round robin (as nginx has it: a, a, b, a, c, a, a for weights 5, 1, 1).
pub(super) fn round_robin<'a>(
    candidates: impl Iterator<Item = &'a Arc<Peer>>,
    turn: &Mutex<()>,
) -> Option<&'a Arc<Peer>> {
    let _turn = turn.lock();
    let mut total = 0;
    let mut best: Option<(i64, &Arc<Peer>)> = None;
    for peer in candidates {
        let weight = i64::from(peer.weight());
        let current = peer.rotation.fetch_add(weight, Relaxed) + weight;
        total += weight;
        if best.is_none_or(|(highest, _)| current > highest) {
            best = Some((current, peer));
        }
    }
    let (_, peer) = best?;
    peer.rotation.fetch_sub(total, Relaxed);
    Some(peer)
}

/// The peer with the fewest active requests for its weight; among equals, round robin.
pub(super) fn least_requests<'a>(
    candidates: impl Iterator<Item = &'a Arc<Peer>> + Clone,
    turn: &Mutex<()>,
) -> Option<&'a Arc<Peer>> {
    let least = candidates.clone().map(|peer| load(peer)).min_by(|a, b| compare(*a, *b))?;
    // A peer that took a request since is no longer equal; when all did, any will do.
    let equals = candidates.clone().filter(|peer| compare(load(peer), least) != Ordering::Greater);
    round_robin(equals, turn).or_else(|| round_robin(candidates, turn))
}

/// Active requests and the weight they are divided by.
fn load(peer: &Peer) -> (u64, u64) {
    (peer.active() as u64, u64::from(peer.weight()).max(1))
}

/// Compares two fractions without dividing.
fn compare(a: (u64, u64), b: (u64, u64)) -> Ordering {
    (u128::from(a.0) * u128::from(b.1)).cmp(&(u128::from(b.0) * u128::from(a.1)))
}

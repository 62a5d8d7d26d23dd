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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::{
        super::{
            config::Balance,
            pool::{Ask, Pool},
            sample,
        },
        *,
    };

    const KEYS: u32 = 20_000;

    /// Which peer each of many rooms goes to.
    fn places(pool: &Pool) -> HashMap<String, String> {
        let peers = pool.peers();
        (0..KEYS)
            .map(|number| format!("course:{number}"))
            .map(|room| {
                let peer = rendezvous(peers.iter(), &room).expect("there are peers");
                (room, peer.id().to_string())
            })
            .collect()
    }

    fn counts(places: &HashMap<String, String>) -> HashMap<&str, f64> {
        let mut counts = HashMap::new();
        places.values().for_each(|id| *counts.entry(id.as_str()).or_insert(0.0) += 1.0);
        counts
    }

    #[test]
    fn rendezvous_gives_each_peer_rooms_in_proportion_to_its_weight() {
        for peers in ["a b", "a b c d e", "a*1 b*2 c*3", "a*1 b*10", "a*100 b*100 c*50"] {
            let pool = sample::pool(Balance::Rendezvous, peers);
            let places = places(&pool);
            let counts = counts(&places);
            let weights: f64 = pool.peers().iter().map(|peer| f64::from(peer.weight())).sum();
            let chi_square: f64 = pool
                .peers()
                .iter()
                .map(|peer| {
                    let expected = f64::from(KEYS) * f64::from(peer.weight()) / weights;
                    let found = counts.get(peer.id().as_str()).copied().unwrap_or(0.0);
                    (found - expected).powi(2) / expected
                })
                .sum();
            // With up to 4 degrees of freedom 99.9% of random draws stay below 18.5.
            assert!(chi_square < 18.5, "{peers}: {counts:?}, chi square {chi_square}");
        }
    }

    #[test]
    fn only_the_rooms_of_a_removed_peer_move() {
        let before = places(&sample::pool(Balance::Rendezvous, "a b c d*2"));
        let after = places(&sample::pool(Balance::Rendezvous, "a c d*2"));
        for (room, peer) in &before {
            if peer != "b" {
                assert_eq!(&after[room], peer, "{room}");
            }
        }
        let moved = before.iter().filter(|(_, peer)| *peer == "b").map(|(room, _)| after[room].as_str());
        let heirs: std::collections::BTreeSet<_> = moved.collect();
        assert_eq!(heirs.into_iter().collect::<Vec<_>>(), ["a", "c", "d"], "they spread over all that are left");
    }

    #[test]
    fn the_rank_depends_on_ids_alone() {
        let before = places(&sample::pool(Balance::Rendezvous, "a b c"));
        let reordered = places(&sample::pool(Balance::Rendezvous, "c b a"));
        assert_eq!(before, reordered, "neither the order nor the ports of the peers matter");
        // Every edge, of whatever version, must rank alike: these are fixed for good.
        let ranked =
            ["course:1", "course:2", "course:3", "course:4", "course:5", "course:6"].map(|room| &*before[room]);
        assert_eq!(ranked, ["b", "c", "b", "c", "c", "a"]);
    }

    #[test]
    fn a_score_is_finite_and_positive() {
        for number in 0..KEYS {
            let score = score(&number.to_string(), u64::from(number), 1);
            assert!(score.is_finite() && score > 0.0, "{number}: {score}");
        }
    }

    #[test]
    fn round_robin_is_smooth() {
        let rows = [
            ("a b c", "abcabcabc"),
            ("a*5 b c", "aabacaaaabacaa"),
            ("a*2 b", "abaabaaba"),
            ("a", "aaa"),
            ("a b*0", "aaa"),
        ];
        for (peers, order) in rows {
            let pool = sample::pool(Balance::RoundRobin, peers);
            let got: String =
                order.chars().map(|_| pool.choose(&Ask::default()).unwrap().peer().id().to_string()).collect();
            assert_eq!(got, order, "{peers}");
        }
    }

    #[test]
    fn least_requests_evens_out_what_is_active() {
        let rows = [("a b c", 9, [3, 3, 3]), ("a*2 b*1 c*1", 8, [4, 2, 2]), ("a*4 b*1 c*0", 10, [8, 2, 0])];
        for (peers, requests, active) in rows {
            let pool = sample::pool(Balance::LeastRequests, peers);
            let leases: Vec<_> = (0..requests).map(|_| pool.choose(&Ask::default()).unwrap()).collect();
            assert_eq!(pool.peers().iter().map(|peer| peer.active()).collect::<Vec<_>>(), active, "{peers}");
            drop(leases);
            assert!(pool.peers().iter().all(|peer| peer.active() == 0));
        }
    }

    #[test]
    fn least_requests_takes_turns_among_equals() {
        let pool = sample::pool(Balance::LeastRequests, "a b*2 c");
        let got: String = (0..8).map(|_| pool.choose(&Ask::default()).unwrap().peer().id().to_string()).collect();
        assert_eq!(got, "bacbbacb", "an idle pool is shared by weight");
    }

    #[test]
    fn least_requests_avoids_a_busy_peer() {
        let pool = sample::pool(Balance::LeastRequests, "a b");
        let first = pool.choose(&Ask::default()).unwrap();
        for _ in 0..5 {
            let next = pool.choose(&Ask::default()).unwrap();
            assert_ne!(next.peer().id(), first.peer().id());
        }
    }
}

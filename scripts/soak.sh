#!/usr/bin/env bash
# `make soak`: 10,000 WebSocket upgrades in a row through the edge and 10,000 more side by side, a class that reads a cold
# object, 100,000 reads and 1,000 purges over two edges that are killed in between, 200 kills of an edge with a disk tier and one
# start over 100,000 stored responses, all of it at once for ten minutes (or as many seconds as EDUHAM_SOAK_FOR says), then ten
# minutes of fuzzing.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

say "== sockets"
EDUHAM_SOAK_UPGRADES=${EDUHAM_SOAK_UPGRADES:-10000} cargo test --locked --test edge -- --exact soak::every_upgrade_of_a_long_row_succeeds
say "== a cold object"
EDUHAM_SOAK_COLD=1 cargo test --release --locked --test edge -- --nocapture cold_object
say "== purges"
EDUHAM_SOAK_READS=${EDUHAM_SOAK_READS:-100000} EDUHAM_SOAK_PURGES=${EDUHAM_SOAK_PURGES:-1000} \
    cargo test --locked --test edge -- --exact --nocapture history::no_read_is_older_than_an_acknowledged_purge
say "== a disk tier that is killed"
EDUHAM_DISK_KILLS=${EDUHAM_DISK_KILLS:-200} EDUHAM_DISK_RESPONSES=${EDUHAM_DISK_RESPONSES:-100000} \
    cargo test --release --locked --test process_disk -- --nocapture --test-threads=1
say "== everything, for ${EDUHAM_SOAK_FOR:-600} s"
cargo build --release --locked --bin eduham-edge
EDUHAM_EDGE=$TARGET/release/eduham-edge EDUHAM_SOAK_FOR=${EDUHAM_SOAK_FOR:-600} tests/e2e/everything.sh
say "== fuzz"
fuzz/run.sh 600

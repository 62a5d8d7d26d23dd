#!/usr/bin/env bash
# `make soak`: 10,000 WebSocket upgrades in a row through the edge and 10,000 more side by side, a class that reads a cold
# object, then ten minutes of fuzzing.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

say "== sockets"
EDUHAM_SOAK_UPGRADES=${EDUHAM_SOAK_UPGRADES:-10000} cargo test --locked --test edge -- --exact soak::every_upgrade_of_a_long_row_succeeds
say "== a cold object"
EDUHAM_SOAK_COLD=1 cargo test --release --locked --test edge -- --nocapture cold_object
say "== fuzz"
fuzz/run.sh 600

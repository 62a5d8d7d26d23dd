#!/usr/bin/env bash
# All that two edges on one Redis do, at once and under faults, for EDUHAM_SOAK_FOR seconds (20): see everything.py. EDUHAM_SEED repeats a run.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"

exec "$SYSTEM_PYTHON" tests/e2e/everything.py --edge "${EDUHAM_EDGE:-$TARGET/debug/eduham-edge}" \
    --seconds "${EDUHAM_SOAK_FOR:-20}" ${EDUHAM_SEED:+--seed "$EDUHAM_SEED"}

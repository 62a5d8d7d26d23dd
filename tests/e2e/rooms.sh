#!/usr/bin/env bash
# Unmodified y-websocket clients through the edge: two in a room see each other, rooms are spread over both nodes, and a killed node loses nothing.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
clients=tests/clients

demo_start

# Rooms until both nodes have answered; each room must be on one.
declare -A nodes=()
for room in $(seq 16); do
    node "$clients/two-clients.mjs" "$EDGE" "pair-$room" >"$VAR/pair" || true
    check "two clients in room pair-$room see each other's edits, on one node" grep -qE '"nodes":\["c[12]"\]' "$VAR/pair"
    nodes[$(grep -oE '"c[12]"' "$VAR/pair" || echo none)]=1
    [ ${#nodes[@]} -lt 2 ] || break
done
check "another room is on the other node" [ ${#nodes[@]} -eq 2 ]

"$SYSTEM_PYTHON" tests/e2e/rooms.py storm "$EDGE" "${PIDS[collab-c1]}" "$VAR/report.json" | tee "$VAR/storm.txt" >&2 || true
count "$VAR/storm.txt"
wait "${PIDS[collab-c1]}" 2>/dev/null || true

# The survivor goes, too, so that nothing is left in memory: what comes back is what the database holds.
stop collab-c1
stop collab-c2
demo_start_collab 1
demo_start_collab 2
both_are_up() { ask "$ADMIN/healthz" && ! body_has collab; }
check "the edge finds both nodes again by itself" eventually 10 both_are_up
"$SYSTEM_PYTHON" tests/e2e/rooms.py fresh "$EDGE" "$VAR/report.json" | tee "$VAR/fresh.txt" >&2 || true
count "$VAR/fresh.txt"

[ "$failed" -eq 0 ]

#!/usr/bin/env bash
# The hostile HTTP/1.1 corpus and the varnishtest scripts against the real edge. The edge must have been built (dev profile).
# Ends with `N passed, M failed`; a failing case is printed with what was expected.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"

here=tests/conformance
work=$(mktemp -d)
finish() {
    stop edge 5
    rm -rf "$work"
}
trap finish EXIT
read -r traffic origin admin < <(free_ports 3)

# Everything goes to one origin and may be stored; nothing is tuned, so that what is tested is what the RFCs say.
cat >"$work/edge.yaml" <<YAML
version: 1
server:
  listeners: [ { address: "127.0.0.1:$traffic" } ]
admin: { address: "127.0.0.1:$admin" }
cache:
  all: { set_cookie: store }
upstreams:
  origin: { peers: [ "127.0.0.1:$origin" ] }
routes:
  - { name: all, match: { path: "/{*rest}" }, upstream: origin, cache: all }
log: { level: warn, access: { to: none } }
YAML

start edge "$work/edge.log" "$TARGET/debug/eduham-edge" run -c "$work/edge.yaml"
wait_for edge "http://127.0.0.1:$admin/readyz" 20 || { cat "$work/edge.log" >&2; exit 1; }

passed=0 failed=0
# count FILE: adds up the last `N passed, M failed` of a suite's output; a suite without one counts as one failure.
count() {
    local line
    line=$(grep -oE '^[0-9]+ passed, [0-9]+ failed' "$1" | tail -n 1) || line="0 passed, 1 failed"
    passed=$((passed + ${line%% *}))
    line=${line#* passed, }
    failed=$((failed + ${line%% *}))
}

say "conformance: hostile HTTP/1.1"
"$SYSTEM_PYTHON" "$here/badinput/run.py" 127.0.0.1 "$traffic" --origin-port "$origin" --cases "$here/badinput/cases-dev.json" | tee "$work/badinput.txt" || true
count "$work/badinput.txt"

say "conformance: varnishtest scripts"
bash "$here/vtc/run.sh" "$traffic" "$origin" "$work/vtc.txt" | tee "$work/vtc-all.txt" || true
[ ! -s "$work/vtc.txt.log" ] || cat "$work/vtc.txt.log"
count "$work/vtc-all.txt"

kill -0 "${PIDS[edge]}" 2>/dev/null || { say "the edge died:"; tail -n 20 "$work/edge.log" >&2; failed=$((failed + 1)); }
grep -i 'panicked' "$work/edge.log" && failed=$((failed + 1))
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]

#!/usr/bin/env bash
# The Autobahn cases for WebSocket (but 9, 12 and 13, which take long) against an echo server, directly and through the edge:
# no case may be worse through the edge; one that is, is run twice more. The edge must have been built (dev profile).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"

work=$(mktemp -d)
finish() {
    stop edge 5
    stop echo 5
    rm -rf "$work"
}
trap finish EXIT
read -r traffic admin echo < <(free_ports 3)
export PYTHONPATH=$TOOLS/autobahn

cat >"$work/edge.yaml" <<YAML
version: 1
server:
  listeners: [ { address: "127.0.0.1:$traffic" } ]
admin: { address: "127.0.0.1:$admin" }
upstreams:
  echo: { peers: [ "127.0.0.1:$echo" ] }
routes:
  - { name: sockets, match: { path: "/{*rest}" }, upstream: echo, websocket: {} }
log: { level: warn, access: { to: none } }
YAML

start echo "$work/echo.log" "$SYSTEM_PYTHON" tests/e2e/echo.py "$echo"
start edge "$work/edge.log" "$TARGET/debug/eduham-edge" run -c "$work/edge.yaml"
wait_for edge "http://127.0.0.1:$admin/readyz" 20 || { cat "$work/edge.log" >&2; exit 1; }
for _ in $(seq 100); do
    ! port_is_free "$echo" || sleep 0.1
done

# run_cases ROUND OPTION...: both ways, with reports in $work/ROUND.
run_cases() {
    local round=$1 way
    shift
    for way in direct:$echo edge:$traffic; do
        # A case that fails makes the runner fail; what counts is the comparison.
        timeout 120 "$SYSTEM_PYTHON" -c 'from kosoku._cli import main; raise SystemExit(main())' -m fuzzingclient \
            "$@" -o "$work/$round/${way%:*}" "127.0.0.1:${way#*:}" >"$work/${way%:*}.log" 2>&1 || true
    done
}

rounds=("$work/1")
run_cases 1 -x '9.*' -x '12.*' -x '13.*' -p 4
for round in 2 3; do
    read -ra worse < <("$SYSTEM_PYTHON" tests/e2e/autobahn.py --worse "${rounds[@]}") || true
    [ ${#worse[@]} -gt 0 ] || break
    run_cases $round "${worse[@]/#/-i}"
    rounds+=("$work/$round")
done
"$SYSTEM_PYTHON" tests/e2e/autobahn.py "${rounds[@]}" || { tail -n 5 "$work"/*.log >&2; exit 1; }

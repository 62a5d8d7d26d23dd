# Shared by the end-to-end scripts (sourced): the demo on free ports in a folder of its own, a request, and checks that are counted.
# shellcheck shell=bash
read -r DEMO_EDGE_PORT DEMO_ADMIN_PORT DEMO_LEARNING_PORT DEMO_COLLAB1_PORT DEMO_COLLAB2_PORT < <(
    source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"
    free_ports 5
)
export DEMO_EDGE_PORT DEMO_ADMIN_PORT DEMO_LEARNING_PORT DEMO_COLLAB1_PORT DEMO_COLLAB2_PORT
DEMO_VAR=$(mktemp -d)
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/demo.sh"

passed=0 failed=0
finish() {
    local status=$?
    demo_stop
    if [ "$failed" -gt 0 ] || [ "$status" -ne 0 ]; then
        for log in "$VAR"/log/*.log; do
            say "--- $(basename "$log")"
            tail -n 15 "$log" | cut -c 1-400 >&2
        done
    fi
    rm -rf "$DEMO_VAR"
    echo "$passed passed, $failed failed"
}
trap finish EXIT

# check SENTENCE COMMAND...: the sentence holds when the command succeeds.
check() {
    local sentence=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
        say "ok    $sentence"
    else
        failed=$((failed + 1))
        say "FAIL  $sentence"
        say "      $*"
        [ ! -s "$VAR/head" ] || sed 's/^/      | /' "$VAR/head" >&2
    fi
}

# count FILE: adds the last `N passed, M failed` of another program's output; one without it counts as a failure.
count() {
    local line
    line=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$1" | tail -n 1)
    passed=$((passed + $(grep -oE '^[0-9]+' <<<"${line:-0}")))
    line=${line:-1 failed}
    failed=$((failed + $(grep -oE '[0-9]+ failed' <<<"$line" | grep -oE '[0-9]+')))
}

# ask URL [CURL OPTION...]: one request; STATUS is its status, the head and the body are in $VAR/head and $VAR/body.
ask() {
    : >"$VAR/head"
    STATUS=$(curl -s --max-time 20 -D "$VAR/head" -o "$VAR/body" -w '%{http_code}' "$@") || true
}

# field NAME: the value of a field of the last answer.
field() { sed -n "s/^$1: *//Ip" "$VAR/head" | tr -d '\r' | head -n 1; }
field_is() { [ "$(field "$1")" = "$2" ]; }
# field_has NAME REGEX
field_has() { field "$1" | grep -qE -- "$2"; }
status_is() { [[ "$STATUS" =~ ^($1)$ ]]; }
body_has() { grep -qF -- "$1" "$VAR/body"; }
body_is() { cmp -s "$1" "$VAR/body"; }
is_hit() { field_has Cache-Status '^eduham-edge; hit; ttl=[0-9]+' && field_has Age '^[0-9]+$'; }
is_miss() { field_has Cache-Status '^eduham-edge; fwd=uri-miss'; }
is_from_origin() { ! field_has Age . && ! field_has Cache-Status '\bhit\b'; }

# eventually SECONDS COMMAND...: retried until it succeeds; for what the system does by itself after a moment.
eventually() {
    local tenths=$(($1 * 10))
    shift
    until "$@"; do
        [ $((tenths--)) -gt 0 ] || return 1
        sleep 0.1
    done
}

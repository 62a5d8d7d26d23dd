# The demo's parts and how each is started (sourced by run.sh and by the end-to-end tests, which choose other ports and folders).
# shellcheck shell=bash
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

EDGE_PORT=${DEMO_EDGE_PORT:-8080}
ADMIN_PORT=${DEMO_ADMIN_PORT:-9901}
LEARNING_PORT=${DEMO_LEARNING_PORT:-8101}
COLLAB1_PORT=${DEMO_COLLAB1_PORT:-8201}
COLLAB2_PORT=${DEMO_COLLAB2_PORT:-8202}
VAR=${DEMO_VAR:-$ROOT/var}
PROFILE=${PROFILE:-dev}

EDGE=http://127.0.0.1:$EDGE_PORT
ADMIN=http://127.0.0.1:$ADMIN_PORT
LEARNING=http://127.0.0.1:$LEARNING_PORT
BIN=$TARGET/$([ "$PROFILE" = dev ] && echo debug || echo "$PROFILE")

# What the backends are told. All share one SQLite file; publishing asks this edge to forget what changed.
export DATABASE_URL=sqlite://$VAR/eduham.db
export EDUHAM_OBJECTS=$VAR/objects
export EDUHAM_EDGE_ADMIN=$ADMIN

demo_build() { cargo build --locked --quiet --profile "$PROFILE" --workspace --bins; }

# The ports, each with the variable that moves it.
demo_check_ports() {
    local port variable
    while read -r port variable; do
        port_is_free "$port" || die "port $port is taken. End what uses it (ss -ltnp 'sport = :$port' shows it), or choose another: $variable=PORT make run"
    done <<PORTS
$EDGE_PORT DEMO_EDGE_PORT
$ADMIN_PORT DEMO_ADMIN_PORT
$LEARNING_PORT DEMO_LEARNING_PORT
$COLLAB1_PORT DEMO_COLLAB1_PORT
$COLLAB2_PORT DEMO_COLLAB2_PORT
PORTS
}

# Prints the path of the edge's configuration: config/edge.yaml, or a copy with the chosen ports.
demo_config() {
    local usual="8080 9901 8101 8201 8202" chosen="$EDGE_PORT $ADMIN_PORT $LEARNING_PORT $COLLAB1_PORT $COLLAB2_PORT"
    if [ "$chosen" = "$usual" ]; then
        echo config/edge.yaml
        return
    fi
    sed -E "s/:8080\b/:$EDGE_PORT/; s/:9901\b/:$ADMIN_PORT/; s/:8101\b/:$LEARNING_PORT/; s/:8201\b/:$COLLAB1_PORT/; s/:8202\b/:$COLLAB2_PORT/" config/edge.yaml >"$VAR/edge.yaml"
    echo "$VAR/edge.yaml"
}

# demo_import DIRECTORY [OPTION...]: publishes a course folder, and waits until the edge has forgotten what it had of it.
demo_import() {
    "$BIN/eduham-learning" import "$@" || return
    local tenths=100
    until curl -fsS --max-time 2 "$LEARNING/v1/status" | grep -q '"purges_pending":0\b'; do
        [ $((tenths--)) -gt 0 ] || { say "the edge was not purged within 10 s"; return 1; }
        sleep 0.1
    done
}

demo_start_learning() {
    EDUHAM_LEARNING_LISTEN=127.0.0.1:$LEARNING_PORT start learning "$VAR/log/learning.log" "$BIN/eduham-learning" serve
    wait_for learning "$LEARNING/healthz"
}

# demo_start_collab N: collaboration node c1 or c2.
demo_start_collab() {
    local port=COLLAB$1_PORT
    EDUHAM_COLLAB_ID=c$1 EDUHAM_COLLAB_LISTEN=127.0.0.1:${!port} start "collab-c$1" "$VAR/log/collab-c$1.log" "$BIN/eduham-collab" serve
    wait_for "collab-c$1" "http://127.0.0.1:${!port}/healthz"
}

demo_start_edge() {
    start edge "$VAR/log/edge.log" "$BIN/eduham-edge" run -c "$(demo_config)"
    wait_for edge "$ADMIN/readyz"
}

# The edge first: it closes its listeners while the backends still answer what is in flight.
demo_stop() {
    local name
    for name in edge collab-c1 collab-c2 learning; do stop "$name"; done
}

# demo_last_words NAME: the end of its log.
demo_last_words() {
    say "--- the last lines of $VAR/log/$1.log:"
    tail -n 20 "$VAR/log/$1.log" >&2
}

demo_start() {
    mkdir -p "$VAR/log"
    local failed
    demo_start_learning || failed=learning
    [ -n "${failed:-}" ] || demo_start_collab 1 || failed=collab-c1
    [ -n "${failed:-}" ] || demo_start_collab 2 || failed=collab-c2
    [ -n "${failed:-}" ] || demo_start_edge || failed=edge
    [ -z "${failed:-}" ] && return
    demo_last_words "$failed"
    return 1
}

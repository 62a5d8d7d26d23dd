# What all scripts share (sourced, not run): where things are, words on stderr, ports and waiting.
# shellcheck shell=bash
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT" || exit

# Prebuilt tools live outside the checkout, so that a fresh clone finds them; each list of scripts/ in a folder of its own.
TOOLS=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/eduham-edge/tools
PATH=$PATH:$TOOLS/check/bin:$TOOLS/nextest/bin
[ -d "${HOME:-/nonexistent}/.cargo/bin" ] && PATH=$PATH:$HOME/.cargo/bin
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}

# The system's own Python, where there is one: the wheels then do not depend on which version a user has active.
SYSTEM_PYTHON=/usr/bin/python3
[ -x "$SYSTEM_PYTHON" ] || SYSTEM_PYTHON=python3

say() { printf '%s\n' "$*" >&2; }
die() {
    say "error: $*"
    exit 1
}

# port_is_free PORT: nothing accepts on 127.0.0.1:PORT.
port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# free_ports N: N ports that were free a moment ago, all different.
free_ports() {
    "$SYSTEM_PYTHON" - "$1" <<'PY'
import socket, sys
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(s.getsockname()[1] for s in held))
PY
}

# Processes of this script, by name. They end with it, also when it is killed: the kernel then sends them SIGTERM.
declare -A PIDS=()

# start NAME LOGFILE COMMAND...: in a session of its own, so that Ctrl-C reaches this script alone and it can stop all in order.
start() {
    local name=$1 log=$2
    shift 2
    mkdir -p "$(dirname "$log")"
    setsid setpriv --pdeathsig TERM -- "$@" >>"$log" 2>&1 </dev/null &
    PIDS[$name]=$!
}

# stop NAME [SECONDS]: SIGTERM, and SIGKILL when it is still there after the grace (10 s).
stop() {
    local pid=${PIDS[$1]:-} tenths=$((${2:-10} * 10))
    [ -n "$pid" ] || return 0
    kill -TERM "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null && [ $((tenths--)) -gt 0 ]; do sleep 0.1; done
    kill -KILL "$pid" 2>/dev/null && say "$1 did not stop in time and was killed"
    wait "$pid" 2>/dev/null || true
    unset "PIDS[$1]"
}

# wait_for NAME URL [SECONDS]: until URL answers 2xx; fails at once when the process NAME has ended.
wait_for() {
    local name=$1 url=$2 tenths=$((${3:-30} * 10))
    until curl -fsS -o /dev/null --max-time 2 "$url" 2>/dev/null; do
        kill -0 "${PIDS[$name]}" 2>/dev/null || { say "$name ended while starting"; return 1; }
        [ $((tenths--)) -gt 0 ] || { say "$name does not answer on $url"; return 1; }
        sleep 0.1
    done
}

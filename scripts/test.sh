#!/usr/bin/env bash
# `make test`: every suite, one after the other; a failing one does not hide the others. Ends with the sum of all.
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
passed=0 failed=0 report=()

# suite NAME COMMAND...: runs it, shows its output, and adds its last `N passed`, `M failed` to the sum. One that
# does not count by itself is one test, and one that fails without saying how often has one failure.
suite() {
    local name=$1 begin=$SECONDS status ok bad
    shift
    say "== $name"
    "$@" </dev/null 2>&1 | tee "$logs/out"
    status=${PIPESTATUS[0]}
    ok=$(grep -E '[0-9]+ passed' "$logs/out" | tail -n 1 | grep -oE '[0-9]+ passed' | grep -oE '[0-9]+')
    bad=$(grep -E '[0-9]+ passed' "$logs/out" | tail -n 1 | grep -oE '[0-9]+ (failed|timed out)' | grep -oE '[0-9]+' | awk '{ s += $1 } END { print s + 0 }')
    [ "$status" -ne 0 ] || [ -n "$ok" ] || ok=1
    [ "$status" -eq 0 ] || [ "${bad:-0}" -gt 0 ] || bad=1
    passed=$((passed + ${ok:-0})) failed=$((failed + ${bad:-0}))
    report+=("$(printf '%-14s %5d passed %3d failed %5d s' "$name" "${ok:-0}" "${bad:-0}" $((SECONDS - begin)))")
}

cargo build --workspace --all-targets --locked || die "the build failed"
suite rust cargo nextest run --workspace --locked
suite examples cargo test --workspace --doc --locked --quiet
suite fuzz fuzz/run.sh 30
suite conformance tests/conformance/run-edge.sh
suite end-to-end tests/e2e/run.sh

printf '%s\n' "${report[@]}" >&2
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]

#!/usr/bin/env bash
# `make test`: every suite, one after the other; a failing one does not hide the others. Ends with the sum of all.
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
passed=0 failed=0 report=()

# tally FILE: prints how many passed and failed by the runner's own summary: nextest's line, else a suite's last
# `N passed, M failed`, else the sum over rustdoc's results. Nothing, where the output counts nothing.
tally() {
    awk '
        function count(word) { return match($0, "[0-9]+ " word) ? substr($0, RSTART, RLENGTH) + 0 : 0 }
        /tests run: / { ok = count("passed"); bad = count("failed") + count("timed out"); best = 3 }
        /^[0-9]+ passed, [0-9]+ failed/ && best <= 2 { ok = count("passed"); bad = count("failed"); best = 2 }
        /^test result: / && best <= 1 { ok += count("passed"); bad += count("failed"); best = 1 }
        END { if (best) print ok, bad }' "$1"
}

# suite NAME COMMAND...: runs it, shows its output, and adds what it counts to the sum. One that does not count is one test,
# and one that fails without a failure counted has one.
suite() {
    local name=$1 begin=$SECONDS status ok bad
    shift
    say "== $name"
    "$@" </dev/null 2>&1 | tee "$logs/out"
    status=${PIPESTATUS[0]}
    read -r ok bad < <(tally "$logs/out") || { ok=$((status == 0)) bad=0; }
    [ "$status" -eq 0 ] || [ "$bad" -gt 0 ] || bad=1
    passed=$((passed + ok)) failed=$((failed + bad))
    report+=("$(printf '%-14s %5d passed %3d failed %5d s' "$name" "$ok" "$bad" $((SECONDS - begin)))")
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

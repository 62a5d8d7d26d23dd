#!/usr/bin/env bash
# The end-to-end scripts, one after the other, against binaries that are built already: run.sh [NAME...]
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"

scripts=(course handbook rooms autobahn everything)
[ $# -eq 0 ] || scripts=("$@")
passed=0 failed=0
for name in "${scripts[@]}"; do
    say "-- $name"
    out=$(timeout 300 "tests/e2e/$name.sh" | tee /dev/stderr | grep -E '^[0-9]+ passed, [0-9]+ failed$' | tail -n 1)
    [ -n "$out" ] || out="0 passed, 1 failed"
    passed=$((passed + ${out%% *}))
    out=${out#* passed, }
    failed=$((failed + ${out%% *}))
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]

#!/usr/bin/env bash
# A big real course: the Debian handbook imported, every page and picture fetched twice through the edge.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

"$SYSTEM_PYTHON" tests/e2e/handbook.py course /usr/share/doc/debian-handbook/html/en-US "$VAR/handbook"
demo_import "$VAR/handbook" >/dev/null
demo_start
"$SYSTEM_PYTHON" tests/e2e/handbook.py fetch "$EDGE" "$LEARNING" >"$VAR/fetch.txt" || true
cat "$VAR/fetch.txt" >&2
passed=$(grep -oE '^[0-9]+ passed' "$VAR/fetch.txt" | cut -d' ' -f1) || passed=0
failed=$(grep -oE '[0-9]+ failed$' "$VAR/fetch.txt" | cut -d' ' -f1) || failed=1
[ "$failed" -eq 0 ]

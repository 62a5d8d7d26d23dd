#!/usr/bin/env bash
# A big real course: the Debian handbook imported, every page and picture fetched twice through the edge.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

demo_start
demo_import /usr/share/doc/debian-handbook/html/en-US --slug debian-handbook >/dev/null
"$SYSTEM_PYTHON" tests/e2e/handbook.py "$EDGE" "$LEARNING" | tee "$VAR/fetch.txt" >&2 || true
count "$VAR/fetch.txt"
[ "$failed" -eq 0 ]

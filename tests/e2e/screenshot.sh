#!/usr/bin/env bash
# A course page through the edge as Chromium shows it: screenshot.sh [URL] [FILE.png]. For eyes, so not part of `make test`.
# Without a URL it starts the demo on free ports and takes the sample course. Needs Debian's package `chromium`.
set -euo pipefail
url=${1:-}
picture=$(realpath -m "${2:-screenshot.png}")
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
command -v chromium >/dev/null || die "chromium is missing: apt-get install chromium"

if [ -z "$url" ]; then
    course/make-video.sh
    demo_start
    demo_import course >/dev/null
    ask "$EDGE/"
    url=$EDGE$(grep -oE '/courses/[a-z0-9-]+' "$VAR/body" | head -n 1)
fi
chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update \
    --disable-sync --user-data-dir="$VAR/chromium" --window-size=1280,1600 --hide-scrollbars --screenshot="$picture" "$url" 2>"$VAR/chromium.log"
check "the picture is there" [ -s "$picture" ]
say "$picture"

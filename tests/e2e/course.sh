#!/usr/bin/env bash
# A student's way through the sample course, all by the edge's port: pages, video, API, a new edition, the origin gone and back.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

course/make-video.sh
cp -r course "$VAR/course"
demo_start
demo_import "$VAR/course" >/dev/null

ask "$EDGE/"
check "the start page lists the course" status_is 200
course=$(grep -oE '/courses/[a-z0-9-]+' "$VAR/body" | head -n 1)
ask "$EDGE$course"
check "the first reader's page comes from the origin" is_miss
ask "$EDGE$course"
check "the second reader's page is a hit with ttl and Age" is_hit
check "the hit is a 200" status_is 200
cp "$VAR/body" "$VAR/page"
ask "$LEARNING$course"
check "the hit has the origin's bytes" body_is "$VAR/page"
for accept in br zstd gzip; do
    coded() { ask -H "Accept-Encoding: $accept" "$EDGE$course" && field_is Content-Encoding "$accept"; }
    check "a reader that wants $accept gets it once it is made" eventually 5 coded
    check "it is of the same tag, weakly" field_has ETag '^W/'
done
# What curl can decode depends on how it was built; it says so itself.
coded_for_curl() { ask --compressed "$EDGE$course" && field_has Content-Encoding .; }
check "curl gets a coding that it wants" eventually 5 coded_for_curl
check "and reads the same page" body_is "$VAR/page"
lesson=$(grep -oE "$course/lessons/[a-z0-9-]+" "$VAR/page" | head -n 1)

# The video: a range is exact, stored or not.
for page in $(grep -oE "$course/lessons/[a-z0-9-]+" "$VAR/page" | sort -u); do
    curl -s "$LEARNING$page"
done | grep -oE '/media/[^"'\'' )]+\.(mp4|webm)' | head -n 1 >"$VAR/video"
video=$(cat "$VAR/video")
curl -s -o "$VAR/video.whole" "$LEARNING$video"
size=$(stat -c %s "$VAR/video.whole")
check "the course has a video of some size" [ "$size" -gt 20000 ]
dd if="$VAR/video.whole" bs=1 skip=1000 count=9000 status=none >"$VAR/video.range"
for reader in first second; do
    ask -r 1000-9999 "$EDGE$video"
    check "the $reader reader's range of the video is 206" status_is 206
    check "the $reader reader's range says which bytes it holds" field_is Content-Range "bytes 1000-9999/$size"
    check "the $reader reader's range is exact" body_is "$VAR/video.range"
done
ask "$EDGE$video"
check "the whole video is exact" body_is "$VAR/video.whole"
ask -r 1000-9999 "$EDGE$video"
check "a range of the stored video is a hit" is_hit
check "a range from the store is exact" body_is "$VAR/video.range"

for call in first second; do
    ask "$EDGE/v1/status"
    check "the $call API call is answered" status_is 200
    check "the $call API call is not served from the store" is_from_origin
done

# A new edition: importing purges the edge.
ask "$EDGE$lesson"
ask "$EDGE$lesson"
check "the lesson is a hit before the new edition" is_hit
find "$VAR/course" -name '*.md' -exec sed -i '$a\\nThe second edition adds this sentence.' {} +
demo_import "$VAR/course" >/dev/null
new_edition() { ask "$EDGE$lesson" && body_has "The second edition adds this sentence."; }
check "the new edition is served within 5 s" eventually 5 new_edition
ask "$EDGE$lesson"
check "the new edition is a hit again" is_hit

# The origin is gone: what may be stale stays, the rest says why it fails.
ask "$EDGE$course"
stop learning 1
ask "$EDGE$course"
check "with the origin gone a stored page is still served" status_is 200
curl -s -o /dev/null -X POST -H 'Content-Type: application/json' -d "{\"urls\":[\"$EDGE$course\"],\"soft\":true}" "$ADMIN/purge"
ask "$EDGE$course"
check "with the origin gone a page that has just become stale is served" status_is 200
check "the edge says that it is stale" field_has Cache-Status 'hit; ttl=(-[0-9]+|0)|fwd=stale'
ask "$EDGE/courses/no-such-course"
check "what is not stored fails with a gateway status" status_is "502|503|504"
check "the failure names its reason" field_has Proxy-Status '^eduham-edge; *error='
ask -X POST "$EDGE/v1/status"
check "an unsafe request fails with a gateway status" status_is "502|503|504"

demo_start_learning
origin_is_back() { ask "$EDGE/courses/no-such-course" && status_is 404; }
check "the edge finds the origin again by itself" eventually 10 origin_is_back

[ "$failed" -eq 0 ]

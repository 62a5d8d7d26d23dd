#!/usr/bin/env bash
# `make run`: the sample course behind one edge, with a learning backend and two collaboration nodes, until Ctrl-C.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/demo.sh"

demo_check_ports
say "building (profile $PROFILE; the first time takes minutes)"
demo_build
mkdir -p "$VAR/log"

trap demo_stop EXIT
trap 'say ""; say "stopping"; exit 0' INT TERM HUP

course/make-video.sh
say "importing the sample course"
demo_import course
demo_start || exit 1

page=$EDGE/courses/reading-the-night-sky
cat <<WORDS

EduHam Edge is up. Open in a browser:
  $page        the sample course, through the edge
  $ADMIN/metrics    what Prometheus scrapes

Try (each answer says in Cache-Status how it came about):
  curl -sI $page; curl -sI $page | grep -iE '^(age|cache-status)'
  curl -s -o part.bin -D - -r 1000-1999 $EDGE/media/stars.mp4
  curl -si $EDGE/api/v1/courses
  curl -s $ADMIN/metrics | grep ^edge_cache_requests_total

Logs: ${VAR#"$ROOT"/}/log/*.log. Ctrl-C stops everything.
WORDS

wait -n -p ended "${PIDS[@]}" || true
for name in "${!PIDS[@]}"; do
    if [ "${PIDS[$name]}" = "${ended:-}" ]; then
        say "error: $name has ended by itself; stopping the others"
        demo_last_words "$name"
    fi
done
exit 1

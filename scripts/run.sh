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
demo_start || exit 1
say "importing the sample course"
demo_import course

# Addresses are asked of the origin, so that the edge's store is still empty for whoever tries them.
first_link() { curl -fsS "$LEARNING$1" | grep -oE "$2" | head -n 1; }
course=$(first_link / '/courses/[a-z0-9-]+')
lesson=$(first_link "$course" "$course/lessons/[a-z0-9-]+")
page=$EDGE$course
film=$EDGE$(first_link "$lesson" '/media/[^" ]+\.webm')
cat <<WORDS

EduHam Edge is up. Open in a browser:
  $page     the sample course, through the edge
  $ADMIN/metrics     what Prometheus scrapes

Try (Cache-Status says how each answer came about):
  for i in 1 2; do curl -s -o /dev/null -D - $page | grep -iE '^(age|cache-status)'; done
  curl -s -o /dev/null -D - -r 1000-1999 $film
  curl -si $EDGE/v1/status
  curl -s $ADMIN/metrics | grep ^edge_cache_requests_total

Logs: ${VAR#"$ROOT"/}/log/*.log. Ctrl-C stops everything.
WORDS

wait -n -p ended "${PIDS[@]}" 2>/dev/null || true
for name in "${!PIDS[@]}"; do
    if [ "${PIDS[$name]}" = "${ended:-}" ]; then
        say "error: $name has ended by itself; stopping the others"
        demo_last_words "$name"
    fi
done
exit 1

#!/usr/bin/env bash
# `make check`: everything about the source that a machine can judge. Stops at the first objection.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

step() {
    say "check: $1"
    shift
    "$@"
}

step "format" cargo fmt --all --check
step "spelling" typos
# Unused and unassigned variables are not judged, since sourced files give and take some; the varnishtest runner stays as it came.
mapfile -t shell_files < <(git ls-files '*.sh' .ci/run ':!tests/conformance/vtc')
step "shell" shellcheck --severity=warning --exclude=SC2034,SC2154 "${shell_files[@]}"
step "clippy" cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
step "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked --quiet
step "licences, versions, sources" cargo-deny --locked --log-level error check --hide-inclusion-graph bans licenses sources
step "unused dependencies" cargo-shear
say "check: no objection"

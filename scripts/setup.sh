#!/usr/bin/env bash
# Brings what a make target needs and this machine lacks: setup.sh run | test | check | bench. Quick when nothing is missing.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Each line: the Debian package, then what shows that it is there (a command, a file, or a function of this script).
build_needs="
    gcc              gcc
    libc6-dev        /usr/include/stdio.h
    cmake            cmake
    make             make
    pkg-config       pkg-config
    ca-certificates  /etc/ssl/certs/ca-certificates.crt"
run_needs="$build_needs
    curl             curl
    ffmpeg           ffmpeg"
tools_needs="
    python3          python3
    python3-pip      has_pip"
test_needs="$run_needs $tools_needs
    g++              c++
    varnish          varnishtest
    postgresql       has_postgres
    debian-handbook  /usr/share/doc/debian-handbook/html/en-US/index.html
    redis-server     redis-server
    nodejs           has_node
    npm              npm"
check_needs="$build_needs $tools_needs
    shellcheck       shellcheck"
bench_needs="$run_needs $tools_needs
    nginx-light      nginx
    haproxy          haproxy
    wrk              wrk
    varnish          varnishd
    nghttp2-client   h2load
    openssl          openssl
    util-linux       taskset
    linux-perf       perf"

has_pip() { "$SYSTEM_PYTHON" -m pip --version >/dev/null 2>&1; }
has_node() { command -v node >/dev/null && [ "$(node -p 'process.versions.node.split(".")[0]')" -ge 18 ]; }
has_postgres() { compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; }
is_there() { case $1 in /*) [ -e "$1" ] ;; has_*) "$1" ;; *) command -v "$1" >/dev/null ;; esac }

# Installs the missing packages of the list. Services of new packages are not started: the tests bring up their own.
packages() {
    local package proof missing=()
    while read -r package proof; do
        [ -n "$package" ] && ! is_there "$proof" && missing+=("$package")
    done <<<"$1"
    [ ${#missing[@]} -eq 0 ] && return
    # A slim image leaves out /usr/share/doc, but the handbook there is what a test imports.
    local install="apt-get install -y --no-install-recommends --reinstall -o Dpkg::Options::=--path-include=/usr/share/doc/debian-handbook/* ${missing[*]}"
    command -v apt-get >/dev/null || die "missing: ${missing[*]} (Debian's names), and this system has no apt-get to bring them"
    [ "$(id -u)" -eq 0 ] || die "missing packages. Run this once, then try again:
    sudo apt-get update && sudo $install"
    say "installing ${missing[*]}"
    local policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    local log
    log=$(mktemp)
    { apt-get update && $install; } >"$log" 2>&1 </dev/null || { tail -n 20 "$log" >&2; die "apt-get could not install ${missing[*]}; its whole output is in $log"; }
    rm -f "$log"
    while read -r package proof; do
        [ -z "$package" ] || is_there "$proof" || die "$package is installed, but $proof is still missing or too old"
    done <<<"$1"
}

# wheels NAME: installs the pinned wheels of scripts/tools-NAME.txt, once for each content of that file.
wheels() {
    local list=scripts/tools-$1.txt folder=$TOOLS/$1
    cmp -s "$list" "$folder/installed.txt" && return
    say "installing the tools of $list"
    rm -rf "$folder"
    "$SYSTEM_PYTHON" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$folder" -r "$list" </dev/null
    cp "$list" "$folder/installed.txt"
}

# npm_packages FOLDER: what its package-lock.json names, once for each content of that file.
npm_packages() {
    cmp -s "$1/package-lock.json" "$1/node_modules/installed-lock.json" && return
    say "installing the npm packages of $1"
    npm ci --prefix "$1" --no-audit --no-fund --loglevel=error </dev/null >&2
    cp "$1/package-lock.json" "$1/node_modules/installed-lock.json"
}

rust() {
    command -v cargo >/dev/null || die "Rust is missing: install it with rustup (1.95 or newer), or put cargo into PATH"
    local have
    have=$(rustc --version | cut -d' ' -f2)
    [ "$(printf '%s\n' 1.95 "$have" | sort -V | head -n1)" = 1.95 ] || die "Rust $have is too old: 1.95 or newer is needed (rustup update)"
}

rust
case ${1:-run} in
run) packages "$run_needs" ;;
test)
    packages "$test_needs"
    command -v cargo-nextest >/dev/null || wheels nextest
    wheels autobahn
    npm_packages tests/clients
    ;;
check)
    packages "$check_needs"
    wheels check
    ;;
bench) packages "$bench_needs" ;;
*) die "usage: scripts/setup.sh run | test | check | bench" ;;
esac

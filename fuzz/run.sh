#!/bin/sh
# fuzz/run.sh [SECONDS] [TARGET...]: runs the fuzz targets, all at once, for so many seconds each (30).
#
# Works on the stable compiler: the coverage instrumentation of LLVM is asked for by plain codegen options, which is what
# cargo-fuzz does without a sanitizer. FUZZ_SEED repeats a run. A find is kept in `<target directory>/fuzz/artifacts`,
# what widened the coverage in `<target directory>/fuzz/found`: the next run begins with it. The seeds in `fuzz/corpus`
# are only read; to keep a find, copy it there under a name that says what it is.
set -eu

target_dir=$(realpath -m "${CARGO_TARGET_DIR:-$(dirname "$0")/../target}")/fuzz
cd "$(dirname "$0")"
seconds=${1:-30}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- record request response target
seed=${FUZZ_SEED:-$(date +%s)}

case $seconds in
    '' | *[!0-9]*) echo "usage: fuzz/run.sh [SECONDS] [TARGET...], SECONDS being a whole number" >&2; exit 2 ;;
esac
if ! command -v c++ >/dev/null; then # libFuzzer itself is C++
    if [ "$(id -u)" != 0 ]; then
        echo "fuzzing needs a C++ compiler: apt-get install g++" >&2
        exit 2
    fi
    apt-get install -y --no-install-recommends g++
fi

# Naming the target keeps the instrumentation out of build scripts and macros.
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS='--cfg fuzzing -C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4
    -C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table
    -C llvm-args=-sanitizer-coverage-trace-compares -C codegen-units=1' \
    timeout 900 cargo build --release --locked --target "$host" --target-dir "$target_dir"

echo "fuzzing $* for $seconds s, FUZZ_SEED=$seed"
running=
for target in "$@"; do
    found=$target_dir/found/$target
    artifacts=$target_dir/artifacts/$target
    mkdir -p "$found" "$artifacts"
    # The first directory takes what is new.
    timeout $((seconds + 60)) "$target_dir/$host/release/$target" -seed="$seed" -max_total_time="$seconds" \
        -max_len=4096 -timeout=10 -rss_limit_mb=1024 -artifact_prefix="$artifacts/" \
        "$found" "corpus/$target" >"$target_dir/$target.log" 2>&1 &
    running="$running $target:$!"
done

failed=0
for run in $running; do
    target=${run%%:*}
    if wait "${run##*:}"; then
        echo "$target: $(tail -n 1 "$target_dir/$target.log")"
    else
        failed=1
        echo "$target: failed, the end of $target_dir/$target.log:" >&2
        tail -n 40 "$target_dir/$target.log" >&2
    fi
done
exit $failed

#!/bin/bash
# Fuzzes each parser that is ours with libFuzzer, for so many seconds of CPU each, 600 unless told, of all parsers or
# of those that are named. Needs a nightly toolchain and a C++ compiler. What it finds goes to target/fuzz; of an
# input that breaks a property it prints the bytes.
#
#   tests/fuzz/run.sh [SECONDS] [PARSER...]
set -euo pipefail
cd "$(dirname "$0")"

found=$(realpath ../../target)/fuzz
seconds=${1:-600}
host=$(rustc +nightly --print host-tuple)
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares -Zsanitizer=address -Ccodegen-units=1"
RUSTFLAGS=$(echo $coverage) cargo +nightly build --release --target "$host" --target-dir "$found/build"

parsers=("${@:2}")
[ ${#parsers[@]} != 0 ] || parsers=($(basename -s .rs targets/*.rs))

# Seconds of CPU that the children of this script have taken.
taken() {
    awk -v ticks="$(getconf CLK_TCK)" '{ print int(($16 + $17) / ticks) }' "/proc/$$/stat"
}

for parser in "${parsers[@]}"; do
    mkdir -p "$found/$parser"
    begun=$(taken)
    # in turns of a minute at most, since libFuzzer counts by the clock
    while left=$((seconds - $(taken) + begun)) && [ "$left" -gt 0 ]; do
        (cd "$found" && "build/$host/release/$parser" -max_len=700 -print_final_stats=1 \
            -max_total_time=$((left < 60 ? left : 60)) "$parser" "$OLDPWD/../corpus/$parser")
    done
    echo "$parser: $(($(taken) - begun)) s of CPU"
done

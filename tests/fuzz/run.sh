#!/bin/bash
# Fuzzes each parser of trace context with libFuzzer for so many seconds, 600 unless told. Needs a nightly toolchain
# and a C++ compiler. What it finds goes to target/fuzz; of an input that breaks a property it prints the bytes.
#
#   tests/fuzz/run.sh [SECONDS]
set -euo pipefail
cd "$(dirname "$0")"

found=$(realpath ../../target)/fuzz
host=$(rustc +nightly --print host-tuple)
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares -Zsanitizer=address -Ccodegen-units=1"
RUSTFLAGS=$(echo $coverage) cargo +nightly build --release --target "$host" --target-dir "$found/build"

for parser in traceparent tracestate b3 jaeger; do
    mkdir -p "$found/$parser"
    (cd "$found" && "build/$host/release/$parser" -max_len=700 -print_final_stats=1 -max_total_time="${1:-600}" \
        "$parser" "$OLDPWD/../corpus/$parser")
done

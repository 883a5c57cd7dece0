#!/bin/bash
# Builds what is shipped and measured, target/dist/tracegate: profile `dist`, optimised by what it does under load.
# It is built twice, first so that it counts which way it goes, then, when it has served, by what was counted.
# `cargo build --profile dist` gives the same program without that, which takes a third more instructions a request.
#
#   scripts/dist.sh
#
# Needs curl, and the llvm-profdata of the compiler's LLVM: `rustup component add llvm-tools`, or Debian's llvm-22.
# Takes a quarter of an hour on two cores. As the counts are never quite the same, neither are two builds.
set -euo pipefail
cd "$(dirname "$0")/.."

training=$PWD/target/training
requests=6000 # by each protocol
demo='' first=''

main() {
    local profdata profile
    profdata=$(find_profdata)
    command -v curl >/dev/null || fail "curl is needed for the load"
    rm -rf "$training/counts" "$training"/*.prof*
    mkdir -p "$training/counts"
    say "build it to count"
    # what build scripts count is not what a gateway does
    LLVM_PROFILE_FILE="$training/aside-%m.profraw" RUSTFLAGS="-Cprofile-generate=$training/counts" \
        cargo build --locked --profile dist --target-dir "$training"
    say "let it serve"
    LLVM_PROFILE_FILE="$training/counts/%p.profraw" serve
    "$profdata" merge --output="$training/merged.profdata" "$training/counts"
    # cargo goes by the name: another profile, another build
    profile=$training/$(sha256sum "$training/merged.profdata" | cut -c1-16).profdata
    mv "$training/merged.profdata" "$profile"
    say "build it by what was counted"
    RUSTFLAGS="-Cprofile-use=$profile" cargo build --locked --profile dist
    say "target/dist/tracegate is built"
}

find_profdata() {
    local version tools
    version=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
    tools=$(rustc --print target-libdir)/../bin
    for tool in "$tools/llvm-profdata" "llvm-profdata-$version" "/usr/lib/llvm-$version/bin/llvm-profdata"; do
        command -v "$tool" && return
    done
    fail "llvm-profdata of LLVM $version is needed: rustup component add llvm-tools, or Debian's llvm-$version"
}

# A load on two gateways, one behind the other: the first without tracing, by HTTP/1.1 in the clear and by TLS, and by
# HTTP/2; behind it the demo's, which traces every request. Each writes what it has counted when it ends.
serve() {
    local binary=$training/dist/tracegate port secure behind
    "$binary" demo --rate 50 >"$training/demo.log" &
    demo=$!
    trap 'kill $demo $first 2>/dev/null || true' EXIT
    behind=$(wait_for "$training/demo.log" 's/^gateway *//p')
    port=$(free_port) secure=$(free_port)
    cat >"$training/routes.toml" <<END
workers = 2
[listeners.clear]
address = "127.0.0.1:$port"
[listeners.secure]
address = "127.0.0.1:$secure"
tls = { certificate_file = "$PWD/certs/gateway.pem", key_file = "$PWD/certs/gateway-key.pem" }
[admin]
address = "127.0.0.1:$(free_port)"
[shutdown]
drain_delay = "1ms"
[telemetry]
otlp = "off"
access_log.enabled = false
[upstreams.behind]
endpoints = ["$behind"]
propagate = false # else what is behind would follow the decision not to trace
[routes.all]
match.path = "/{*rest}"
upstream = "behind"
END
    "$binary" --config "$training/routes.toml" &
    first=$!
    until curl --silent --output /dev/null "http://127.0.0.1:$port/"; do
        kill -0 $first || fail "it did not start"
        sleep 0.1
    done
    load "http://127.0.0.1:$port" --http1.1
    load "https://127.0.0.1:$secure" --http1.1
    load "https://127.0.0.1:$secure" --http2
    kill -TERM $first
    wait $first
    kill -INT $demo
    # its services may have lost spans of their own on a busy machine, of which it complains; it has counted all the same
    wait $demo || tail -3 "$training/demo.log"
    trap - EXIT
}

# Waits until a file has a line that this expression prints.
wait_for() {
    local found
    until found=$(sed -n "$2" "$1") && [ -n "$found" ]; do
        kill -0 "$demo" 2>/dev/null || fail "the demo did not start"
        sleep 0.1
    done
    echo "$found"
}

free_port() {
    # below the ports that are given to clients
    echo $((20000 + RANDOM % 10000))
}

# Orders that are read, and some that are created.
load() {
    local site=$1
    local ask=(curl --no-progress-meter --fail --insecure --output /dev/null --parallel --parallel-max 64 "${@:2}")
    "${ask[@]}" "$site/shop/orders?[1-$((requests / 100))]" --json '{"volume_mm3":42000}' || fail "$* creates no orders"
    "${ask[@]}" "$site/shop/orders/o-1001?[1-$requests]" || fail "$* reads no orders"
}

say() { echo "dist: $*"; }
fail() { echo "dist: $*" >&2; exit 1; }

main "$@"

#!/bin/bash
# Checks the files in deploy/ as far as that goes without a container engine, a cluster or a running systemd.
#
#   scripts/check-deploy.sh [target/release/tracegate]
#
# Uses what is there of docker-compose, kubernetes-validate, systemd-analyze, logrotate and promtool, and names what is not.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$(realpath "${1:-target/release/tracegate}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

main() {
    [ -x "$binary" ] || { echo "$binary is not there: cargo build --release" >&2; exit 1; }
    check "compose.yaml is read by docker-compose" docker-compose -f deploy/compose.yaml config -q
    check "the manifests have the shapes of Kubernetes 1.37" kubernetes-validate --quiet --strict deploy/kubernetes/tracegate.yaml
    check "and of 1.27" kubernetes-validate --quiet --strict -k 1.27 deploy/kubernetes/tracegate.yaml
    # the binary is not installed where the units have it
    mkdir "$work/units"
    for unit in tracegate.service tracegate.socket; do
        sed "s|/usr/local/bin/tracegate|$binary|" "deploy/systemd/$unit" >"$work/units/$unit"
    done
    check "systemd accepts the units" systemd-analyze verify "$work/units/tracegate.service" "$work/units/tracegate.socket"
    check "and finds little to attack" systemd-analyze security --offline=yes --threshold=20 "$work/units/tracegate.service"
    # its user is not there either
    sed "s/tracegate tracegate/root root/" deploy/logrotate/tracegate >"$work/logrotate" && chmod 644 "$work/logrotate"
    check "logrotate reads its file" logrotate --debug --state "$work/state" "$work/logrotate"
    check "the rules are fine" promtool check rules deploy/prometheus/rules.yml
    check "each alert fires and stays silent" promtool test rules deploy/prometheus/rules-test.yml
    check "the routes are accepted with secrets as made" routes
}

# What the containers see under /secrets and /audit.
routes() {
    deploy/make-secrets.sh "$work/secrets"
    sed "s|\"/secrets/|\"$work/secrets/|g; s|\"/audit/|\"$work/|g" deploy/routes.toml >"$work/routes.toml"
    "$binary" check --config "$work/routes.toml" --config "$work/secrets/tokens.toml"
    openssl verify -CAfile "$work/secrets/ca.pem" "$work"/secrets/{gateway,developer,support}.pem
}

# check WHAT COMMAND…
check() {
    local what=$1
    shift
    if [ "$(type -t "$1")" != function ] && ! command -v "$1" >/dev/null; then
        echo "skipped $what: $1 is not installed"
        return
    fi
    if "$@" >"$work/said" 2>&1; then
        echo "ok      $what"
    else
        cat "$work/said" >&2
        echo "FAILED  $what" >&2
        exit 1
    fi
}

main

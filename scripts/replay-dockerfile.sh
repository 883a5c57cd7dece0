#!/bin/bash
# Tries the steps of the Dockerfile where no container engine runs. Each FROM becomes a fresh root made from
# Debian packages, each COPY and RUN is done in it, and the result is started, checked by its HEALTHCHECK and
# stopped. Needs root, Linux, debootstrap, the Rust toolchain of this host, and the network.
#
#   scripts/replay-dockerfile.sh            builds and runs; about 3 GB in a temporary directory, removed after
#
# What differs from a real build: the toolchain and the already downloaded crates are this host's, and the
# distroless base is rebuilt from the Debian packages that it is made of.
set -euo pipefail

project=$(cd "$(dirname "$0")/.." && pwd)
mirror=${MIRROR:-http://deb.debian.org/debian}
step_limit=${STEP_LIMIT:-30m}

main() {
    [ "$(id -u)" = 0 ] || fail "must be run as root: it makes roots and enters them"
    if [ -z "${WORK:-}" ]; then
        # Mounts and processes of the replay end with its namespaces, whatever happens to it.
        WORK=$(mktemp -d) && export WORK
        trap 'rm -rf --one-file-system "$WORK"' EXIT
        unshare --mount --pid --fork --kill-child -- "$0" "$@"
        return
    fi
    say "debootstrap"
    debootstrap --variant=minbase --include=ca-certificates,gcc,libc6-dev bookworm "$WORK/debian" "$mirror" \
        >"$WORK/debootstrap.log" 2>&1 || { tail "$WORK/debootstrap.log" >&2; fail "debootstrap failed"; }
    make_context
    while read -r instruction arguments; do
        say "$instruction $arguments"
        case $instruction in
            FROM) from $arguments ;;
            WORKDIR) workdir=$arguments && mkdir -p "$root$workdir" ;;
            COPY) copy $arguments ;;
            RUN) enter 0:0 /bin/sh -c "$arguments" ;;
            ENV) environment+=("$arguments") ;;
            USER) user=$arguments ;;
            EXPOSE | LABEL) ;;
            HEALTHCHECK) healthcheck=$(words "${arguments#*CMD }") ;;
            ENTRYPOINT) entrypoint=$(words "$arguments") ;;
            CMD) command=$(words "$arguments") ;;
            *) fail "does not know $instruction" ;;
        esac
    done < <(instructions)
    say "size of the image: $(du -shx "$root" | cut -f1)"
    say "run, in a network of its own"
    export root workdir user entrypoint command healthcheck
    export -f enter run say fail
    unshare --net -- bash -euo pipefail -c run
}

# The instructions, one a line: comments gone, continued lines joined.
instructions() {
    sed -e '/^[[:space:]]*#/d' "$project/Dockerfile" | sed -e ':a' -e '/\\$/{N;s/\\\n[[:space:]]*//;ta' -e '}' \
        | sed '/^[[:space:]]*$/d'
}

# What the builder would be sent: .dockerignore lists what is let in.
make_context() {
    mkdir "$WORK/context"
    sed -n 's/^!//p' "$project/.dockerignore" | while read -r path; do
        cp -a --parents -t "$WORK/context" "./$path" 2>/dev/null || fail "$path is not there"
    done
}

# FROM image [AS name]
from() {
    root=$WORK/stage-${3:-last} workdir=/ user=0:0
    environment=("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    mkdir "$root"
    case $1 in
        rust:*)
            cp -a "$WORK/debian/." "$root"
            local toolchain
            toolchain=$(cd "$project" && rustc --print sysroot)
            cp -aL "$toolchain/bin" "$toolchain/lib" "$root/usr/local/"
            environment+=("CARGO_HOME=/usr/local/cargo" "HOME=/root")
            local crates=${CARGO_HOME:-$HOME/.cargo}/registry
            if [ -d "$crates" ]; then
                mkdir -p "$root/usr/local/cargo/registry"
                cp -a "$crates/cache" "$crates/index" "$root/usr/local/cargo/registry/"
            fi
            cp -L /etc/resolv.conf "$root/etc/resolv.conf"
            # as the image has it
            echo "deb ${mirror}-security bookworm-security main" >>"$root/etc/apt/sources.list"
            mount -t proc proc "$root/proc"
            ;;
        gcr.io/distroless/cc-debian12:*)
            local package
            for package in base-files libc6 libgcc-s1 ca-certificates; do
                dpkg-deb -x "$WORK/debian/var/cache/apt/archives/${package}"_*.deb "$root"
            done
            mkdir -p "$root/proc" && mount -t proc proc "$root/proc"
            ;;
        *) fail "does not know how to make $1" ;;
    esac
}

# COPY [--from=stage] source… destination
copy() {
    local source=$WORK/context
    case $1 in --from=*) source=$WORK/stage-${1#--from=} && shift ;; esac
    local destination=${*: -1} path
    case $destination in /*) ;; *) destination=$workdir/$destination ;; esac
    destination=$root/$destination
    for path in "${@:1:$#-1}"; do
        if [ -d "$source/$path" ]; then
            mkdir -p "$destination" && cp -a "$source/$path/." "$destination"
        else
            mkdir -p "$(dirname "$destination/")" "$(dirname "$destination")"
            case $destination in */) mkdir -p "$destination" ;; esac
            cp -a "$source/$path" "$destination"
        fi
    done
}

# A command in the current root, as this user, with nothing of this environment.
enter() {
    local as=$1 && shift
    timeout "${step_limit:-30m}" env -i "${environment[@]}" \
        /usr/bin/unshare --root="$root" --wd="$workdir" --setgid="${as#*:}" --setuid="${as%:*}" -- "$@"
}

# Starts the image as its last lines say, waits until it is healthy, and asks it to stop.
run() {
    environment=("PATH=/usr/local/bin")
    ip link set lo up
    # shellcheck disable=SC2086
    env -i "${environment[@]}" \
        /usr/bin/unshare --root="$root" --wd="$workdir" --setgid="${user#*:}" --setuid="${user%:*}" -- \
        $entrypoint $command >"$WORK/output" 2>&1 &
    local gateway=$! attempt status=0
    for attempt in $(seq 1 30); do
        # shellcheck disable=SC2086
        if enter "$user" $healthcheck; then
            say "healthy after $attempt checks, as user $(stat -c %u "$root/proc/$gateway")"
            kill -TERM "$gateway"
            wait "$gateway" || status=$?
            [ "$status" = 0 ] || { cat "$WORK/output" >&2; fail "stopped with exit code $status"; }
            say "stopped with exit code 0"
            return
        fi
        kill -0 "$gateway" 2>/dev/null || break
        sleep 1
    done
    cat "$WORK/output" >&2
    fail "never became healthy"
}

# ["a", "b"] as words; the words hold no blanks.
words() {
    tr -d '[]",' <<<"$1"
}

say() { echo "replay: $*"; }
fail() { echo "replay: $*" >&2; exit 1; }

main "$@"

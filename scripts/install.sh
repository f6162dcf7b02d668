#!/bin/bash
# Build a release of the extension for one server (PG_CONFIG) and install it there.
set -euo pipefail
. "$(dirname "$0")/env.sh"

install_extension() {
    local options=(--release --pg-config "$pg_config" --no-default-features --features "pg$(pg_major)")
    if [[ $(id -u) != 0 && ! -w $("$pg_config" --pkglibdir) ]]; then options+=(--sudo); fi
    cargo pgrx install "${options[@]}" </dev/null
}

say "building vector_ext for $("$pg_config" --version) ($pg_config)"
locked build install_extension

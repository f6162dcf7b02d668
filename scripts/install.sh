#!/bin/bash
# Build a release of vector_ext for one server (PG_CONFIG), and install it there with the add-on ivflsh.
set -euo pipefail
. "$(dirname "$0")/env.sh"

install_extension() {
    local options=(--release --pg-config "$pg_config" --no-default-features --features "pg$(pg_major)")
    if [[ $(id -u) != 0 && ! -w $("$pg_config" --pkglibdir) ]]; then options+=(--sudo); fi
    cargo pgrx install "${options[@]}" </dev/null
    install_add_on
}

# The add-on to pgvector: a control file and scripts over the same library.
install_add_on() {
    local folder; folder=$("$pg_config" --sharedir)/extension
    local work; work=$(mktemp -d)
    scripts/sql.sh ivflsh "$work"
    if [[ -w $folder ]]; then install -m 644 "$work"/* "$folder/"; else as_root install -m 644 "$work"/* "$folder/"; fi
    rm -rf "$work"
}

say "building vector_ext for $("$pg_config" --version) ($pg_config)"
locked build install_extension

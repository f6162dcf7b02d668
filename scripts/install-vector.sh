#!/bin/bash
# Installs the extension `vector` in pgvector's place, or takes it away again. vector_ext must be installed.
# usage: install-vector.sh [--remove]      FORCE=1: over a pgvector that is there, whose files are set aside
set -euo pipefail
. "$(dirname "$0")/env.sh"

libraries=$("$pg_config" --pkglibdir)
scripts=$("$pg_config" --sharedir)/extension
aside=$scripts/pgvector-set-aside     # what was there before

run() { if [[ -w $libraries && -w $scripts ]]; then "$@"; else as_root "$@"; fi; }

is_ours() { grep -q 'vector_ext in the place of pgvector' "$scripts/vector.control" 2>/dev/null; }

# The files of an extension named vector: what PostgreSQL would compile into plans from bitcode is part of it.
files() {
    compgen -G "$scripts/vector.control" || true
    compgen -G "$scripts/vector--*.sql" || true
    compgen -G "$libraries/vector.so" || true
    compgen -G "$libraries/bitcode/vector" || true
    compgen -G "$libraries/bitcode/vector.index.bc" || true
}

# Moves them away; each keeps the folder that it was in by a folder of that name.
set_aside() {
    local file
    run mkdir -p "$aside/extension" "$aside/lib" "$aside/bitcode"
    files | while read -r file; do
        case $file in
            "$libraries"/bitcode/*) run mv -f "$file" "$aside/bitcode/" ;;
            "$libraries"/*) run mv -f "$file" "$aside/lib/" ;;
            *) run mv -f "$file" "$aside/extension/" ;;
        esac
    done
}

install_vector() {
    [[ -e $libraries/vector_ext.so ]] || die "vector_ext is not installed for $pg_config: make install"
    if [[ -n $(files) ]] && ! is_ours; then
        [[ -n ${FORCE:-} ]] || die "pgvector is installed for $pg_config. FORCE=1 sets its files aside and takes its place." \
            "Databases that use it go on, but each hnsw and ivfflat index needs a REINDEX: see docs/migration.md"
        say "setting pgvector's files aside in $aside"
        set_aside
    fi
    work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
    mkdir "$work/sql"
    scripts/sql.sh vector "$work/sql"
    compile_vector "$work/vector.so"
    if is_ours; then run rm -f "$scripts"/vector--*.sql; fi
    # A new file: servers that run have the old one open.
    run install -m 755 "$work/vector.so" "$libraries/vector.so.new"
    run mv -f "$libraries/vector.so.new" "$libraries/vector.so"
    run install -m 644 "$work"/sql/* "$scripts/"
    say "installed the extension vector ($(sed -n "s/^default_version = '\(.*\)'/\1/p" "$scripts/vector.control")) for $pg_config"
}

remove_vector() {
    is_ours || die "the extension vector of $pg_config is not the one of vector_ext"
    files | while read -r file; do run rm -rf "$file"; done
    if [[ -d $aside ]]; then
        say "putting back pgvector's files from $aside"
        run find "$aside/extension" -mindepth 1 -maxdepth 1 -exec mv -f -t "$scripts" {} +
        run find "$aside/lib" -mindepth 1 -maxdepth 1 -exec mv -f -t "$libraries" {} +
        run find "$aside/bitcode" -mindepth 1 -maxdepth 1 -exec mv -f -t "$libraries/bitcode" {} +
        run rm -rf "$aside"
    fi
}

case ${1:-} in
'') locked vector install_vector ;;
--remove) remove_vector ;;
*) sed -n '2,/^set/{/^set/d;s/^# \?//;p}' "$0" >&2; exit 2 ;;
esac

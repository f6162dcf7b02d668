#!/bin/bash
# The documents as a book: dist/book/html. mdBook is built once, into the cache.
# usage: book.sh [--check]      --check: put it together and check its links, without mdBook
set -euo pipefail
. "$(dirname "$0")/env.sh"

mdbook_version=0.5.4

install_mdbook() {
    if [[ $(mdbook --version 2>/dev/null) == "mdbook v$mdbook_version" ]]; then return; fi
    say "building mdBook $mdbook_version (once, some minutes)"
    # A tool that runs for a second: optimising it would only cost time.
    CARGO_TARGET_DIR=$cache/target-tools CARGO_PROFILE_DEV_DEBUG=0 \
        cargo install mdbook --version "=$mdbook_version" --locked --no-default-features --features search --profile dev --root "$tools" </dev/null
    rm -rf "$cache/target-tools"
    hash -r
}

python=$(find_python) || die "Python is missing"
"$python" scripts/book.py dist/book
if [[ ${1:-} == --check ]]; then exit 0; fi
command -v cargo >/dev/null || die "Rust is missing: install it with rustup, or put cargo into PATH"
locked tools install_mdbook
mdbook build dist/book --dest-dir "$root/dist/book/html"
say "open dist/book/html/index.html"

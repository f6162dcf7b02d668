#!/bin/bash
# The unit tests that need no server: all of crates/ann, and those of the extension's own pure functions.
set -euo pipefail
. "$(dirname "$0")/env.sh"

say "unit tests of crates/ann"
locked build cargo test --release --package ann </dev/null
if grep -rqE '^\s*#\[test\]' src; then
    say "unit tests of the extension's own code"
    locked build cargo test --lib --package vector_ext --no-default-features --features "pg$(pg_major)" </dev/null
fi

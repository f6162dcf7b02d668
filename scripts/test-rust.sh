#!/bin/bash
# The unit tests that need no server: all of crates/ann and crates/ivflsh, those of the extension's own pure functions, and the index on a simulated
# server (src/index/sim). --simulate: only the latter, for SIM_SECONDS (300) each, and whether mutations are found.
set -euo pipefail
. "$(dirname "$0")/env.sh"

if [[ ${1:-} == --simulate ]]; then
    say "the index on a simulated server"
    export SIM_SECONDS=${SIM_SECONDS:-300} SIM_WIDE=1
    locked build cargo test --lib --package vector_ext --no-default-features --features "pg$(pg_major)" -- \
        sim:: --include-ignored --nocapture --test-threads 1 </dev/null
    exit
fi

say "unit tests of crates/ann"
locked build cargo test --release --package ann </dev/null
say "unit tests of crates/ivflsh"
locked build cargo test --release --package ivflsh </dev/null
if grep -rqE '^\s*#\[test\]' src; then
    say "unit tests of the extension's own code"
    locked build cargo test --lib --package vector_ext --no-default-features --features "pg$(pg_major)" </dev/null
fi

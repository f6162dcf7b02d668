#!/bin/bash
# Formatting and clippy over everything, as CI does.
set -euo pipefail
. "$(dirname "$0")/env.sh"

say "cargo fmt --check"
cargo fmt --all --check
say "cargo clippy"
locked build cargo clippy --workspace --all-targets --no-default-features --features "pg$(pg_major)" -- -D warnings </dev/null

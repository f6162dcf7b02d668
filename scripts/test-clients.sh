#!/bin/bash
# Client libraries, and the ways from pgvector and back. Needs pgvector: built from Debian's sources, in a copy of the server.
# usage: test-clients.sh [PYTEST OPTION…]     PGVECTOR_CONFIG=/path/to/pg_config: a server that has pgvector, else one is made
set -euo pipefail
. "$(dirname "$0")/env.sh"
requirements=$(mktemp); trap 'rm -f "$requirements"' EXIT
cat "$root/tests/requirements.txt" "$root/tests/clients/requirements.txt" >"$requirements"

install_python() {
    local venv=$1
    if [[ -e $venv/complete ]]; then return; fi
    say "installing client libraries into $venv"
    rm -rf "$venv"
    "$(find_python)" -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: -r "$requirements" </dev/null
    touch "$venv/complete"
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
locked python install_python "$venv"
if [[ -z ${PGVECTOR_CONFIG:-} ]]; then
    peer=$cache/peer/$({ "$pg_config" --version; echo "$pg_config"; } | sha256sum | cut -c1-12)
    locked pgvector make_peer "$peer"
    PGVECTOR_CONFIG=$(cat "$peer/pg_config")
fi
export PGVECTOR_CONFIG
PG_CONFIG=$pg_config "$venv/bin/python" -m pytest tests/test_beside_pgvector.py tests/clients "$@"

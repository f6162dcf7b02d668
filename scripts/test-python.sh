#!/bin/bash
# The Python package with all that it can read: its types, its own tests, and those beside a server, in an environment of its own.
set -euo pipefail
. "$(dirname "$0")/env.sh"

python=$(find_python) || die "no Python 3.11 with venv"
packages=$root/clients/python/requirements.txt
venv=$cache/venv/python-$( { "$python" -VV; cat "$requirements" "$packages"; } | sha256sum | cut -c1-12)

install_python() {
    if [[ -e $venv/complete ]]; then return; fi
    say "installing Python packages into $venv"
    rm -rf "$venv"
    "$python" -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --prefer-binary -r "$requirements" -r "$packages" </dev/null
    touch "$venv/complete"
}

locked python install_python
say "types"
(cd clients/python && "$venv/bin/mypy" --config-file pyproject.toml --cache-dir "$cache/mypy")
say "tests"
PG_CONFIG=$pg_config exec "$venv/bin/python" -m pytest clients/python/tests tests/test_python_package.py tests/test_python_models.py tests/test_python_helpers.py \
    tests/test_copy_vectors.py "$@"

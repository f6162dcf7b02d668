#!/bin/bash
# Run Python with the pinned packages of tests/requirements.txt (made by setup.sh), PG_CONFIG set for what it starts.
set -euo pipefail
. "$(dirname "$0")/env.sh"

PG_CONFIG=$pg_config exec "$(venv_path)/bin/python" "$@"

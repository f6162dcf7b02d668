#!/bin/bash
# The examples: what they need, in an environment of their own over Debian's python3-torch, and their commands.
# usage: examples.sh test [PYTEST OPTION…] | all | images|sound|video|text [OPTION…]
set -euo pipefail
. "$(dirname "$0")/env.sh"

packages=$root/examples/requirements.txt
python=/usr/bin/python3   # the one that python3-torch is for
command=${1:-}; shift || true

install_packages() {
    local missing=()
    "$python" -c 'import torch' 2>/dev/null || missing+=(python3-torch)
    "$python" -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
    command -v espeak-ng >/dev/null || missing+=(espeak-ng)
    command -v ffmpeg >/dev/null || missing+=(ffmpeg)
    compgen -G '/usr/lib/*/libopenblas.so.0' >/dev/null || missing+=(libopenblas0-pthread)   # ten times as fast as what python3-torch depends on
    [[ -e /usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz ]] || missing+=(dataset-fashion-mnist)
    if (( ${#missing[@]} == 0 )); then return; fi
    command -v apt-get >/dev/null || die "please install what Debian calls: ${missing[*]}"
    say "installing Debian packages: ${missing[*]}"
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=600)
    as_root "${apt[@]}" update >/dev/null
    as_root "${apt[@]}" install --no-install-recommends "${missing[@]}" </dev/null >/dev/null
}

install_python() {
    if [[ -e $venv/complete ]]; then return; fi
    say "installing Python packages into $venv (2 GB, once)"
    rm -rf "$venv"
    "$python" -m venv --system-site-packages "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: --no-deps --ignore-installed -r "$packages" </dev/null
    "$venv/bin/python" -c 'import torch, keras, matplotlib, psycopg, tokenizers' >/dev/null 2>&1 || die "$venv lacks a package"
    touch "$venv/complete"
}

locked packages install_packages
venv=$cache/venv/examples-$( { "$python" -VV; cat "$packages"; } | sha256sum | cut -c1-12)
locked examples install_python
export PG_CONFIG=$pg_config VECTOR_EXT_CACHE=$cache TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-2}

case $command in
test) exec "$venv/bin/python" -m pytest tests/test_examples.py tests/test_python_models.py "$@" ;;
all) for name in images sound video text; do say "$name"; "$venv/bin/python" "examples/$name/run.py" "$@"; done ;;
images | sound | video | text) exec "$venv/bin/python" "examples/$command/run.py" "$@" ;;
*) sed -n '2,/^set/{/^set/d;s/^# \?//;p}' "$0" >&2; exit 2 ;;
esac

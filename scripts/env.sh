# What every script agrees on: the cache, the tools' paths, the server to build for. Sourced, not run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

cache=${VECTOR_EXT_CACHE:-$HOME/.cache/vector_ext}
tools=$cache/tools
requirements=$root/tests/requirements.txt
pgrx_version=$(sed -n 's/^pgrx = "=\(.*\)"$/\1/p' Cargo.toml)
debian_pg=15

mkdir -p "$cache/lock"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
export PGRX_HOME=${PGRX_HOME:-$cache/pgrx}
export CARGO_TERM_PROGRESS_WHEN=${CARGO_TERM_PROGRESS_WHEN:-auto}
if [[ -d $HOME/.cargo/bin && :$PATH: != *:$HOME/.cargo/bin:* ]]; then PATH=$PATH:$HOME/.cargo/bin; fi
export PATH=$tools/bin:$PATH

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# as_root COMMAND…: run it as root, through sudo when need be.
as_root() {
    if [[ $(id -u) == 0 ]]; then "$@"
    elif command -v sudo >/dev/null; then sudo "$@"
    else die "this needs root (or sudo): $*"
    fi
}

# locked NAME COMMAND…: run it while no other clone with this cache runs something of that name.
locked() {
    local file=$cache/lock/$1; shift
    (
        flock --nonblock 9 || { say "waiting for another run that holds $file"; flock 9; }
        "$@" 9>&-
    ) 9>"$file"
}

# The server to build for: PG_CONFIG when given, else PostgreSQL 15 of Debian, else the first pg_config in PATH.
if [[ -n ${PG_CONFIG:-} ]]; then
    pg_config=$(command -v "$PG_CONFIG") || die "PG_CONFIG=$PG_CONFIG is not a program"
    pg_given=yes
else
    pg_config=/usr/lib/postgresql/$debian_pg/bin/pg_config
    pg_given=
fi
export PGRX_PG_CONFIG_PATH=$pg_config   # instead of `cargo pgrx init`

# Servers of other commits, for comparisons. Not in the cache: servers may run as another user, who cannot enter it.
commits=${VECTOR_EXT_COMMITS:-/var/tmp/vector_ext-commits-$(id -u)}

pg_major() {
    local version; version=$("$pg_config" --version | sed 's/^PostgreSQL \([0-9]*\).*/\1/')
    (( version >= 15 && version <= 18 )) || die "$pg_config: PostgreSQL $version, but 15 to 18 are supported"
    echo "$version"
}

# compile_vector FILE [OPTION…]: vector.so, pgvector's C symbols in front of vector_ext.so.
compile_vector() {
    local file=$1 symbols; shift
    symbols=$(mktemp -d)
    scripts/sql.sh symbols >"$symbols/symbols.h"
    ${CC:-cc} -O2 -fPIC -shared -Wall "$@" -I"$symbols" -I"$("$pg_config" --includedir-server)" extensions/vector.c -o "$file"
    rm -r "$symbols"
}

# find_python: a Python that can make virtual environments.
find_python() {
    local candidate
    for candidate in python3 /usr/bin/python3; do
        if "$candidate" -c 'import sys, venv, ensurepip; assert sys.version_info >= (3, 11)' 2>/dev/null; then
            "$candidate" -c 'import sys; print(sys.executable)'; return
        fi
    done
    return 1
}

# venv_path: the environment for exactly these pinned packages and this Python.
venv_path() {
    local python; python=$(find_python) || return 1
    echo "$cache/venv/$( { "$python" -VV; cat "$requirements"; } | sha256sum | cut -c1-12)"
}

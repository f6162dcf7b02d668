#!/bin/bash
# Install what is missing and nothing else; a second run changes nothing and takes a second.
# usage: setup.sh build | all | forget     (build: what a build needs; all: tests and demo too; forget: drop the cache)
set -euo pipefail
. "$(dirname "$0")/env.sh"

missing_packages() {
    if [[ -z $pg_given ]]; then
        [[ -x /usr/lib/postgresql/$debian_pg/bin/postgres ]] || echo "postgresql-$debian_pg"
        [[ -e /usr/include/postgresql/$debian_pg/server/postgres.h ]] || echo "postgresql-server-dev-$debian_pg"
    fi
    [[ -n ${LIBCLANG_PATH:-} ]] || compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null \
        || compgen -G '/usr/lib/*/libclang*.so*' >/dev/null || echo libclang-dev
    command -v cc >/dev/null || echo build-essential
    if ! has_cargo_pgrx; then   # its TLS library wants OpenSSL's headers
        [[ -e /usr/include/openssl/ssl.h ]] || echo libssl-dev
        command -v pkg-config >/dev/null || echo pkg-config
    fi
    if [[ $1 == all ]]; then
        [[ -e /usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz ]] || echo dataset-fashion-mnist
        find_python >/dev/null || echo python3-venv
    fi
}

install_packages() {
    local packages; mapfile -t packages < <(missing_packages "$1")
    if (( ${#packages[@]} == 0 )); then return; fi
    command -v apt-get >/dev/null || die "please install what Debian calls: ${packages[*]}"
    say "installing Debian packages: ${packages[*]}"
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=600)
    as_root "${apt[@]}" update
    as_root "${apt[@]}" install --no-install-recommends "${packages[@]}" </dev/null
    mapfile -t packages < <(missing_packages "$1")
    (( ${#packages[@]} == 0 )) || die "still missing after the installation: ${packages[*]}"
}

has_cargo_pgrx() {
    [[ $(cargo pgrx --version 2>/dev/null) == "cargo-pgrx $pgrx_version" ]]
}

install_cargo_pgrx() {
    if has_cargo_pgrx; then return; fi
    say "building cargo-pgrx $pgrx_version (once, some minutes)"
    # A tool that copies files: optimising it would only cost time.
    CARGO_TARGET_DIR=$cache/target-tools CARGO_PROFILE_DEV_DEBUG=0 \
        cargo install cargo-pgrx --version "=$pgrx_version" --locked --profile dev --root "$tools" </dev/null
    rm -rf "$cache/target-tools"
    hash -r
    has_cargo_pgrx || die "cargo-pgrx was installed but does not run"
}

install_python() {
    local venv; venv=$(venv_path)
    if [[ -e $venv/complete ]]; then return; fi
    say "installing Python packages into $venv"
    rm -rf "$venv"
    "$(find_python)" -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: -r "$requirements" </dev/null
    touch "$venv/complete"
}

check_server() {
    [[ -x $pg_config ]] || die "$pg_config: no such program"
    local headers; headers=$("$pg_config" --includedir-server)
    [[ -e $headers/postgres.h ]] || die "$headers/postgres.h is missing: install that server's development package" \
        "(Debian: postgresql-server-dev-$(pg_major))"
    pg_major >/dev/null
}

case ${1:-} in
build | all)
    command -v cargo >/dev/null || die "Rust is missing: install it with rustup, or put cargo into PATH"
    locked packages install_packages "$1"
    check_server
    locked tools install_cargo_pgrx
    if [[ $1 == all ]]; then locked python install_python; fi
    ;;
forget)
    say "removing $cache"
    rm -rf "$cache"
    ;;
*)
    die "usage: setup.sh build | all | forget"
    ;;
esac

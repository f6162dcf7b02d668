#!/bin/bash
# pgvector, the peer to measure against: built from Debian's source package and installed into the server PG_CONFIG.
# A pgvector that is there already is kept; BENCH_REBUILD_PGVECTOR=1 replaces it.
set -euo pipefail
. "$(dirname "$0")/env.sh"

suites=(sid trixie)   # where to look, the newest first: a stable Debian may carry one without HNSW
control=$("$pg_config" --sharedir)/extension/vector.control

if [[ -e $control && -z ${BENCH_REBUILD_PGVECTOR:-} ]]; then exit 0; fi

# The Debian mirror that this machine uses, from either format of apt's sources.
mirror() {
    local sources; sources=$(cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list /etc/apt/sources.list \
        2>/dev/null || true)
    { awk '/^URIs:/ { print $2 }' <<<"$sources"
      sed -nE 's/^deb(-src)? +(\[[^]]*\] +)?([^ ]+) .*/\3/p' <<<"$sources"; } | grep -m1 '/debian/*$'
}

# download SUITE: the source package into this folder, with lists of its own, so that the system's apt is left as it is.
download() {
    local lists=$PWD/lists-$1
    mkdir -p "$lists/partial"
    echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $debian $1 main" >"$1.list"
    local apt=(apt-get -qq -o APT::Sandbox::User=root -o "Dir::Etc::sourcelist=$PWD/$1.list"
               -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::Lists=$lists")
    "${apt[@]}" update && "${apt[@]}" source --download-only pgvector 2>/dev/null && compgen -G 'pgvector_*.orig.tar.*' >/dev/null
}

work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
sources=$cache/pgvector
if ! compgen -G "$sources/pgvector_*.orig.tar.*" >/dev/null; then
    debian=$(mirror) || die "no Debian mirror in /etc/apt: install pgvector for this server by hand"
    cd "$work"
    for suite in "${suites[@]}"; do
        say "looking for pgvector's source package in Debian $suite"
        download "$suite" && break
        rm -f pgvector_*
    done
    compgen -G 'pgvector_*.orig.tar.*' >/dev/null || die "Debian has no source package of pgvector"
    mkdir -p "$sources"; mv pgvector_*.orig.tar.* "$sources/"
fi

mkdir "$work/source"
tar -xf "$(compgen -G "$sources/pgvector_*.orig.tar.*" | head -1)" -C "$work/source" --strip-components=1
version=$(sed -n "s/^default_version = '\(.*\)'/\1/p" "$work/source/vector.control")
say "building pgvector $version for $("$pg_config" --version) ($pg_config)"
build=(make -C "$work/source" -s "PG_CONFIG=$pg_config" OPTFLAGS=-march=native with_llvm=no)
"${build[@]}" -j"$(nproc)" >/dev/null
if [[ -w $("$pg_config" --pkglibdir) ]]; then "${build[@]}" install >/dev/null
else as_root "${build[@]}" install >/dev/null
fi

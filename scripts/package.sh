#!/bin/bash
# Packages, from a build that does not tell where it was built. What they are called after is the commit's time: the same
# commit makes the same files.
# usage: package.sh deb [FOLDER] | tree [FOLDER] | source [FOLDER] | sbom        FOLDER: dist, unless told
#   deb      Debian packages for the server of PG_CONFIG: vector_ext, the add-on ivflsh, the extension vector
#   tree     lib/ and share/extension/ alone, for extension_control_path and dynamic_library_path (PostgreSQL 18) and images
#   source   an archive with all crates in it, which builds without a network
#   sbom     what is linked into the library, as CycloneDX in JSON, to standard output
set -euo pipefail
. "$(dirname "$0")/env.sh"

version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
interface=$(sed -n 's/^interface=\([0-9.]*\).*/\1/p' scripts/sql.sh)
maintainer=$(git log -1 --format='%an <%ae>' 2>/dev/null || echo 'vector_ext <nobody@localhost>')
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.toml)}
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT

# The build's own places, by names that are the same everywhere. A target folder of its own: other flags, other artefacts.
build() {
    export CARGO_TARGET_DIR=${VECTOR_EXT_PACKAGE_TARGET:-$cache/target-package}
    local home=${CARGO_HOME:-$HOME/.cargo}
    export RUSTFLAGS="--remap-path-prefix=$CARGO_TARGET_DIR=/target --remap-path-prefix=$root=/vector_ext --remap-path-prefix=$home=/cargo"
    say "building packages of vector_ext $version for $("$pg_config" --version)"
    locked build cargo pgrx package --pg-config "$pg_config" --no-default-features --features "pg$(pg_major)" \
        --out-dir "$work/install" </dev/null
    unset RUSTFLAGS
    strip --strip-unneeded --remove-section=.comment "$work/install$("$pg_config" --pkglibdir)/vector_ext.so"
}

# The files of all three extensions, as lib/ and share/extension/ of $work/tree/{vector_ext,ivflsh,vector}.
make_trees() {
    build
    local name; for name in vector_ext ivflsh vector; do mkdir -p "$work/tree/$name/lib" "$work/tree/$name/share/extension"; done
    install -m 755 "$work/install$("$pg_config" --pkglibdir)"/*.so "$work/tree/vector_ext/lib/"
    install -m 644 "$work/install$("$pg_config" --sharedir)"/extension/* "$work/tree/vector_ext/share/extension/"
    scripts/sql.sh ivflsh "$work/tree/ivflsh/share/extension"
    scripts/sql.sh vector "$work/tree/vector/share/extension"
    compile_vector "$work/tree/vector/lib/vector.so" -Wl,--build-id=none
    strip --strip-unneeded --remove-section=.comment "$work/tree/vector/lib/vector.so"
    find "$work/tree" -type f -exec chmod u=rw,go=r {} + -o -type d -exec chmod 755 {} +
    find "$work/tree" -name '*.so' -exec chmod 755 {} +
}

# Crates that are linked into the library.
linked() { cargo metadata --locked --format-version 1 --filter-platform "$(rustc -vV | sed -n 's/^host: //p')" </dev/null; }

# depends PACKAGE LIBRARY…: the field of that name: the package, and what the libraries want of others.
depends() {
    local first=$1 libraries; shift
    mkdir -p "$work/shlibs/debian"
    printf 'Source: vector-ext\n\nPackage: vector-ext\nArchitecture: any\n' >"$work/shlibs/debian/control"
    libraries=$(cd "$work/shlibs" && dpkg-shlibdeps --ignore-missing-info -O "$@" 2>/dev/null | sed -n 's/^shlibs:Depends=//p')
    echo "Depends: $first${libraries:+, $libraries}"
}

# deb NAME TREE DESCRIPTION [FIELD…]: one package; FIELDs are lines of its control file.
deb() {
    local name=postgresql-$(pg_major)-$1 tree=$work/tree/$2 description=$3; shift 3
    local package=$work/deb/$name; mkdir -p "$package/DEBIAN" "$package/usr/share/doc/$name"
    mkdir -p "$package$("$pg_config" --pkglibdir)" "$package$("$pg_config" --sharedir)"
    if compgen -G "$tree/lib/*" >/dev/null; then cp -p "$tree"/lib/* "$package$("$pg_config" --pkglibdir)/"
    else rmdir -p "$package$("$pg_config" --pkglibdir)" 2>/dev/null || true; fi
    cp -rp "$tree/share/extension" "$package$("$pg_config" --sharedir)/"
    { cat LICENSE; echo; echo "The library has in it, each under the licence named:"; echo
      linked | python3 scripts/licenses.py --list; } >"$package/usr/share/doc/$name/copyright"
    gzip -9n <CHANGELOG.md >"$package/usr/share/doc/$name/changelog.gz"
    [[ $name != *-vector-ext ]] || linked | python3 scripts/licenses.py --sbom "$version" >"$package/usr/share/doc/$name/sbom.cdx.json"
    { printf '%s\n' "Package: $name" "Version: $version-1" "Architecture: $(dpkg --print-architecture)" "Maintainer: $maintainer" \
        "Section: database" "Priority: optional" "Installed-Size: $(du -sk --apparent-size "$package" | cut -f1)" "$@"
      printf 'Description: %s\n' "${description%%$'\n'*}"
      tail -n +2 <<<"$description" | sed 's/^$/./; s/^/ /'
    } >"$package/DEBIAN/control"
    (cd "$package" && find . -path ./DEBIAN -prune -o -type f -printf "%P\n" | LC_ALL=C sort | xargs md5sum >DEBIAN/md5sums)
    find "$package" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
    dpkg-deb --root-owner-group -Zxz --build "$package" "$out/${name}_${version}-1_$(dpkg --print-architecture).deb" >/dev/null
    say "$out/${name}_${version}-1_$(dpkg --print-architecture).deb"
}

make_debs() {
    command -v dpkg-shlibdeps >/dev/null || die "please install what Debian calls dpkg-dev"
    make_trees
    local server; server=postgresql-$(pg_major)
    deb vector-ext vector_ext "vector similarity search for PostgreSQL
Vector types, distance operators and the index access method ivflsh, as the
extension vector_ext." "$(depends "$server" "$work"/tree/vector_ext/lib/*.so)"
    deb ivflsh ivflsh "the ivflsh index on the types of pgvector
The extension ivflsh, for databases that have pgvector's extension: its index
access method on the columns and operators that are there." \
        "Depends: $server-vector-ext (= $version-1)" "Recommends: $server-pgvector"
    deb vector vector "vector similarity search for PostgreSQL, in the place of pgvector
The extension vector with the access methods hnsw, ivfflat and ivflsh: for
applications that are written for pgvector. Indexes that pgvector has built
want a REINDEX." "$(depends "$server-vector-ext (= $version-1)" "$work"/tree/vector/lib/*.so)" \
        "Provides: $server-pgvector (= $interface)" "Conflicts: $server-pgvector" "Replaces: $server-pgvector"
}

# The three extensions in one tree each, beside each other: dist/tree-pgNN/{vector_ext,ivflsh,vector}/{lib,share/extension}.
make_tree() {
    make_trees
    local target=$out/tree-pg$(pg_major)
    rm -rf "$target"; cp -rp "$work/tree" "$target"
    rmdir "$target/ivflsh/lib"
    say "$target"
}

make_source() {
    local name=vector_ext-$version folder=$work/vector_ext-$version
    say "collecting sources and crates of $name"
    mkdir -p "$folder"
    git ls-files -z | tar -c --null -T - | tar -x -C "$folder"
    (cd "$folder" && mkdir -p .cargo && cargo vendor --locked --versioned-dirs vendor </dev/null >.cargo/config.toml 2>/dev/null)
    tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -c "$name" | xz -T2 -1 >"$out/$name.tar.xz"
    say "$out/$name.tar.xz ($(du -h "$out/$name.tar.xz" | cut -f1))"
}

action=${1:-}
out=$(realpath -m "${2:-dist}")
case $action in
deb) mkdir -p "$out"; make_debs ;;
tree) mkdir -p "$out"; make_tree ;;
source) mkdir -p "$out"; make_source ;;
sbom) linked | python3 scripts/licenses.py --sbom "$version" ;;
*) sed -n '2,/^set/{/^set/d;s/^# \?//;p}' "$0" >&2; exit 2 ;;
esac

#!/bin/bash
# Tries packages: on a clean Debian root that debootstrap makes; as a tree that a PostgreSQL 18 is pointed at.
# usage: test-packages.sh deb FOLDER | tree FOLDER | rebuilt FOLDER
#   deb FOLDER    installs that folder's packages by apt in a new root (needs root and debootstrap), and searches
#   tree FOLDER   the server of PG_CONFIG (18) finds the extensions in there, by two settings
#   rebuilt FOLDER   that folder's packages are built again with another target folder: the same, byte by byte
set -euo pipefail
. "$(dirname "$0")/env.sh"

# In a database of its own: what an application would do first.
queries() {
    cat <<'SQL'
\set ON_ERROR_STOP 1
CREATE TABLE items (id int, embedding vector(3));
INSERT INTO items SELECT i, ARRAY[sin(i), cos(i), sin(i * 0.7)]::real[]::vector FROM generate_series(1, 5000) i;
CREATE INDEX ON items USING :method (embedding vector_cosine_ops);
SET enable_seqscan = off;
SELECT count(*) = 5 AND bool_and(d < 0.01) FROM (SELECT embedding <=> '[0,1,0]' AS d FROM items ORDER BY 1 LIMIT 5) nearest;
SQL
}

# check PSQL…: all three extensions, each in a database; psql is called by the words given. pgvector's is not at hand.
check() {
    local name method
    for name in vector_ext:ivflsh vector:hnsw vector:ivflsh; do
        method=${name#*:}; name=${name%:*}
        "$@" -Xqtd postgres -c "DROP DATABASE IF EXISTS packages" -c "CREATE DATABASE packages"
        "$@" -Xqtd packages -c "CREATE EXTENSION $name"
        [[ $(queries | "$@" -Xqtd packages -v "method=$method" | xargs) == t ]] || die "$name: the search did not find what it should"
        say "$name: CREATE EXTENSION, an index by $method and a search work"
    done
}

try_debs() {
    command -v debootstrap >/dev/null || die "please install what Debian calls debootstrap"
    [[ $(id -u) == 0 ]] || die "this needs root"
    local folder=$1 major mirror codename
    folder=$(realpath "$folder")
    major=$(compgen -G "$folder/postgresql-*-vector-ext_*.deb" | sed 's/.*postgresql-\([0-9]*\)-vector-ext_.*/\1/' | head -1)
    codename=$(. /etc/os-release; echo "$VERSION_CODENAME")
    mirror=$(apt-get indextargets --format '$(REPO_URI)' "Created-By: Packages" "Codename: $codename" | head -1)
    clean=$(mktemp -d /var/tmp/vector_ext-root.XXXXXX); chmod 755 "$clean"
    trap 'chroot "$clean" pg_ctlcluster '"$major"' main stop -m immediate >/dev/null 2>&1 || true; umount "$clean/proc" 2>/dev/null || true; rm -rf "$clean"' EXIT
    say "making a clean root of $codename"
    debootstrap --variant=minbase "$codename" "$clean" "$mirror" >"$clean.log" 2>&1 || { tail "$clean.log"; die "debootstrap failed"; }
    rm -f "$clean.log"
    cp -a /etc/apt/apt.conf.d/. "$clean/etc/apt/apt.conf.d/" 2>/dev/null || true   # a proxy, perhaps
    cp "$folder"/*.deb "$clean/var/tmp/"
    mount -t proc proc "$clean/proc"
    inside() { chroot "$clean" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C "$@" </dev/null; }
    inside apt-get -q -y update >/dev/null
    say "installing the packages"
    inside sh -c "apt-get -q -y install --no-install-recommends /var/tmp/postgresql-$major-vector-ext_*.deb \
        /var/tmp/postgresql-$major-ivflsh_*.deb /var/tmp/postgresql-$major-vector_*.deb" >"$clean/install.log" 2>&1 \
        || { tail -20 "$clean/install.log"; die "apt refused"; }
    [[ -e $clean/etc/postgresql/$major/main ]] || inside pg_createcluster "$major" main
    inside pg_ctlcluster "$major" main start
    psql_inside() { chroot "$clean" env -i PATH=/usr/bin:/bin LC_ALL=C setpriv --reuid="$(chroot "$clean" id -u postgres)" --clear-groups psql "$@"; }
    check psql_inside
    if inside apt-cache policy "postgresql-$major-pgvector" | grep -q "Candidate: [0-9]"; then
        inside apt-get -s -y install "postgresql-$major-pgvector" | grep -q "^Remv postgresql-$major-vector " \
            || die "pgvector's package can be installed beside the extension vector of ours"
        say "pgvector's package and ours exclude each other"
    else
        say "this release of Debian has no package of pgvector for $major: what excludes it was not tried"
    fi
    inside pg_ctlcluster "$major" main stop
    inside apt-get -q -y purge "postgresql-$major-vector" "postgresql-$major-ivflsh" "postgresql-$major-vector-ext" >/dev/null 2>&1
    left=$(find "$clean/usr/lib/postgresql" "$clean/usr/share/postgresql" \
        '(' -name 'vector.*' -o -name 'vector--*' -o -name 'vector_ext*' -o -name 'ivflsh*' ')')
    [[ -z $left ]] || die "files stay behind: $left"
    say "purged, and nothing stays behind"
}

try_tree() {
    local folder; folder=$(realpath "$1")
    [[ $(pg_major) == 18 ]] || die "extension_control_path is of PostgreSQL 18; PG_CONFIG is of $(pg_major)"
    PYTHONPATH=tests "$(venv_path)/bin/python" - "$pg_config" "$folder" <<'PYTHON'
import sys
from harness.cluster import Cluster
pg_config, folder = sys.argv[1:]
trees = {"vector_ext": [f"{folder}/vector_ext"], "vector": [f"{folder}/vector", f"{folder}/vector_ext"]}
for name, method in (("vector_ext", "ivflsh"), ("vector", "hnsw"), ("vector", "ivflsh")):
    settings = {"extension_control_path": ":".join(f"{tree}/share" for tree in trees[name]) + ":$system",
                "dynamic_library_path": ":".join(f"{tree}/lib" for tree in trees[name]) + ":$libdir"}
    with Cluster(pg_config, settings) as cluster, cluster.connect() as db:
        db.execute(f"CREATE EXTENSION {name}")
        db.execute(f"""CREATE TABLE items (id int, embedding vector(3));
            INSERT INTO items SELECT i, ARRAY[sin(i), cos(i), sin(i * 0.7)]::real[]::vector FROM generate_series(1, 5000) i;
            CREATE INDEX ON items USING {method} (embedding vector_cosine_ops); SET enable_seqscan = off""")
        found = db.execute("SELECT embedding <=> '[0,1,0]' AS d FROM items ORDER BY 1 LIMIT 5").fetchall()
        assert len(found) == 5 and all(d < 0.01 for d, in found), found
        maps = open(f"/proc/{db.info.backend_pid}/maps").read()
        assert f"{folder}/vector_ext/lib/vector_ext.so" in maps, "another library was loaded"
        print(f"{name}: CREATE EXTENSION, an index by {method} and a search work", flush=True)
PYTHON
}

case ${1:-} in
deb) try_debs "$2" ;;
tree) try_tree "$2" ;;
rebuilt)
    folder=$(realpath "$2"); again=$(mktemp -d "$cache/again.XXXXXX"); trap 'rm -rf "$again"' EXIT
    VECTOR_EXT_PACKAGE_TARGET=$again/target scripts/package.sh deb "$again/dist"
    diff <(cd "$folder" && sha256sum -- *.deb) <(cd "$again/dist" && sha256sum -- *.deb) || die "the second build is another"
    say "the same, byte by byte: $(cd "$again/dist" && ls | wc -l) packages"
    ;;
*) sed -n '2,/^set/{/^set/d;s/^# \?//;p}' "$0" >&2; exit 2 ;;
esac

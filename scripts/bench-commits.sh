#!/bin/bash
# Build another commit of the extension into a private copy of the server, once.
# usage: bench-commits.sh COMMIT     prints, last, the path of that copy's pg_config
set -euo pipefail
. "$(dirname "$0")/env.sh"
commit=$(git rev-parse --verify "${1:?which commit is the old one?}^{commit}")

# A server finds its files from where its programs are, so a copy of both trees is a server of its own.
bindir=$("$pg_config" --bindir) sharedir=$("$pg_config" --sharedir) includedir=$("$pg_config" --includedir-server)
old=$commits/$commit
copy_server() {
    local tree; for tree in "$(dirname "$bindir")" "$sharedir"; do
        mkdir -p "$old$(dirname "$tree")"
        cp -a "$tree" "$old$(dirname "$tree")/"
    done
    mkdir -p "$old$(dirname "$includedir")"
    ln -sfn "$includedir" "$old$includedir"
}
if [[ ! -e $old/complete ]]; then
    say "building commit ${commit:0:12} into $old"
    rm -rf "$old"; copy_server
    git worktree add --force --detach "$old/source" "$commit"
    (cd "$old/source" && CARGO_TARGET_DIR="$cache/target-commits" cargo pgrx install --release --pg-config "$old$bindir/pg_config" \
        --no-default-features --features "pg$(pg_major)" </dev/null)
    git worktree remove --force "$old/source"
fi
echo "$old$bindir/pg_config" >"$old/complete"

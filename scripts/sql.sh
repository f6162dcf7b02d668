#!/bin/bash
# Makes, from the SQL of sql/, the scripts of the extensions that stand beside vector_ext (see extensions/README.md).
# usage: sql.sh ivflsh FOLDER | vector FOLDER | symbols
#   ivflsh FOLDER   control file and scripts of the add-on to pgvector
#   vector FOLDER   control file and scripts of the extension in pgvector's place
#   symbols         pgvector's C symbols and ours, for extensions/vector.c
set -euo pipefail
. "$(dirname "$0")/env.sh"

interface=0.8.6   # of pgvector, which the extension vector equals
version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
types=(sql/types/{vector,halfvec,sparsevec,bit,casts}.sql)

# Every version of pgvector that a database can have.
pgvector_versions=(0.1.{0..8} 0.2.{0..7} 0.3.{0..2} 0.4.{0..4} 0.5.{0,1} 0.6.{0..2} 0.7.{0..4} 0.8.{0..6})

# pgvector's name of each of our C symbols.
as_pgvector() {
    sed -E "s/'vx_vector_(binary_quantize|cosine_distance|inner_product|l1_distance|l2_distance|l2_normalize|subvector)'/'\1'/
            s/'vx_halfvec_combine'/'vector_combine'/; s/'vx_([a-z0-9_]+)'/'\1'/"
}

# Functions that pgvector does not have are in the library that does the work, whatever the extension's own is.
in_library() { sed -E "s/'MODULE_PATHNAME', '(ivflsh_|vx_(bm25_|[a-z]+_(mmr|deduplicate)'))/'\$libdir\/vector_ext', '\1/"; }

# Statements, one after the other without comments.
statements() { awk '/^ *(--|$)/ { next } { print }' "$@"; }

# The operator classes of filter columns for another access method.
filters_for() {
    statements sql/filter.sql | awk -v method="$1" '
        { statement = statement $0 "\n" }
        /;$/ { if (statement !~ /^CREATE FUNCTION/) { gsub(/USING ivflsh/, "USING " method, statement); printf "%s", statement }
               statement = "" }'
}

# All statements of the extension vector, in order.
vector_statements() {
    { statements "${types[@]}" | as_pgvector
      statements sql/pgvector.sql sql/index.sql sql/filter.sql
      filters_for hnsw; filters_for ivfflat
      statements sql/insight.sql
      statements sql/rank.sql sql/fan_out.sql
    } | in_library
}

# All statements of the add-on; @types@ stands for the schema of pgvector.
ivflsh_statements() {
    { statements sql/index.sql | sed -E 's/FOR TYPE (vector|halfvec|sparsevec)/FOR TYPE @types@.\1/
            s/\((vector|halfvec|sparsevec), (vector|halfvec|sparsevec)\)/(@types@.\1, @types@.\2)/g
            s/OPERATOR 1 ([^ ]+) /OPERATOR 1 @types@.\1 /'
      statements sql/filter.sql
      statements sql/insight.sql | sed -E 's/\b(vector|halfvec|sparsevec)\[\]/@types@.\1[]/g'
      statements sql/rank.sql | sed -E 's/\b(vector|halfvec|sparsevec)(\[\]|,|\)|$)/@types@.\1\2/g; s/\b(query) (vector|halfvec) /\1 @types@.\2 /g'
      statements sql/fan_out.sql
    } | in_library
}

# guarded EXTENSION TYPES: statements that may be run where some of their objects exist already, provided that these belong
# to the extension. TYPES: the extension whose types are meant; what is of a type that it does not have is left out.
guarded() {
    cat <<SQL
DO \$install\$
DECLARE
    types text := (SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension e
        JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = '$2');
    s record;
BEGIN
SQL
    [[ $1 == "$2" ]] || cat <<SQL
    IF EXISTS (SELECT FROM pg_catalog.pg_am a JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_am'::regclass
        AND d.objid = a.oid AND d.deptype = 'e' JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
        AND d.refclassid = 'pg_catalog.pg_extension'::regclass WHERE a.amname = 'ivflsh' AND e.extname <> '$1')
    THEN
        RAISE EXCEPTION 'access method "ivflsh" already exists' USING ERRCODE = 'duplicate_object',
            DETAIL = 'Another extension of vector_ext has it in this database: vector in the place of pgvector, or vector_ext.';
    END IF;
SQL
    cat <<SQL
    FOR s IN SELECT * FROM (VALUES
SQL
    awk '
        function identify() {
            kind = names = arguments = ""
            split(statement, word, /[ \n(]+/)
            if (statement ~ /^CREATE ACCESS METHOD/) { kind = "access method"; names = word[4] }
            else if (statement ~ /^CREATE TYPE/) { kind = "type"; names = word[3]; sub(/;$/, "", names) }
            else if (statement ~ /^CREATE OPERATOR (CLASS|FAMILY)/) {
                kind = word[3] == "CLASS" ? "operator class" : "operator family"
                method = statement; sub(/.*USING /, "", method); sub(/[ ;\n].*/, "", method)
                names = method "\047, \047" word[4]
            } else if (statement ~ /^CREATE OPERATOR/) {
                kind = "operator"; names = word[3]
                left = right = statement
                sub(/.*LEFTARG = /, "", left); sub(/,.*/, "", left); sub(/.*RIGHTARG = /, "", right); sub(/,.*/, "", right)
                arguments = left "\047, \047" right
            } else if (statement ~ /^CREATE CAST/) {
                kind = "cast"; names = arguments = statement
                sub(/^CREATE CAST \(/, "", names); sub(/ AS .*/, "", names)
                sub(/^[^)]* AS /, "", arguments); sub(/\).*/, "", arguments)
            }
            sub(/^CREATE (FUNCTION|AGGREGATE)/, "CREATE OR REPLACE " (statement ~ /^CREATE F/ ? "FUNCTION" : "AGGREGATE"), statement)
        }
        function list(elements) { return elements == "" ? "\047{}\047::text[]" : "ARRAY[\047" elements "\047]" }
        { statement = statement (statement == "" ? "" : "\n") $0; in_body = (in_body + gsub(/\$body\$/, "&")) % 2 }
        /;$/ && !in_body {
            identify(); sub(/;$/, "", statement)
            printf "%s        (%d, \047%s\047, %s, %s, $s$%s$s$)", (n++ ? ",\n" : ""), n, kind, list(names), list(arguments), statement
            statement = ""
        }'
    cat <<SQL

    ) AS statements (place, kind, names, arguments, command) ORDER BY place LOOP
        BEGIN
            EXECUTE pg_catalog.replace(s.command, '@types@', types);
        EXCEPTION
            WHEN duplicate_object OR duplicate_function THEN
                -- Part of a family whose members are there.
                CONTINUE WHEN s.kind = '';
                IF NOT EXISTS (
                    SELECT FROM pg_catalog.pg_get_object_address(s.kind, s.names, s.arguments) a
                    JOIN pg_catalog.pg_depend d ON (d.classid, d.objid) = (a.classid, a.objid) AND d.deptype = 'e'
                    JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_catalog.pg_extension'::regclass
                    WHERE e.extname = '$1')
                THEN
                    RAISE;
                END IF;
            WHEN undefined_object OR undefined_function THEN
                IF pg_catalog.strpos(s.command, '@types@') = 0 THEN
                    RAISE;
                END IF;
        END;
    END LOOP;
END
\$install\$;
SQL
}

heading() { printf -- '-- Made by scripts/sql.sh from sql/.\n\\echo Use CREATE EXTENSION or ALTER EXTENSION to run this file. \\quit\n\n'; }

case ${1:-} in
ivflsh)
    sed "s/@VERSION@/$version/" extensions/ivflsh.control >"$2/ivflsh.control"
    { heading; ivflsh_statements | guarded ivflsh vector; } >"$2/ivflsh--$version.sql"
    # ALTER EXTENSION ivflsh UPDATE TO 'refresh' adds the classes of types that pgvector has got since; UPDATE goes back.
    cp "$2/ivflsh--$version.sql" "$2/ivflsh--$version--refresh.sql"
    heading >"$2/ivflsh--refresh--$version.sql"
    ;;
vector)
    sed "s/@INTERFACE@/$interface/" extensions/vector.control >"$2/vector.control"
    { heading; vector_statements; } >"$2/vector--$interface.sql"
    # pgvector of any version becomes the version "pgvector", and that one this extension: one script for all of them.
    { heading; vector_statements | guarded vector vector
      echo "ALTER TYPE vector SET (STORAGE = external);"
    } >"$2/vector--pgvector--$interface.sql"
    for old in "${pgvector_versions[@]}"; do heading >"$2/vector--$old--pgvector.sql"; done
    ;;
symbols)
    cat "${types[@]}" | grep -o "'vx_[a-z0-9_]*'" | sort -u | while read -r ours; do
        theirs=$(as_pgvector <<<"$ours"); echo "FORWARD(${theirs//\'/}, \"${ours//\'/}\")"
    done | sort -u -t'(' -k2,2 | grep -v '"vx_halfvec_combine"'
    echo 'FORWARD(hnswhandler, "ivflsh_hnsw_handler")'
    echo 'FORWARD(ivfflathandler, "ivflsh_ivfflat_handler")'
    ;;
*)
    sed -n '2,/^set/{/^set/d;s/^# \?//;p}' "$0" >&2; exit 2
    ;;
esac

/*
 * vector.so: stands in for pgvector's library under the C symbols that its catalogs name.
 *
 * Every call goes on to vector_ext.so, the library that does the work. The symbols are in this file, and not in that one,
 * because vector_ext.so can be loaded beside the real pgvector, whose names they are.
 */
#include "postgres.h"
#include "fmgr.h"

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

/* What each symbol stands for; symbols.h is made from the SQL sources by scripts/sql.sh. */
#define FORWARD(symbol, target) static PGFunction to_##symbol;
#include "symbols.h"
#undef FORWARD

#define FORWARD(symbol, target) \
    PGDLLEXPORT Datum symbol(PG_FUNCTION_ARGS); \
    PG_FUNCTION_INFO_V1(symbol); \
    Datum symbol(PG_FUNCTION_ARGS) { return to_##symbol(fcinfo); }
#include "symbols.h"
#undef FORWARD

/* Support functions of pgvector's operator classes that only its own code can use. */
#define UNUSED(symbol) \
    PGDLLEXPORT Datum symbol(PG_FUNCTION_ARGS); \
    PG_FUNCTION_INFO_V1(symbol); \
    Datum symbol(PG_FUNCTION_ARGS) \
    { \
        ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg(#symbol " is there for pgvector's catalogs only"))); \
    }
UNUSED(hnsw_bit_support)
UNUSED(hnsw_halfvec_support)
UNUSED(hnsw_sparsevec_support)
UNUSED(ivfflat_bit_support)
UNUSED(ivfflat_halfvec_support)

/* Called when PostgreSQL loads this library. */
void
_PG_init(void)
{
    const char *library = "$libdir/vector_ext";

#define FORWARD(symbol, target) to_##symbol = (PGFunction) load_external_function(library, target, true, NULL);
#include "symbols.h"
#undef FORWARD

    /* The settings hnsw.… and ivfflat.… */
    ((void (*)(void)) load_external_function(library, "ivflsh_pgvector_settings", true, NULL))();
}

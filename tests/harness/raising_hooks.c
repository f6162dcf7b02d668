/* A module that had the hooks first, and raises in the one that the setting raising.hook names: at its call number raising.call,
 * counted from when either was set. */
#include "postgres.h"

#include <limits.h>

#include "executor/executor.h"
#include "fmgr.h"
#include "optimizer/paths.h"
#include "optimizer/planner.h"
#include "utils/guc.h"

PG_MODULE_MAGIC;

void _PG_init(void);

static char *hook = "";
static int call = 1;
static int seen = 0;

static void
restart(void)
{
	seen = 0;
}

static void
assign_hook(const char *value, void *extra)
{
	restart();
}

static void
assign_call(int value, void *extra)
{
	restart();
}

static void
raise_in(const char *name)
{
	if (strcmp(hook, name) == 0 && ++seen == call)
		ereport(ERROR, (errcode(ERRCODE_RAISE_EXCEPTION), errmsg("raised in %s", name)));
}

static void
pathlist(PlannerInfo *root, RelOptInfo *rel, Index rti, RangeTblEntry *rte)
{
	raise_in("pathlist");
}

static void
upper_paths(PlannerInfo *root, UpperRelationKind stage, RelOptInfo *input, RelOptInfo *output, void *extra)
{
	raise_in("upper_paths");
}

static void
start(QueryDesc *query, int flags)
{
	raise_in("start");
	standard_ExecutorStart(query, flags);
	raise_in("started");
}

#if PG_VERSION_NUM >= 180000
static void
run(QueryDesc *query, ScanDirection direction, uint64 count)
#else
static void
run(QueryDesc *query, ScanDirection direction, uint64 count, bool once)
#endif
{
	raise_in("run");
#if PG_VERSION_NUM >= 180000
	standard_ExecutorRun(query, direction, count);
#else
	standard_ExecutorRun(query, direction, count, once);
#endif
	raise_in("ran");
}

void
_PG_init(void)
{
	DefineCustomStringVariable("raising.hook", "", NULL, &hook, "", PGC_SUSET, 0, NULL, assign_hook, NULL);
	DefineCustomIntVariable("raising.call", "", NULL, &call, 1, 1, INT_MAX, PGC_SUSET, 0, NULL, assign_call, NULL);
	set_rel_pathlist_hook = pathlist;
	create_upper_paths_hook = upper_paths;
	ExecutorStart_hook = start;
	ExecutorRun_hook = run;
}

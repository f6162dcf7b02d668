"""What goes on inside a backend: its memory, where its time goes, and how much each query reads."""

import bisect
import re
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from systems import Point

K = 10
DEFAULT = Point("default", "default")
MEMORY_AFTER = (100, 1_000, 10_000)
COUNTED = 500  # queries whose counters are averaged

# The first rule whose pattern is found in "library symbol" names the group.
GROUPS = [
    ("kernels: sketches and their table", r"vector_ext.* ann::quantize::(simd::\w+::scan|simd::\w+::lut|table|sketch|scan)"),
    ("kernels: codes, distances, rotation", r"vector_ext.* (ann::|<ann::)"),
    ("vector_ext: index", r"vector_ext.* (vector_ext::index|<vector_ext::index)"),
    ("vector_ext: sorting and selecting", r"vector_ext.* core::slice"),
    ("vector_ext: other", r"vector_ext"),
    ("buffer manager", r"postgres .*(Buffer|BufTable|LWLock|hash_search|hash_bytes|hash_any|tag_hash|get_hash_value|"
                       r"ResourceOwner|smgr|\bmd[a-z]+|StrategyGet)"),
    ("heap, TOAST, visibility, btree", r"postgres .*(heap|Heap|toast|detoast|Snapshot|XidIn|Transaction|pglz|table_|visibilitymap|"
                                       r"_bt_|btint|systable)"),
    ("executor", r"postgres .*(Exec|index_|Index|Query|Portal|Slot|slot|FunctionCall|Datum|reorderqueue|pairingheap|tuple|Tuple|"
                 r"standard_|Instr|Interp)"),
    ("memory contexts", r"postgres .*(palloc|pfree|Alloc|MemoryContext)"),
    ("protocol, plans, transaction", r"postgres .*(pq_|secure_|Plan|plan|exec_|PostgresMain|Command|command|printtup|"
                                     r"Lock|lock|WaitEvent|Latch|pgstat|timeout|Timestamp|list_|bms_|Parse|parse)"),
    ("server: other", r"postgres "),
    ("system: network and scheduling", r"(kernel|unknown).*(sock|tcp|unix|skb|sched|futex|epoll|poll|wake|switch|recv|send|"
                                       r"syscall|entry|select|idle|swapgs)"),
    ("system: other", r"kernel"),
    ("libc", r"(libc|libm|ld-linux)"),
]


def group_of(library, symbol):
    line = f"{library} {symbol}"
    return next((name for name, pattern in GROUPS if re.search(pattern, line)), "other")


class Exported:
    """Names for the static functions of a stripped server: that of the exported function before them, in the same file."""

    def __init__(self, program):
        lines = subprocess.run(["nm", "-D", "--defined-only", program], capture_output=True, text=True).stdout.splitlines()
        self.symbols = sorted((int(line.split()[0], 16), line.split()[2]) for line in lines if line.split()[1] in "TtWw")

    def name(self, symbol):
        if not re.fullmatch("0x[0-9a-f]+", symbol) or not self.symbols:
            return symbol
        before = bisect.bisect_right(self.symbols, (int(symbol, 16), "~")) - 1
        return f"{self.symbols[max(0, before)][1]} (or a static function after it)"


def resident(pid):
    """Anonymous resident memory of a process, in kB: its own, without shared buffers."""
    return int(re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])


def memory(system, log):
    """The memory of one backend as it answers more and more queries."""
    sql, order = system.query(K, "%b"), np.random.default_rng(3).integers(len(system.data.query), size=MEMORY_AFTER[-1])
    with system.connect() as connection:
        pid, found = connection.info.backend_pid, {}
        for done, query in enumerate(order.tolist(), 1):
            connection.execute(sql, (query,), prepare=True).fetchall()
            if done in MEMORY_AFTER:
                found[done] = resident(pid)
    log(f"{system.data.name}: memory of a backend (RssAnon): "
        + ", ".join(f"{kb:,} kB after {n:,} queries" for n, kb in found.items()),
        type="memory", data=system.data.name, system=system.name, kb={str(n): kb for n, kb in found.items()})


def counts(system, log):
    """Per query, on average: what the index scan says of itself, and the buffers that the server counted."""
    sql, averages = system.query(K, "%b"), Counter()
    with system.connect() as connection:
        tells = connection.execute("SELECT to_regprocedure('ivflsh_last_scan()') IS NOT NULL").fetchone()[0]
        for i in range(COUNTED):
            connection.execute(sql, (i,), prepare=True).fetchall()
            if tells:
                row = connection.execute("SELECT lists, entries, refined, returned FROM ivflsh_last_scan()").fetchone()
                averages.update(dict(zip(("lists probed", "entries scanned", "survivors refined", "heap rows read"), row)))
        for i in range(COUNTED):
            plan = connection.execute("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) " + system.query(K, i)
                                      ).fetchone()[0][0]["Plan"]
            averages["buffer accesses"] += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    averages = {name: total / COUNTED for name, total in averages.items()}
    if not tells:
        log("the extension has no function ivflsh_last_scan(): lists, entries, survivors and heap rows are not known")
    log(f"{system.data.name}: per query on average: " + ", ".join(f"{value:,.1f} {name}" for name, value in averages.items()),
        type="counts", data=system.data.name, system=system.name, averages=averages)


def profile(system, log, seconds):
    """Where a backend spends its time while pgbench queries it at default settings."""
    seconds = max(5, round(seconds))
    event = "cycles" if subprocess.run(["perf", "stat", "-e", "cycles", "-x,", "true"], capture_output=True, text=True
                                       ).stderr.startswith(tuple("0123456789")) else "cpu-clock"
    with tempfile.TemporaryDirectory() as folder:
        script, recorded = Path(folder) / "query.sql", Path(folder) / "perf.data"
        script.write_text(f"\\set qid random(0, {len(system.data.query) - 1})\n{system.query(K, ':qid')};\n")
        load = subprocess.Popen(system.pgbench(str(script), DEFAULT, 1, seconds + 3), stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL, text=True)
        try:
            pid = _backend_of_pgbench(system)
            time.sleep(1)
            done = subprocess.run(["perf", "record", "-e", event, "-F", "1999", "-p", str(pid), "-o", recorded,
                                   "--", "sleep", str(seconds)], capture_output=True, text=True)
            if done.returncode != 0:
                log(f"no profile, perf record failed ({done.returncode}): {done.stderr.strip()[-500:]}")
                return
            qps = float(re.search(r"^tps = ([0-9.]+)", load.communicate()[0], re.M)[1])
        finally:
            load.kill()
            load.wait()
        lines = subprocess.run(["perf", "report", "-i", recorded, "--stdio", "-q", "--no-children", "-F",
                                "overhead,dso,symbol", "-t", "|"], check=True, capture_output=True, text=True).stdout
    symbols = []
    for line in lines.splitlines():
        if match := re.match(r"\s*([0-9.]+)%?\s*\|\s*(\S+)\s*\|\s*\[.\]\s*(.*\S)", line):
            symbols.append((float(match[1]), match[2], match[3]))
    exported, shares = Exported(system.cluster.bindir / "postgres"), Counter()
    for share, library, symbol in symbols:
        shares[library, _short(exported.name(symbol) if library == "postgres" else symbol)] += share
    groups = Counter()
    for (library, symbol), share in shares.items():
        groups[group_of(library, symbol)] += share
    symbols = [(round(share, 2), library, symbol) for (library, symbol), share in shares.most_common()]
    log(f"{system.data.name}: {qps:.0f} queries/s under perf ({event}); share of the backend's time:",
        type="perf", data=system.data.name, system=system.name, event=event, qps=qps, groups=groups.most_common(),
        symbols=symbols[:40])
    print("\n".join(f"    {share:5.1f} %  {1e6 / qps * share / 100:6.1f} us  {name}" for name, share in groups.most_common()))
    print("  the symbols with most of it:")
    print("\n".join(f"    {share:5.1f} %  {library}  {symbol}" for share, library, symbol in symbols[:20]), flush=True)


def _backend_of_pgbench(system):
    with system.cluster.connect() as connection:
        for _ in range(100):
            row = connection.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'pgbench' "
                                     "AND datname = %s", (system.database,)).fetchone()
            if row:
                return row[0]
            time.sleep(0.05)
    raise RuntimeError("pgbench did not connect")


def _short(symbol):
    return re.sub(r"::h[0-9a-f]{16}$", "", symbol)[:110]

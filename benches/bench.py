"""Recall against queries per second, on real data: ivflsh, pgvector's HNSW and IVFFlat, and Faiss as the ceiling.

Run it by `make bench ARGS="…"`. One throwaway server holds everything in shared buffers. Each system is measured at each of
its points for some seconds, systems in turn, several rounds; medians are quoted. Each measurement is appended to
results.jsonl at once, so an interrupted run can still be reported with --report. See docs/bench.md.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benches"), str(ROOT / "tests")]
import datasets  # noqa: E402
import inside  # noqa: E402
import report  # noqa: E402
from harness.cluster import Cluster, exit_on_signals  # noqa: E402
from systems import SYSTEMS, Point, Postgres  # noqa: E402

STAGES = ("sweep", "clients", "k100", "truncated", "memory", "perf")
STAGES_BY_DEFAULT = ("sweep", "clients", "k100", "truncated")
ENOUGH = 0.9985  # a curve ends at the first point with this recall
TOO_LOW = 0.5  # points below this recall are not timed
TRUNCATED = (1_000, 10_000)
SETTINGS = {
    "shared_buffers": "4GB",  # more than everything that is measured together
    "maintenance_work_mem": "1GB",
    "max_parallel_maintenance_workers": "1",  # with the leader: both cores
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
    "statement_timeout": "0",
    "jit": "off",
}


class Log:
    """Appends records to the JSONL file, and prints a line for each."""

    def __init__(self, path):
        self.path, self.started = path, time.monotonic()

    def __call__(self, line=None, **record):
        if line:
            print(f"{time.monotonic() - self.started:7.1f} s  {line}", flush=True)
        if record:
            with open(self.path, "a") as file:
                file.write(json.dumps(record) + "\n")


class CpuMeter:
    """How many cores were busy, with whatever: shows whether the machine was quiet."""

    def __enter__(self):
        self.before, self.started = self._busy(), time.monotonic()
        return self

    def __exit__(self, *_):
        self.cores = (self._busy() - self.before) / (time.monotonic() - self.started)

    @staticmethod
    def _busy():
        user, nice, system, idle, iowait, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
        return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


class Bench:
    """One data set, all systems."""

    def __init__(self, cluster, data, options, log):
        self.data, self.options, self.log = data, options, log
        self.systems = [SYSTEMS[name](cluster, data, options.quick) for name in options.systems]

    def run(self):
        try:
            for system in self.systems:
                built = system.build()
                self.log(f"{self.data.name}: {system.name} built in {built['seconds']:.1f} s, "
                         f"{built['size'] / 2**20:.0f} MB", type="build", data=self.data.name, rows=self.data.rows,
                         dimensions=self.data.dimensions, metric=self.data.metric, system=system.name, **built)
            self._stages()
        finally:
            for system in self.systems:
                system.drop()

    def _stages(self):
        stages, in_server = self.options.stages, [s for s in self.systems if isinstance(s, Postgres)]
        if "sweep" in stages or "clients" in stages:
            measured = self._sweep(self.systems, 10)
        if "clients" in stages:
            near = [m for system in in_server for m in self._near_targets([m for m in measured if m[0] is system])]
            self._rounds(near, 10, clients=2)
        if "k100" in stages:
            self._sweep([s for s in in_server if s.name in ("ivflsh", "hnsw")], 100)
        ours = next((s for s in self.systems if s.name == "ivflsh"), None)
        if ours and "memory" in stages:
            inside.memory(ours, self.log)
        if ours and "perf" in stages:
            inside.counts(ours, self.log)
            inside.profile(ours, self.log, self.options.seconds)

    def _sweep(self, systems, k):
        """Measure all points' recalls, then their rates. Returns [system, point, recall, rates]."""
        measured = [[s, point, recall, []] for s in systems for point, recall in self._recalls(s, k)]
        self._rounds([m for m in measured if m[2] >= TOO_LOW], k, clients=1)
        return measured

    def _recalls(self, system, k):
        ended = set()
        for point in system.points(k, self.options.quick):
            if point.knob in ended or not self._wanted(point):
                continue
            recall = self._recall(system, point, k)
            yield point, recall
            if recall >= ENOUGH and point.knob != "faiss":
                ended.add(point.knob)

    def _recall(self, system, point, k, **more):
        rows, uses_index = system.answers(point, k, min(self.options.queries, len(self.data.query)))
        n = len(rows)
        recall = sum(system.data.hits(i, found, k) for i, found in enumerate(rows)) / (n * k)
        self.log(f"{system.data.name}: {system.name} {point.label}: recall@{k} {recall:.4f}"
                 + ("" if uses_index else " (the planner did not take the index)"),
                 type="recall", data=system.data.name, system=system.name, point=point.label, knob=point.knob, k=k,
                 recall=recall, queries=n, uses_index=uses_index, **more)
        return recall

    def _wanted(self, point):
        return not self.options.points or {point.label, point.label.split("=")[-1]} & set(self.options.points)

    def _rounds(self, measured, k, clients):
        """Time each point, in rounds; within a round the systems alternate from point to point."""
        for round_number in range(1, self.options.rounds + 1):
            for system, point, recall, rates in in_turn(measured):
                with CpuMeter() as cpu:
                    qps = system.rate(point, k, clients, self.options.seconds)
                if clients == 1:
                    rates.append(qps)
                self.log(f"{self.data.name}: round {round_number}, {clients} client{'s' * (clients > 1)}, k={k}: "
                         f"{system.name:8} {point.label:20} recall {recall:.4f} {qps:9.1f}/s",
                         type="qps", data=self.data.name, system=system.name, point=point.label, k=k, clients=clients,
                         round=round_number, qps=qps, busy_cores=round(cpu.cores, 2))

    def _near_targets(self, measured):
        """The points that one system's rates at the reported recalls are interpolated from, and its default."""
        timed = [report.Measured(recall, report.median(rates), point.label)
                 for _, point, recall, rates in measured if rates]
        labels = {"default"}
        for target in datasets.TARGETS[self.data.name]:
            labels |= {m.label for m in report.around(report.front(timed), target)}
        return [m for m in measured if m[1].label in labels]

    def truncated(self, cluster):
        """Recall of the default settings on small tables: as the planner has it, and through the index."""
        for rows in TRUNCATED:
            data = self.data.truncated(rows)
            system = SYSTEMS["ivflsh"](cluster, data)
            system.build()
            try:
                for point in (Point("default", "default"), Point("default, index forced", "forced")):
                    self._recall(system, point, 10, rows=rows)
            finally:
                system.drop()


def in_turn(measured):
    """The points of all systems, spread so that the systems alternate."""
    position, count = {}, {}
    for m in measured:
        count[m[0]] = count.get(m[0], 0) + 1
    keyed = []
    for number, m in enumerate(measured):
        position[m[0]] = position.get(m[0], 0) + 1
        keyed.append((position[m[0]] / count[m[0]], number, m))
    return [m for _, _, m in sorted(keyed, key=lambda x: x[:2])]


def about_this_run(cluster, options):
    """What a reader needs to judge the figures."""
    with cluster.connect() as connection:
        version = connection.execute("SHOW server_version").fetchone()[0]
        available = dict(connection.execute(
            "SELECT name, default_version FROM pg_available_extensions WHERE name IN ('vector', 'vector_ext')").fetchall())
    if "vector_ext" not in available:
        sys.exit("vector_ext is not installed in this server: make install")
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())
    git = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"],
                         capture_output=True, text=True)
    return {"type": "run", "date": datetime.now(timezone.utc).isoformat(timespec="seconds"), "cpu": model,
            "cores": os.cpu_count(), "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "kernel": platform.release(), "postgresql": version, "extensions": available,
            "commit": git.stdout.strip() or "unknown", "settings": SETTINGS, "rounds": options.rounds,
            "seconds": options.seconds, "queries": options.queries, "quick": options.quick,
            "load_before": os.getloadavg()[0]}


def parse():
    def names(allowed):
        def parse_names(text):
            chosen = text.split(",")
            if unknown := set(chosen) - set(allowed):
                raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not one of {', '.join(allowed)}")
            return chosen
        return parse_names

    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer points, 1 round of 1 second, 200 queries for recall")
    parser.add_argument("--systems", type=names(SYSTEMS), default=list(SYSTEMS), help="of " + ",".join(SYSTEMS))
    parser.add_argument("--data", type=names(datasets.TARGETS), default=list(datasets.TARGETS), help="of glove,fashion")
    parser.add_argument("--rounds", type=int, help="rounds in which the systems alternate (3)")
    parser.add_argument("--seconds", type=float, help="seconds for each point in each round (3)")
    parser.add_argument("--queries", type=int, help="queries that recall is measured with (1000)")
    parser.add_argument("--points", type=lambda text: text.split(","),
                        help="only these points:  --points default,ef_search=40,probes=64")
    parser.add_argument("--stages", type=lambda text: list(STAGES) if text == "all" else names(STAGES)(text),
                        help=f"of {','.join(STAGES)}, or all; without it {','.join(STAGES_BY_DEFAULT)}")
    parser.add_argument("--memory", action="store_true", help="only the memory of a backend, after 100 and 10,000 queries")
    parser.add_argument("--perf", action="store_true", help="only the profile of a backend, at default settings on glove")
    parser.add_argument("--out", type=Path, help="folder for results.jsonl, report.md and the plots (in the cache)")
    parser.add_argument("--docs", action="store_true", help="write report and plots into docs/bench/ as well")
    parser.add_argument("--report", type=Path, nargs="+", metavar="FILE", help="measure nothing: report these results")
    options = parser.parse_args()
    if options.memory or options.perf:
        options.stages = ["memory"] * options.memory + ["perf"] * options.perf
        options.systems = ["ivflsh"]
        if options.perf and not options.memory:
            options.data = ["glove"]
    options.stages = options.stages or list(STAGES_BY_DEFAULT)
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.seconds = options.seconds or (1 if options.quick else 3)
    options.queries = options.queries or (200 if options.quick else datasets.QUERIES)
    return options


def main():
    options = parse()
    cache = Path(os.environ.get("VECTOR_EXT_CACHE") or Path.home() / ".cache/vector_ext")
    if options.report:
        return report.write(options.report, options.out or options.report[0].parent, options.docs and ROOT / "docs/bench")

    exit_on_signals()
    out = options.out or cache / "bench" / datetime.now().strftime("%Y%m%d-%H%M%S")
    out.mkdir(parents=True, exist_ok=True)
    log = Log(out / "results.jsonl")
    print(f"results: {log.path}", flush=True)
    try:
        sets = [datasets.load(name, cache) for name in options.data]
        with Cluster(settings=SETTINGS) as cluster:
            log(**about_this_run(cluster, options))
            for data in sets:
                bench = Bench(cluster, data, options, log)
                if set(options.stages) - {"truncated"}:
                    bench.run()
                if "truncated" in options.stages and data.name == "fashion" and "ivflsh" in options.systems:
                    bench.truncated(cluster)
    finally:
        if log.path.exists():
            report.write([log.path], out, options.docs and ROOT / "docs/bench")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; the server is stopped and removed, the report shows what was measured so far")

#!/usr/bin/env python3
"""Runs the statements of statements/*.sql and compares; see README.md.

    run.py record  DSN [EXT]                 record the golden outputs in expected/ (EXT: vector, that is pgvector)
    run.py check   DSN [EXT]                 compare EXT (vector_ext; vector: in pgvector's place; ivflsh: pgvector
                                             with the add-on) with the golden outputs
    run.py compare DSN_A EXT_A DSN_B EXT_B   compare two servers live

A DSN that is "new" stands for a throwaway server, made with PG_CONFIG's programs and removed at the end.

Options: --json FILE  the summary for machines        --doc FILE  the tables of docs/compatibility.md
         --stubs      print entries for differences.toml for what is not explained there
         --only TOPIC[/STATEMENT]   a part of the statements, for trying things out (not with record)
"""

import argparse
import contextlib
import json
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # as pytest has it

from compat import compare, corpus, execute, golden, report
from harness.cluster import exit_on_signals


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["record", "check", "compare"])
    parser.add_argument("servers", nargs="+", metavar="DSN EXT")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--doc", type=Path)
    parser.add_argument("--stubs", action="store_true")
    parser.add_argument("--only")
    args = parser.parse_args()
    exit_on_signals()
    with contextlib.ExitStack() as stack:
        if "new" in args.servers[::2]:
            new = stack.enter_context(execute.new_cluster()).url()
            args.servers[::2] = [new if dsn == "new" else dsn for dsn in args.servers[::2]]
        return run(parser, args)


def run(parser, args):
    topics = corpus.read_all(args.servers[-1] if len(args.servers) % 2 == 0 else {"record": "vector"}.get(args.what, "vector_ext"))
    if args.only:
        topics = select(topics, args.only)
    if args.what == "record":
        dsn, ext = (args.servers + ["vector"])[:2]
        return record(execute.Server(dsn, ext, coverage=True), topics, bool(args.only))
    if args.what == "check":
        dsn, ext = (args.servers + ["vector_ext"])[:2]
        about_a, a = golden.recorded(), golden.read(topics)
    else:
        if len(args.servers) != 4:
            parser.error("compare needs DSN_A EXT_A DSN_B EXT_B")
        dsn_a, ext_a, dsn, ext = args.servers
        server_a = execute.Server(dsn_a, ext_a, coverage=True)
        about_a = {"pgvector" if ext_a == "vector" else ext_a: server_a.ext_version, "postgresql": server_a.version_text}
        a = server_a.run_all(topics, progress)
    server = execute.Server(dsn, ext)
    b = server.run_all(topics, progress)
    # Two servers with the same extension have no differences to explain.
    same = args.what == "compare" and ext == ext_a
    explained = {} if same else compare.read_explained(ext)
    if not compare.same_major(server.version_text, golden.recorded()["postgresql"]):
        explained = compare.on_another_version(explained, [s for t in topics for s in t.statements])
    if args.only:
        chosen = {s.id for t in topics for s in t.statements}
        explained = {i: e for i, e in explained.items() if i in chosen}
    result = compare.Comparison(topics, a, b, explained)
    about_b = {ext: server.ext_version, "postgresql": server.version_text}
    print(report.summary_text(result, about_a, about_b))
    if args.stubs:
        print(report.stubs(result))
    if args.json:
        args.json.write_text(json.dumps(report.summary(result, about_a, about_b), indent=1, ensure_ascii=False) + "\n")
    if args.doc:
        args.doc.parent.mkdir(parents=True, exist_ok=True)
        args.doc.write_text(report.document(result, about_a, about_b))
    return 1 if result.problems() else 0


def record(server, topics, partial):
    if partial:
        print("--only does not go with record", file=sys.stderr)
        return 2
    outcomes = server.run_all(topics, progress)
    crashed = [i for i, o in outcomes.items() if {"crash": True} in o["results"]]
    if crashed:
        print("the server crashed in:", *crashed, sep="\n  ", file=sys.stderr)
        return 1
    golden.write(server, topics, outcomes)
    print(f"{len(outcomes)} statements recorded from {server.ext} {server.ext_version} on PostgreSQL {server.version_text}")
    for line in report.uncovered(outcomes):
        print("not covered:", line)
    return 0


def select(topics, only):
    name, _, statement = only.partition("/")
    found = []
    for t in topics:
        if t.name == name:
            # Earlier blocks of the topic may make tables that the chosen one needs: keep them all when in doubt.
            chosen = tuple(s for s in t.statements if not statement or s.name == statement)
            found.append(corpus.Topic(t.name, t.title, t.setup, chosen))
    if not any(t.statements for t in found):
        sys.exit(f"no such topic or statement: {only}")
    return found


def progress(topic):
    print(f"  {topic.name}: {len(topic.statements)} statements", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""What the four examples share: a server to use, a report to write, the options of their commands."""

from __future__ import annotations

import argparse
import base64
import contextlib
import html
import io
import json
import os
import sys
import time
from pathlib import Path

import psycopg

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "clients" / "python" / "src"), str(ROOT / "tests")]

SETTINGS = {"shared_buffers": "512MB", "maintenance_work_mem": "256MB", "jit": "off"}

STYLE = """body { font: 16px/1.5 sans-serif; color: #222; max-width: 60em; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.6em } h2 { font-size: 1.2em; margin-top: 2em } figure { margin: 1em 0 } img { max-width: 100% }
figcaption { color: #555; font-size: .9em } table { border-collapse: collapse; margin: 1em 0 } th { text-align: left }
td, th { padding: .2em 1em .2em 0; border-bottom: 1px solid #ddd } td.number { text-align: right; font-variant-numeric: tabular-nums }
pre { background: #f4f4f4; padding: .8em; overflow-x: auto; font-size: .9em }"""


def parser(description: str, name: str) -> argparse.ArgumentParser:
    """The options that all examples have."""
    made = argparse.ArgumentParser(prog=f"make example-{name}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--small", action="store_true", help="a small version, as the tests run it")
    made.add_argument("--output", type=Path, default=ROOT / "examples-output" / name, help="the folder for the report")
    made.add_argument("--dsn", help="a database with vector_ext in it, whose table `example_…` is made anew; else a server is started")
    made.add_argument("--seed", type=int, default=1)
    return made


@contextlib.contextmanager
def database(dsn: str | None):
    """A connection in autocommit mode to a database with the extension."""
    if dsn is not None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            yield connection
        return
    from harness.cluster import Cluster, exit_on_signals

    exit_on_signals()
    with Cluster(settings=SETTINGS) as cluster:
        cluster.create_database("examples", "vector_ext")
        with psycopg.connect(cluster.url("examples"), autocommit=True) as connection:
            yield connection


def cache(*names: str) -> Path:
    """A folder in the cache, made if it is not there."""
    folder = Path(os.environ.get("VECTOR_EXT_CACHE", Path.home() / ".cache" / "vector_ext")).joinpath("examples", *names)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def share_of_same(labels, found) -> float:
    """The figure of quality of all examples: of rows that were found, the share that is of the query's kind."""
    return float(sum(label == other for label, row in zip(labels, found, strict=True) for other in row) / sum(map(len, found)))


class Steps:
    """Says what is done and how long it has taken."""

    def __init__(self) -> None:
        self.begun = time.monotonic()

    def __call__(self, what: str) -> None:
        print(f"{time.monotonic() - self.begun:7.1f} s  {what}", flush=True)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begun


class Report:
    """A page of HTML with its pictures in it, and the figures beside it as JSON."""

    def __init__(self, folder: Path, title: str, lead: str) -> None:
        self.folder, self.title, self.figures, self.pictures = folder, title, {}, 0
        self.parts = [f"<h1>{html.escape(title)}</h1>", f"<p>{html.escape(lead)}</p>"]
        folder.mkdir(parents=True, exist_ok=True)

    def heading(self, text: str) -> None:
        self.parts.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str) -> None:
        self.parts.append(f"<p>{html.escape(text)}</p>")

    def code(self, text: str) -> None:
        self.parts.append(f"<pre>{html.escape(text)}</pre>")

    def html(self, text: str) -> None:
        """What is HTML already."""
        self.parts.append(text)

    def table(self, head, rows) -> None:
        def cell(value):
            number = isinstance(value, (int, float))
            text = f"{value:,.3f}" if isinstance(value, float) else f"{value:,}" if number else str(value)
            return f"<td{' class=number' if number else ''}>{html.escape(text)}</td>"

        body = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
        self.parts.append(f"<table><tr>{''.join(f'<th>{html.escape(name)}</th>' for name in head)}</tr>{body}</table>")

    def picture(self, figure, caption: str) -> None:
        """A figure of matplotlib."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
        self.pictures += 1
        (self.folder / f"{self.pictures}.png").write_bytes(buffer.getvalue())
        data = base64.b64encode(buffer.getvalue()).decode()
        self.parts.append(f'<figure><img src="data:image/png;base64,{data}" alt="{html.escape(caption)}">'
                          f"<figcaption>{html.escape(caption)}</figcaption></figure>")

    def sound(self, wave: bytes, caption: str) -> None:
        self.parts.append(f'<figure><audio controls src="data:audio/wav;base64,{base64.b64encode(wave).decode()}"></audio>'
                          f"<figcaption>{html.escape(caption)}</figcaption></figure>")

    def plan(self, connection: psycopg.Connection, statement: str, parameters) -> None:
        """How PostgreSQL answers a statement; it has to be by the index."""
        lines = [row[0] for row in connection.execute(f"EXPLAIN (COSTS OFF) {statement}", parameters)]
        text = "\n".join(line if len(line) < 120 else line[:100] + " …" for line in lines)
        assert "Index Scan" in text or "vector scan" in text, text
        self.code(text)

    def write(self, steps: Steps, **figures) -> Path:
        self.figures = {**figures, "seconds": round(steps.seconds, 1)}
        (self.folder / "figures.json").write_text(json.dumps(self.figures, indent=1) + "\n")
        self.parts.append(f"<p>Made in {steps.seconds:,.0f} seconds.</p>")
        path = self.folder / "report.html"
        path.write_text(f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(self.title)}</title>'
                        f"<style>{STYLE}</style>{''.join(self.parts)}</html>\n")
        steps(f"report: {path}")
        return path

"""The README's examples work, its commands exist, and its tables say what docs/compatibility.md says.

`scripts/python.sh tests/test_readme.py` writes the tables anew.
"""

import re
import shlex
import subprocess
from pathlib import Path

import psycopg
import pytest

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
COMPATIBILITY = ROOT / "docs" / "compatibility.md"
BEGIN, END = "<!-- tables of docs/compatibility.md: begin -->\n", "<!-- tables of docs/compatibility.md: end -->"
TYPES = ("vector", "halfvec", "sparsevec", "bit")


def blocks(language):
    """The fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


# The tables


def section(title):
    """The rows of the first table under a heading of docs/compatibility.md, as lists of cells."""
    text = COMPATIBILITY.read_text().split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def mark(cell):
    """✓, and the number of a difference, without the link."""
    return re.sub(r"\[(\d+)\]\(.*?\)", r"\1", cell)


def grid(names, columns, marks, head):
    """A Markdown table of names × columns."""
    lines = ["| " + " | ".join([head, *columns]) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += ["| " + " | ".join([name.replace("|", "\\|"), *(marks.get((name, c), "") for c in columns)]) + " |" for name in names]
    return "\n".join(lines)


def by_type(title):
    """Names with their signature's further arguments, and a mark for each (name, type)."""
    names, marks = [], {}
    for row in section(title):
        name, arguments = re.fullmatch(r"`(.+?)\((.*)\)`", row[0]).groups()
        arguments = arguments.split(",")
        if title == "Functions":
            others = [a for a in arguments[1:] if a != arguments[0]]
            two = arguments[1:2] == arguments[:1]
            name += "(a, b)" if two else "(" + ", ".join(["a", *others]) + ")"
        shown = f"`{name}`"
        if shown not in names:
            names.append(shown)
        marks[shown, arguments[0]] = mark(row[-1])
    return names, marks


def tables():
    out = []
    rows = section("Types")
    columns = ("text in and out", "binary in and out", "typmod", "catalog, use", "order, btree, joins")
    counted = {(row[0], c): re.sub(r"^\d+ ", "", mark(cell)) for row in rows for c, cell in zip(columns, row[1:])}
    out.append(grid([row[0] for row in rows], columns, counted, "type"))
    out.append(grid(*swap(by_type("Operators"), TYPES), "operator"))
    out.append(grid(*swap(by_type("Functions"), TYPES), "function, aggregate"))
    casts, marks, sources, targets = section("Casts"), {}, [], []
    for row in casts:
        source, target = (f"`{t}`" for t in re.fullmatch(r"`(.+) AS (.+)`", row[0]).groups())
        sources += [source] if source not in sources else []
        targets += [target] if target not in targets else []
        marks[source, target] = f"{mark(row[-1])} {row[1]}"
    out.append(grid(sources, targets, marks, "cast from … to"))
    classes = {(row[0], "supported"): mark(row[-1]) for row in section("Operator classes")}
    # A class that is missing is a difference that is explained: say so plainly.
    classes = {key: f"not yet, {value.split()[-1]}" if " " in value else value for key, value in classes.items()}
    methods = {row[0]: row[1].replace("vector index", "`ivflsh`") for row in section("Operator classes")}
    lines = ["| operator class | index | |", "|---|---|---|"]
    lines += [f"| {name} | {methods[name]} | {value} |" for (name, _), value in classes.items()]
    out.append("\n".join(lines))
    return "\n\n".join(out) + "\n"


def swap(names_and_marks, columns):
    names, marks = names_and_marks
    return names, columns, marks


def rewrite():
    before, rest = README.read_text().split(BEGIN)
    README.write_text(before + BEGIN + tables() + END + rest.split(END, 1)[1])


def test_tables():
    written = README.read_text().split(BEGIN)[1].split(END)[0]
    assert written == tables(), "write them anew by: scripts/python.sh tests/test_readme.py"


def test_differences():
    """Each reason for a difference is in the README, under its number."""
    reasons = re.findall(r"^\*\*(\d+)\.\*\* (.+)$", COMPATIBILITY.read_text(), re.MULTILINE)
    text = " ".join(README.read_text().split())
    assert reasons
    for number, reason in reasons:
        assert f"{number}. {reason}" in text


def test_number_of_statements():
    number = re.search(r"\*\*(\d+) SQL statements\*\*", COMPATIBILITY.read_text()).group(1)
    assert f"{number} SQL statements" in " ".join(README.read_text().split())


# The commands


@pytest.mark.parametrize("block", blocks("sh"))
def test_commands_exist(block):
    for line in block.splitlines():
        command = shlex.split(line, comments=True)
        if not command:
            continue
        assert command[0] == "make", line
        subprocess.run(["make", "--dry-run", *command[1:]], cwd=ROOT, check=True, capture_output=True)


def test_links():
    for document in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "src/index/README.md"):
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (ROOT / document).read_text()):
            if "://" not in link:
                assert ((ROOT / document).parent / link).exists(), f"{document}: {link}"


# The examples


@pytest.fixture
def fresh(cluster):
    """A database without the extension."""
    with cluster.connect() as admin:
        admin.execute("CREATE DATABASE readme")
        yield "readme"
        admin.execute("DROP DATABASE readme WITH (FORCE)")


def test_sql_and_python(cluster, fresh, monkeypatch, capsys):
    """All blocks in the order of the README, SQL by psql, Python by exec, in one database."""
    for name, value in {"PGHOST": cluster.folder, "PGPORT": 5432, "PGUSER": "postgres", "PGDATABASE": fresh}.items():
        monkeypatch.setenv(name, str(value))
    both = re.findall(r"^```(sql|python)\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    assert {language for language, _ in both} == {"sql", "python"}
    shown = ""
    for language, code in both:
        if language == "sql":
            shown += cluster.psql(code, fresh)
        else:
            exec(compile(code, str(README), "exec"), {"__name__": "readme"})
    printed = capsys.readouterr().out
    assert "Index Scan using items_embedding_idx on items" in shown
    assert "Order By: (embedding <-> '[1,2,3]'::vector)" in shown
    assert printed.count("\n") >= 10
    with cluster.connect(fresh) as connection:
        [[recall]] = connection.execute("SELECT ivflsh_recall('items_embedding_idx')").fetchall()
        assert recall >= 0.9
        with pytest.raises(psycopg.Error):
            connection.execute("SELECT ivflsh_recall('items')")


if __name__ == "__main__":
    rewrite()

"""Compares two outcomes of a statement, and the comparison with the list of explained differences."""

import difflib
import re
import tomllib

from compat import corpus

RELATIVE = 1e-6
EQUAL, ROUNDING, WORDING, DIFFERENT = "equal", "rounding", "wording", "different"
NUMBER = re.compile(r"(?<![\w.])-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w])|-?\bInfinity\b|\bNaN\b")


def classify(statement, a, b):
    """EQUAL; ROUNDING: only the last digits of numbers differ; WORDING: only detail or hint of an error; DIFFERENT."""
    if a["results"] == b["results"]:
        return EQUAL
    if len(a["results"]) != len(b["results"]):
        return DIFFERENT
    classes = {classify_result(statement, x, y) for x, y in zip(a["results"], b["results"])} - {EQUAL}
    return classes.pop() if len(classes) == 1 else DIFFERENT


def classify_result(statement, a, b):
    if a == b:
        return EQUAL
    if "error" in a and "error" in b:
        # A detail or hint may be worded otherwise, but neither be missing nor be added (a backtrace, say).
        same = a["error"].keys() == b["error"].keys() and all(a["error"][k] == b["error"][k] for k in ("state", "message"))
        return WORDING if same else DIFFERENT
    if "rows" in a and "rows" in b and a["columns"] == b["columns"] and len(a["rows"]) == len(b["rows"]):
        pairs = [(x, y) for r, s in zip(a["rows"], b["rows"]) for x, y in zip(r, s)]
        if all(x == y or close(x, y, statement.absolute) for x, y in pairs):
            return ROUNDING
    return DIFFERENT


def close(a, b, absolute=0.0):
    """Two texts that differ only in numbers, and those only in the last digits."""
    if a is None or b is None or a.startswith("\\x") or b.startswith("\\x"):
        return False
    if NUMBER.sub("#", a) != NUMBER.sub("#", b):
        return False
    for x, y in zip(NUMBER.findall(a), NUMBER.findall(b)):
        if x == y:
            continue
        if (x.lstrip("-").isdigit() and y.lstrip("-").isdigit()) or "N" in x + y or "I" in x + y:
            return False
        if abs(float(x) - float(y)) > max(RELATIVE * max(abs(float(x)), abs(float(y))), absolute):
            return False
    return True


def lines(outcome):
    """An outcome in lines, for people and for diffs."""
    out = []
    for result in outcome["results"]:
        if "crash" in result:
            out.append("SERVER CRASHED")
        elif "error" in result:
            e = result["error"]
            out.append(f"ERROR {e['state']}: {e['message']}")
            out += [f"{k.upper()}: {e[k]}" for k in ("detail", "hint") if k in e]
        elif "rows" in result:
            out.append("columns " + ", ".join(f"{n} {t}" for n, t in result["columns"]))
            out += [" | ".join("NULL" if v is None else v for v in row) for row in result["rows"]] or ["(no rows)"]
        elif "copy" in result:
            out += ["copy " + line for line in result["copy"].splitlines()]
        else:
            out.append(result["tag"])
    return [line[:400] for text in out for line in text.splitlines() or [""]]


def diff(a, b):
    """Lines of pgvector ("- …") and of the other ("+ …") that differ."""
    delta = difflib.ndiff(lines(a), lines(b))
    return "\n".join(line.rstrip() for line in delta if line[:2] in ("- ", "+ "))


class Comparison:
    """All statements of two sides: classes, and what the list of differences explains."""

    def __init__(self, topics, a, b, explained):
        self.topics, self.a, self.b, self.explained = topics, a, b, explained
        self.statements = {s.id: s for t in topics for s in t.statements}
        self.classes = {i: classify(s, a[i], b[i]) for i, s in self.statements.items()}

    def ids(self, *classes):
        return [i for i, c in self.classes.items() if c in classes]

    def diff(self, i):
        return diff(self.a[i], self.b[i])

    def verdict(self, i):
        """None if the statement is as it should be, else what is wrong with it."""
        entry = self.explained.get(i)
        if self.classes[i] != DIFFERENT:
            return "listed in differences.toml, but there is no difference any more" if entry else None
        if entry is None:
            return "differs, and differences.toml does not explain it"
        if "diff" in entry and entry["diff"].strip() != self.diff(i).strip():
            return "differs in another way than differences.toml says"
        return None

    def problems(self):
        found = {i: v for i in self.statements if (v := self.verdict(i))}
        found |= {i: "listed in differences.toml, but there is no such statement" for i in self.explained if i not in self.statements}
        return found


# Plans, view definitions and the catalog's dependencies differ between versions of PostgreSQL.
SHOWN_BY_SERVER = re.compile(r"^EXPLAIN|pg_get_viewdef|pg_depend")


def same_major(one, other):
    return one.split(".")[0] == other.split(".")[0]


def on_another_version(explained, statements):
    """The explained differences without what plans and the like looked like on the version where they were noted: that they
    differ, and why, remains."""
    shown = {s.id for s in statements if SHOWN_BY_SERVER.search(s.sql)}
    return {i: {key: value for key, value in entry.items() if key != "diff" or i not in shown} for i, entry in explained.items()}


def read_explained(ext, path=corpus.HERE / "differences.toml"):
    """{statement id: {reason, diff}} of an extension."""
    entries = tomllib.loads(path.read_text()).get("difference", []) if path.exists() else []
    found = {}
    for entry in entries:
        if ext not in entry.get("of", "vector_ext vector").split():
            continue
        for i in entry.get("statements", [entry.get("statement")]):
            if not entry.get("reason", "").strip():
                raise ValueError(f"differences.toml: {i}: no reason given")
            if i in found:
                raise ValueError(f"differences.toml: {i} is listed twice")
            found[i] = entry
    return found

"""What the comparison found: a summary for the terminal and for machines, and docs/compatibility.md."""

import re

from compat import compare, corpus
from compat.compare import DIFFERENT, EQUAL, ROUNDING, WORDING

TYPES = ("vector", "halfvec", "sparsevec")
SQLSTATES = {
    "22000": "data exception",
    "22003": "numeric value out of range",
    "22004": "null value not allowed",
    "22023": "invalid parameter value",
    "22P02": "invalid text representation",
    "22P03": "invalid binary representation",
    "08P01": "protocol violation",
    "54000": "program limit exceeded",
    "42846": "cannot coerce",
    "42883": "undefined function or operator",
    "42804": "datatype mismatch",
    "42725": "ambiguous function or operator",
    "42704": "undefined object",
    "42601": "syntax error",
    "23505": "unique violation",
    "23514": "check violation",
    "XX000": "internal error",
    "P0001": "raised by PL/pgSQL",
}


def counts(result):
    total = {c: len(result.ids(c)) for c in (EQUAL, ROUNDING, WORDING, DIFFERENT)}
    return {"statements": len(result.statements)} | total | {"problems": len(result.problems())}


def summary(result, about_a, about_b):
    return {
        "a": about_a,
        "b": about_b,
        "counts": counts(result),
        "problems": result.problems(),
        "statements": [
            {"id": i, "title": s.title, "class": result.classes[i]}
            | ({"diff": result.diff(i)} if result.classes[i] != EQUAL else {})
            | ({"reason": result.explained[i]["reason"]} if i in result.explained else {})
            for i, s in result.statements.items()
        ],
    }


def named(about):
    return ", ".join(f"{'PostgreSQL' if k == 'postgresql' else k} {v}" for k, v in about.items())


def summary_text(result, about_a, about_b):
    c = counts(result)
    out = [f"A: {named(about_a)}", f"B: {named(about_b)}"]
    out.append(
        f"{c['statements']} statements: {c[EQUAL]} equal, {c[ROUNDING]} equal but for rounding, "
        f"{c[WORDING]} with a detail or hint in other words, {c[DIFFERENT]} different"
    )
    for i in result.ids(DIFFERENT, WORDING, ROUNDING):
        reason = result.explained.get(i, {}).get("reason")
        mark = "explained" if reason and not result.verdict(i) else result.verdict(i) or result.classes[i]
        if mark == "explained":
            out.append(f"\n{i} ({mark}: {reason.strip()})")
            continue
        out.append(f"\n{i} ({mark})\n  {result.statements[i].shown()[:600]}")
        diff = result.diff(i).splitlines()
        out += ["  " + line for line in diff[:12]]
        if len(diff) > 12:
            out.append(f"  … {len(diff) - 12} more lines")
    unused = [(i, v) for i, v in result.problems().items() if result.classes.get(i) != DIFFERENT]
    out += [f"\n{i}: {v}" for i, v in unused]
    out.append("\nOK" if not result.problems() else f"\n{c['problems']} PROBLEMS")
    return "\n".join(out)


def stubs(result):
    """Entries for differences.toml, the reason left to be written."""
    out = []
    for i in result.ids(DIFFERENT):
        if i not in result.explained:
            out.append(f"[[difference]]\nstatement = \"{i}\"\nreason = \"\"\ndiff = '''\n{result.diff(i)}\n'''\n")
    return "\n".join(out)


def uncovered(outcomes):
    """Functions of the recorded extension that no statement ran successfully."""
    called = {f for o in outcomes.values() for f in o.get("calls", ())}
    listed = [row[0] for i, o in outcomes.items() if i.startswith("catalog/functions-") for r in o["results"] for row in r.get("rows", ()) if len(row) == 2]
    # Not seen by track_functions: type input and output, and aggregates (their transition functions are).
    skip = re.compile(r"_(in|out|send|recv|typmod_in)\(|^(avg|sum)\(|spherical_distance")
    return [f for f in listed if not skip.search(f) and f not in called]


# The document ------------------------------------------------------------------------------------------------------


class Document:
    def __init__(self, result):
        self.result = result
        self.notes = []  # statement ids of the explained differences, in the order of their first mention
        self.by_call = {}
        for i, outcome in result.a.items():
            for function in outcome.get("calls", ()):
                self.by_call.setdefault(function, []).append(i)

    def mark(self, ids, facts=True):
        """✓, with notes for the explained differences among these statements."""
        r = self.result
        wrong = [i for i in ids if r.verdict(i)]
        noted = [i for i in ids if r.classes[i] == DIFFERENT and not r.verdict(i)]
        if wrong or not facts:
            return "✗"
        return "✓" + "".join(f" [{n}](#differences)" for n in dict.fromkeys(self.note(i) for i in noted))

    def note(self, i):
        reason = self.result.explained[i]["reason"]
        if reason not in self.notes:
            self.notes.append(reason)
        return self.notes.index(reason) + 1

    def rows(self, *ids):
        """(statement, row of A, whether B has the very same row) of catalog statements."""
        for i in ids:
            b = [row for r in self.result.b[i]["results"] for row in r.get("rows", ())]
            for r in self.result.a[i]["results"]:
                for row in r.get("rows", ()):
                    yield i, row, row in b

    def behaviour(self, function):
        return self.by_call.get(function, [])

    def object_row(self, i, name, function, same, *cells):
        ids = self.behaviour(function)
        explained = not same and self.result.classes[i] == DIFFERENT and not self.result.verdict(i)
        # The catalog row itself may be an explained difference.
        mark = self.mark(ids + ([i] if explained else []), same or explained)
        return [f"`{name}`", *cells, str(len(ids)), mark]


def table(head, rows):
    out = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(out + ["| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in rows])


def document(result, about_a, about_b):
    d = Document(result)
    c = counts(result)
    ids = list(result.statements)
    out = [
        "# Compatibility with pgvector's SQL interface",
        "Generated by `tests/compat/run.py … --doc docs/compatibility.md`; do not edit. How to run it: "
        "[tests/compat/README.md](../tests/compat/README.md).",
        f"The same **{c['statements']} SQL statements** ran with {named(about_a)} and with {named(about_b)}; rows, column names and "
        "types, command tags, binary output, SQLSTATEs and error messages are compared.",
        table(
            ["outcome", "statements"],
            [
                ["equal", str(c[EQUAL])],
                ["equal but for the last digits of a number (relative 1e-6; inner product and cosine sums, which cancel: absolute 5e-7)", str(c[ROUNDING])],
                ["the same error, its detail or hint in other words", str(c[WORDING])],
                ["different, explained [below](#differences)", str(c[DIFFERENT] - len([i for i in result.ids(DIFFERENT) if result.verdict(i)]))],
                ["different, not explained", str(len([i for i in result.ids(DIFFERENT) if result.verdict(i)]))],
            ],
        ),
        "✓: the catalog entry is the same, and so is the outcome of every statement that used the object (their number stands "
        "before it). A number after the ✓ is a difference explained below.",
        "## Types",
        types_table(d, ids),
        "## Operators",
        operators_table(d),
        "## Functions",
        functions_table(d),
        "## Casts",
        casts_table(d, ids),
        "## Operator classes",
        opclass_table(d),
        "## Errors",
        "Statements that must fail, by SQLSTATE; the message is compared too.",
        errors_table(d, ids),
        "## By topic",
        topics_table(d),
    ]
    # The notes are known only now.
    explained = [i for i in result.ids(DIFFERENT) if not result.verdict(i)]
    for i in explained:
        d.note(i)
    out.append('## Differences\n\n<a name="differences"></a>' + differences(d, explained, result))
    out.append(other_ways(result))
    if result.ids(ROUNDING):
        out.append("## Rounding\n\nThe last digits differ (sums are taken in another order or precision) in: " + ", ".join(f"`{i}`" for i in result.ids(ROUNDING)) + ".")
    if result.ids(WORDING):
        out.append("## Wording\n\nSame SQLSTATE and message, detail or hint in other words, in: " + ", ".join(f"`{i}`" for i in result.ids(WORDING)) + ".")
    return "\n\n".join(out) + "\n"


def types_table(d, ids):
    rows = []
    for t in TYPES:
        text = [i for i in ids if i.startswith(f"{t}_io/") and "/typmod" not in i]
        typmod = [i for i in ids if i.startswith(f"{t}_io/typmod")]
        binary = [i for i in ids if i.startswith(f"binary/{t}-") or i == "binary/copy-out"]
        facts = [f"catalog/type-{t}", f"catalog/functions-{t}-io"]
        order = [i for i in ids if i.startswith(f"compare/{t}-")]
        rows.append([f"`{t}`"] + [f"{len(g)} {d.mark(g)}" for g in (text, binary, typmod, facts, order)])
    bits = [i for i in ids if i.startswith("bit/")]
    rows.append(["`bit` (built in)", "", "", "", f"{len(bits)} {d.mark(bits)}", ""])
    return table(["type", "text in and out", "binary in and out", "typmod", "catalog (bit: use)", "order, btree, joins"], rows)


def operators_table(d):
    rows = []
    for i, (name, facts), same in d.rows(*[f"catalog/operators-{t}" for t in (*TYPES, "bit")]):
        function = re.search(r"function (\S+\(.*?\)),", facts)[1]
        rows.append(d.object_row(i, name, function.replace(", ", ","), same, f"`{function}`"))
    return table(["operator", "function", "statements", ""], rows)


def functions_table(d):
    behind = {"avg(vector)": "vector_accum(double precision[],vector)", "avg(halfvec)": "halfvec_accum(double precision[],halfvec)"}
    behind |= {f"sum({t})": f"{t}_add({t},{t})" for t in ("vector", "halfvec")}
    rows = []
    for i, (name, facts), same in d.rows(*[f"catalog/functions-{t}" for t in (*TYPES, "bit")]):
        if name.startswith(("avg", "sum")):
            agg = [k for k in d.result.statements if k.startswith("aggregates/" + "-".join(reversed(re.findall(r"\w+", name))))]
            rows.append([f"`{name}`", (facts or "").split(" ")[0], str(len(agg)), d.mark(agg, same or not d.result.verdict(i))])
        else:
            rows.append(d.object_row(i, name, name, same, f"`{re.split(' (?:im|vol|sta)', facts or '')[0]}`"))
    return table(["function", "returns", "statements", ""], rows)


def casts_table(d, ids):
    short = {"integer[]": "int", "real[]": "real", "double precision[]": "float8", "numeric[]": "numeric"}
    rows, seen = [], set()
    for i, (name, context, method), same in d.rows(*[f"catalog/casts-{t}" for t in TYPES]):
        if name in seen or context == "none":  # there is no such cast, here as there
            continue
        seen.add(name)
        s, t = (short.get(x, x) for x in name.split(" AS "))
        used = [k for k in ids if re.fullmatch(rf"casts/(explicit|assign|implicit|typmod|typmod-mismatch)-{s}-to-{t}", k)]
        if s in short.values():
            used += [k for k in ids if re.fullmatch(rf"casts/array-[a-z0-9-]+-{s}-{t}", k)]
        rows.append([f"`{name}`", context, str(len(used)), d.mark(used, same or not d.result.verdict(i))])
    return table(["cast", "context", "statements", ""], rows)


def opclass_table(d):
    rows = []
    for t in TYPES:
        i = f"catalog/opclass-{t}-btree"
        rows.append([f"`{t}_ops`", "btree", d.mark([i])])
    for i in d.result.statements:
        if match := re.fullmatch(r"catalog/opclass-(\w+)-(l2|ip|cosine|l1|hamming|jaccard)", i):
            rows.append([f"`{match[1]}_{match[2]}_ops`", "vector index", d.mark([i])])
    return table(["operator class", "for", ""], rows)


def errors_table(d, ids):
    groups = {}
    for i in ids:
        for r in d.result.a[i]["results"]:
            if "error" in r:
                groups.setdefault(r["error"]["state"], []).append(i)
    return table(
        ["SQLSTATE", "condition", "statements", ""],
        [[f"`{s}`", SQLSTATES.get(s, ""), str(len(g)), d.mark(g)] for s, g in sorted(groups.items())],
    )


def topics_table(d):
    rows = []
    for t in d.result.topics:
        ids = [s.id for s in t.statements]
        classes = [d.result.classes[i] for i in ids]
        rows.append([t.name, t.title, str(len(ids))] + [str(classes.count(c)) for c in (EQUAL, ROUNDING, WORDING, DIFFERENT)])
    return table(["topic", "what", "statements", "equal", "rounding", "wording", "different"], rows)


def other_ways(result):
    """What test_compat.py finds for the other ways in; it fails if they differ anywhere else."""
    topics = corpus.read_all()
    every, words = sum(len(t.statements) for t in topics), sum(len(t.statements) for t in topics if t.words)
    out = ["## The other ways in", f"The extension `vector` in pgvector's place, and pgvector with the add-on `ivflsh` beside it, are asked the same statements, and "
           f"{words} more in which `hnsw` and `ivfflat`, their options and settings are named as applications name them: {every} in all."]
    for ext, title in [("vector", "The extension `vector`"), ("ivflsh", "pgvector with the add-on `ivflsh`")]:
        explained = compare.read_explained(ext)
        reasons = {}
        for i, entry in explained.items():
            reasons.setdefault(" ".join(entry["reason"].split()), []).append(f"`{i}`")
        out.append(f"**{title}** differs in {len(explained)}:")
        out.append("\n".join(f"* {reason} {', '.join(ids)}" for reason, ids in reasons.items()))
    return "\n\n".join(out)


def differences(d, explained, result):
    if not explained:
        return "\n\nNone."
    out = []
    for n, reason in enumerate(d.notes, 1):
        mine = [i for i in explained if result.explained[i]["reason"] == reason]
        out.append(f"\n\n**{n}.** {' '.join(reason.split())}")
        for i in mine:
            shown = result.statements[i].shown()
            lines = result.diff(i).splitlines()
            more = f"\n… {len(lines) - 8} more lines" if len(lines) > 8 else ""
            out.append(f"\n\n`{i}`\n\n```sql\n{shown[:300]}{' …' if len(shown) > 300 else ''}\n```\n\n```diff\n" + "\n".join(lines[:8]) + more + "\n```")
    return "".join(out)

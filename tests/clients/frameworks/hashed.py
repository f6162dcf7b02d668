"""Embeddings by a fixed hash of the words: no model is needed, texts with common words are near each other."""

import hashlib
import json
import math
import sys

DIMENSIONS = 16
WORDS = "red green blue cat dog bird tree house river stone cloud fire wind rain snow night".split()


def embed(text):
    """The sum of the words' directions, of length 1."""
    total = [0.0] * DIMENSIONS
    for word in text.lower().split():
        for i, byte in enumerate(hashlib.sha256(word.encode()).digest()[:DIMENSIONS]):
            total[i] += byte / 127.5 - 1
    length = math.sqrt(sum(x * x for x in total)) or 1
    return [x / length for x in total]


def texts(count=120):
    """Texts of three words, each another."""
    n = len(WORDS)
    return [f"{WORDS[i % n]} {WORDS[(i * 5 + i // n) % n]} {WORDS[(i * 11 + i // n * 3) % n]} number{i}" for i in range(count)]


def task():
    """What to do: host, database."""
    return json.load(sys.stdin)


def report(seen):
    """Print what the client saw; distances rounded, as libraries sum in orders of their own."""
    def rounded(value):
        if isinstance(value, float):
            return round(value, 4) + 0.0
        if isinstance(value, dict):
            return {key: rounded(one) for key, one in value.items()}
        return [rounded(one) for one in value] if isinstance(value, list | tuple) else value

    print()
    print(json.dumps(rounded(seen)))

"""Ideas for the scan, simulated before they are built: entries, bytes and survivors of a query at equal recall.

usage: ideas.py [--datasets fashion glove sentences wide] [--rows 40000] [--queries 200] [--recall 0.95 0.99] [--k 10]

An inverted file is made of real vectors as the index makes it (k-means, lists of about 100 rows), and queries that are not
among the rows walk over lists by the index's stopping rule, whose limit is set so that the recall is as asked. For each kind of sketch
it is counted what a query would read of them, how many entries are left for their codes, and what share of the true
neighbours in the lists that were read is lost by the bounds ("lost").

Levels: the first level is read of every entry, the second only of those that the first does not exclude ("entry"), or of all 32 of a block
in which there is one ("block").
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

SMALL, LARGE, BOUNDARY, Z = 0.453, 1.510, 0.98, 2.5
LIST, BLOCK, COUNTED = 100, 32, 0.1


def vectors(name, rows, queries, cache):
    """Rows and queries; unit vectors where the distance is the cosine."""
    import datasets
    if name == "wide":  # four texts side by side
        base, query = vectors("sentences", 10**9, 4 * queries, cache)
        count = min(rows, len(base))
        rng = np.random.default_rng(3)
        # A text, and three of its neighbourhood, as the parts of one longer text are about one thing.
        mixed = [base[:count]]
        for part in range(3):
            other = base[rng.permutation(len(base))[:count]]
            mixed.append(normalised(0.7 * base[:count] + 0.7 * other))
        wide = np.concatenate(mixed, axis=1) / 2
        parts = [query[:queries]] + [normalised(0.7 * query[:queries] + 0.7 * query[(i + 1) * queries // 2:][:queries])
                                     for i in range(3)]
        return wide.astype(np.float32), (np.concatenate(parts, axis=1) / 2).astype(np.float32)
    if name == "patches":
        import datasets
        import patches
        found = np.concatenate(list(patches.descriptors(datasets.load("fashion", cache).base, rows + queries)))
        return found[:rows], found[rows:]
    data = datasets.load(name, cache)
    base, query, metric = data.base, data.query, data.metric
    base, query = np.array(base[:rows], np.float32), np.array(query[:queries], np.float32)
    return (normalised(base), normalised(query)) if metric == "cosine" else (base, query)


def normalised(x):
    return (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30)).astype(np.float32)


def square_distances(x, y):
    return np.maximum((x * x).sum(1)[:, None] + (y * y).sum(1)[None] - 2 * (x @ y.T), 0)


def kmeans(x, lists, rounds=8):
    """Centroids; trained in 128 dimensions by a random map, where there are more."""
    rng = np.random.default_rng(1)
    low = x if x.shape[1] <= 128 else x @ (rng.standard_normal((x.shape[1], 128)) / 128**0.5).astype(np.float32)
    c = low[rng.choice(len(x), lists, replace=False)]
    for _ in range(rounds):
        own = np.argmin((c * c).sum(1)[None] - 2 * (low @ c.T), axis=1)
        counts = np.bincount(own, minlength=lists)
        sums = np.zeros_like(c)
        np.add.at(sums, own, low)
        c = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], c).astype(np.float32)
    counts = np.bincount(own, minlength=lists)
    sums = np.zeros((lists, x.shape[1]), np.float32)
    np.add.at(sums, own, x)
    c = sums[counts > 0] / counts[counts > 0][:, None]
    own = np.argmin((c * c).sum(1)[None] - 2 * (x @ c.T), axis=1)
    kept = np.unique(own)
    return c[kept], np.searchsorted(kept, own)


def rotation(d, seed):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0].astype(np.float32)


def sketch(r, bits):
    """What stands for the residuals: the directions, and per row the factor of an unbiased estimate, and a², the squared cosine."""
    d = r.shape[1]
    norm = np.linalg.norm(r, axis=1)
    if bits == 2:
        v = np.where(np.abs(r) > BOUNDARY * norm[:, None] / d**0.5, LARGE, SMALL) * np.sign(r + 1e-30)
    else:
        v = np.sign(r + 1e-30)
    v = v.astype(np.float32)
    vr = np.maximum((v * r).sum(1), 1e-30)
    a2 = vr**2 / np.maximum((v * v).sum(1) * norm**2, 1e-30)
    return v, norm**2 / vr, np.clip(a2, 1e-6, 1)


class Walk:
    """Lists, true distances, and which lists each query reads at a recall."""

    def __init__(self, base, query, k):
        mean = base.mean(0)
        self.x, self.q, self.k = base - mean, query - mean, k
        self.c, self.own = kmeans(self.x, max(16, len(base) // LIST))
        order = np.argsort(self.own, kind="stable")
        self.x, self.own = self.x[order], self.own[order]
        self.start = np.searchsorted(self.own, np.arange(len(self.c) + 1))
        self.r = self.x - self.c[self.own]
        self.radius = np.array([np.sqrt((self.r[a:b]**2).sum(1).mean()) for a, b in zip(self.start, self.start[1:])])
        self.largest = np.array([np.sqrt((self.r[a:b]**2).sum(1).max()) for a, b in zip(self.start, self.start[1:])])
        self.true = square_distances(self.x, self.q)
        self.to_c = square_distances(self.c, self.q)
        self.goal = max(16, k * 5 // 4 + 4)
        self.steps = []
        for i in range(len(query)):
            found, steps, limit = np.full(self.goal, np.inf), [], np.partition(self.true[:, i], k - 1)[k - 1]
            for at, j in enumerate(np.argsort(self.to_c[:, i])[:len(self.c) * 3 // 4]):
                t, b = found[-1], self.to_c[j, i]
                cosine = (b + self.radius[j]**2 - t) / (2 * self.radius[j] * b**0.5 + 1e-30) if np.isfinite(t) else -9
                d = self.true[self.start[j]:self.start[j + 1], i]
                hits = int((d <= limit).sum())
                certain = b**0.5 - self.largest[j] > t**0.5
                steps.append((cosine + COUNTED * np.log(1 + at), j, t, hits, certain))
                found = np.sort(np.concatenate([found, d]))[:self.goal]
            self.steps.append(steps)

    def limit(self, recall):
        low, high = -2.0, 2.0
        for _ in range(30):
            middle = (low + high) / 2
            hits = sum(s[3] for steps in self.steps for s in steps if s[0] <= middle)
            low, high = (low, middle) if hits >= recall * self.k * len(self.steps) else (middle, high)
        return high

    def oracle(self, recall):
        """Lists that a rule would read which knows at each point how many of all neighbours its query has: the best order of
        reading lists over all queries, by hits."""
        total = 0
        need = recall * self.k
        for steps in self.steps:
            hits = np.cumsum([s[3] for s in steps])
            total += int(np.searchsorted(hits, min(need, hits[-1]) - 1e-9)) + 1
        return total / len(self.steps)

    def visits(self, recall):
        limit = self.limit(recall)
        for i, steps in enumerate(self.steps):
            yield i, [s for s in steps if s[0] <= limit]


def measure(walk, recall, levels):
    """`levels`: bytes an entry, estimates, deviations of each. Counts per query."""
    entries = lists = hits = lost = skipped = skipped_entries = 0
    left, blocks = np.zeros(len(levels)), np.zeros(len(levels))
    all_blocks = 0
    for i, visits in walk.visits(recall):
        kth = np.partition(walk.true[:, i], walk.k - 1)[walk.k - 1]
        for _, j, t, h, certain in visits:
            a, b = walk.start[j], walk.start[j + 1]
            lists, entries, hits = lists + 1, entries + b - a, hits + h
            skipped, skipped_entries = skipped + certain, skipped_entries + certain * (b - a)
            alive = np.ones(b - a, bool)
            all_blocks += -(-(b - a) // BLOCK)
            for level, (_, estimate, deviation) in enumerate(levels):
                alive &= ~(estimate[a:b, i] - Z * deviation[a:b, i] >= t)
                left[level] += alive.sum()
                blocks[level] += np.add.reduceat(alive, np.arange(0, b - a, BLOCK)).astype(bool).sum()
            lost += int((~alive & (walk.true[a:b, i] <= kth)).sum())
    n = len(walk.steps)
    per = [level[0] for level in levels]
    read = entries * per[0] + sum(l * p for l, p in zip(left, per[1:]))
    by_block = entries * per[0] + sum(BLOCK * l * p for l, p in zip(blocks, per[1:]))
    return dict(lists=lists / n, entries=entries / n, kb_entry=read / n / 1e3, kb_block=by_block / n / 1e3, left=left / n,
                lost=lost / max(hits, 1), skipped=skipped_entries / entries, block_share=blocks / all_blocks)


def whole(walk, turn, bits):
    """All dimensions by this many bits, after a rotation."""
    r, q, c = walk.r @ turn, walk.q @ turn, walk.c @ turn
    return part(walk, r, q, c, bits)


def part(walk, r, q, c, bits, seen=None):
    """Estimates of the squared distance from a sketch of r (of the leading dimensions of it): these, and deviations."""
    v, f, a2 = sketch(r, bits)
    dot = f[:, None] * (v @ q.T - (v * c[walk.own]).sum(1)[:, None])
    norm = np.linalg.norm(r, axis=1)
    across = np.sqrt(square_distances(c, q))[walk.own]
    deviation = 2 * norm[:, None] * np.sqrt((1 - a2) / a2 / max(r.shape[1] - 1, 1))[:, None] * across
    full = (walk.r**2).sum(1)[:, None] + walk.to_c[walk.own]
    return full - 2 * dot, deviation


def prefix(walk, turn, lead, bits, tail_bits=0):
    """The leading dimensions of `turn` (rotated within), the tail by its norm; with `tail_bits`, all of it as a second level."""
    d = turn.shape[1]
    inside, rest = rotation(lead, 5), rotation(d - lead, 6)
    r, q, c = (y @ turn for y in (walk.r, walk.q, walk.c))
    lead_estimate, lead_deviation = part(walk, r[:, :lead] @ inside, q[:, :lead] @ inside, c[:, :lead] @ inside, bits)
    tail_r, tail_q, tail_c = (y[:, lead:] @ rest for y in (r, q, c))
    length = np.linalg.norm(tail_r, axis=1)
    across = np.sqrt(square_distances(tail_c, tail_q))
    # How far the inner products of tails are from 0: as between rows and centroids of other lists.
    rng = np.random.default_rng(2)
    rows, to = rng.integers(len(r), size=20000), rng.integers(len(r), size=20000)
    y = tail_r[to] + tail_c[walk.own[to]] - tail_c[walk.own[rows]]
    cosine = (tail_r[rows] * y).sum(1) / np.maximum(length[rows] * np.linalg.norm(y, axis=1), 1e-30)
    kappa = float(np.sqrt((cosine**2).mean()))
    spread = 2 * kappa * length[:, None] * across[walk.own]
    first = (lead_estimate, np.sqrt(lead_deviation**2 + spread**2))
    if not tail_bits:
        return [(lead * bits / 8 + 2, *first)]
    full = (walk.r**2).sum(1)[:, None] + walk.to_c[walk.own]
    tail_estimate, tail_deviation = part(walk, tail_r, tail_q, tail_c, tail_bits)
    second = (lead_estimate + tail_estimate - full, np.sqrt(lead_deviation**2 + tail_deviation**2))
    return [(lead * bits / 8 + 2, *first), ((d - lead) * tail_bits / 8 + 2, *second)]


def principal(x, sample=8000):
    rows = x[np.random.default_rng(4).choice(len(x), min(sample, len(x)), replace=False)]
    values, turn = np.linalg.eigh((rows.T @ rows).astype(np.float64))
    return np.ascontiguousarray(turn[:, ::-1]).astype(np.float32), values[::-1] / values.sum()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=["fashion", "glove", "sentences", "wide"])
    parser.add_argument("--rows", type=int, default=40000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--recall", type=float, nargs="+", default=[0.95, 0.99])
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--kinds", nargs="+", help="only those that begin so")
    arguments = parser.parse_args()
    cache = os.environ.get("VECTOR_EXT_CACHE", Path.home() / ".cache/vector_ext")
    for name in arguments.datasets:
        base, query = vectors(name, arguments.rows, arguments.queries, cache)
        d = base.shape[1]
        walk = Walk(base, query, arguments.k)
        random, (turn, values) = rotation(d, 9), principal(walk.r)  # d x d, as an index would hold it
        energy = np.cumsum(values)
        print(f"\n{name}: {len(base)} x {d}, k = {arguments.k}, {len(walk.c)} lists; residuals have 50 % of their energy in "
              f"{np.searchsorted(energy, 0.5) + 1} principal dimensions, 90 % in {np.searchsorted(energy, 0.9) + 1}")
        kinds = {
            "2 bits": lambda: [(d / 4, *whole(walk, random, 2))],
            "1 bit": lambda: [(d / 8, *whole(walk, random, 1))],
            "signs, then magnitudes": lambda: [(d / 8, *whole(walk, random, 1)), (d / 8, *whole(walk, random, 2))],
        }
        for share in (16, 8, 4):
            lead = max(8, d // share // 8 * 8)
            for tail in (0, 2, 1):
                then = f"then {tail} of the tail" if tail else "no tail"
                kinds[f"PCA, 2 bits of {lead}, {then}"] = lambda lead=lead, tail=tail: prefix(walk, turn, lead, 2, tail)
        lead = d // 4 // 8 * 8
        kinds[f"random rotation, 2 bits of {lead}, then 2 of the tail"] = lambda: prefix(walk, random, lead, 2, 2)
        kinds = {kind: levels() for kind, levels in kinds.items()
                 if not arguments.kinds or any(kind.startswith(part) for part in arguments.kinds)}
        for recall in arguments.recall:
            print(f"recall {recall}: a rule that knew all would read {walk.oracle(recall):.1f} lists")
            for kind, levels in kinds.items():
                m = measure(walk, recall, levels)
                print(f"  {kind:46} lists {m['lists']:6.1f} entries {m['entries']:7.0f}  kB by entry {m['kb_entry']:7.1f}"
                      f" by block {m['kb_block']:7.1f}  left {' '.join(f'{x:7.1f}' for x in m['left'])}  lost {m['lost']:.4f}"
                      f"  in certainly needless lists {m['skipped']:.3f}", flush=True)


if __name__ == "__main__":
    main()

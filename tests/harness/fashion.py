"""The Fashion-MNIST images of the Debian package dataset-fashion-mnist: 60,000 and 10,000 grey images of 28 x 28."""

import gzip
from pathlib import Path

import numpy as np

FOLDER = Path("/usr/share/datasets/fashion-mnist")
SIDE = 28
LABELS = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


def _read(name, header, folder):
    with gzip.open(Path(folder) / name) as file:
        return np.frombuffer(file.read(), np.uint8, offset=header)


def load(part, folder=FOLDER):
    """The images of a part ("train" or "t10k") as an array (n, 784) of bytes, and their labels, an array (n)."""
    images = _read(f"{part}-images-idx3-ubyte.gz", 16, folder).reshape(-1, SIDE * SIDE)
    labels = _read(f"{part}-labels-idx1-ubyte.gz", 8, folder)
    assert len(images) == len(labels)
    return images, labels

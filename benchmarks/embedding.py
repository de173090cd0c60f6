"""Compares the embedding of image files with the network's bare forward pass, and measures the loading of a run.

    python benchmarks/embedding.py [--repeats 5] [--images 512] [--model resnet50]

JPEG files of MSMT17's kind are embedded by `ReIDModel.embed` at 256 x 128 without the mirror image: decoded, resized,
normalised and passed through the network in batches of 64. The bare pass runs the same network on batches in memory,
with the same number of threads. Both alternate; the figure is the median of the pairs' ratios. Decoding is measured
separately as well, because it bounds a small network.

The script loads a run of one round on drawn images in its own process, after all imports.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from figures import Report
from image_cache import HEIGHT, WIDTH, make_images
from ranking import seconds

import fedreid_pl
from fedreid_pl.cli import main as command
from fedreid_pl.config import ModelConfig
from fedreid_pl.data.minireid import domains_of, write_benchmark
from fedreid_pl.models.weights import build_backbone
from fedreid_pl.retrieval.model import ModelCard, ReIDModel

BATCH = 64


def make_model(name: str) -> ReIDModel:
    """Returns a network with random weights."""
    backbone = build_backbone(ModelConfig(name=name, weights="none"))
    where = ("", "", True, name, 0, 0, None, "")
    return ReIDModel(backbone, ModelCard(*where, HEIGHT, WIDTH, backbone.feature_dim))


def measure(report: Report, name: str, files: list[Path], repeats: int) -> None:
    """Measures the images per second of both ways."""
    model = make_model(name)
    inputs = model.read(files[:BATCH]).contiguous(memory_format=torch.channels_last)  # like the network's weights

    @torch.inference_mode()
    def bare() -> None:
        for start in range(0, len(files), BATCH):
            model.backbone(inputs[: len(files) - start])

    ways = {
        "bare": bare,
        "embed": lambda: model.embed(files, flip=False, batch_size=BATCH),
        "decode": lambda: [model.read(files[start : start + BATCH]) for start in range(0, len(files), BATCH)],
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for repeat in range(repeats + 1):
        for way, work in ways.items():
            taken = seconds(work)
            if repeat:  # the first one allocates
                times[way].append(taken)
    rates = {way: [len(files) / value for value in values] for way, values in times.items()}
    for way, text in (("bare", "bare forward pass"), ("embed", "embedding"), ("decode", "decoding in one thread")):
        report.add(f"{name}, {text}", rates[way], unit="img/s")
    ratios = [ours / theirs for ours, theirs in zip(rates["embed"], rates["bare"], strict=True)]
    report.add(f"{name}, embedding / bare forward pass", ratios, "at least 0.9" if name == "resnet50" else "")


def measure_load(report: Report, name: str, folder: Path, repeats: int) -> None:
    """Measures the seconds to load a run."""
    names = ("mini-market1501", "mini-viper")
    write_benchmark(folder / "data", [domains_of(1)[known].scaled(0.05) for known in names], processes=1)
    words = [f"data.root={folder / 'data'}", "data.source=folder", "data.public=null", f"model.name={name}"]
    words += ["model.weights=none", "rounds=1", "logger=none", "data.height=64", "data.width=32", "batch_size=8"]
    words += [f"data.datasets=[{','.join(names)}]", f"output_dir={folder / 'run'}"]
    if command(["train", "exp=fedpav", *words]):
        raise RuntimeError("the run could not be trained")
    found = []
    for _ in range(repeats):
        before = time.process_time()
        taken = seconds(lambda: fedreid_pl.load(folder / "run"))
        found.append((taken, time.process_time() - before))
    report.add(f"load a run of {name}", [clock for clock, _ in found], "under 2", "s")
    report.add(f"load a run of {name}, processor seconds", [used for _, used in found], unit="s")


def main() -> None:
    """Measures and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--model", nargs="+", default=["resnet50", "small"])
    parser.add_argument("--json", type=Path, help="JSON file for the figures; they are always printed")
    args = parser.parse_args()
    report = Report("embedding")
    with tempfile.TemporaryDirectory() as folder:
        files = make_images(Path(folder), args.images).files()
        for name in args.model:
            measure(report, name, [Path(file) for file in files], args.repeats)
            measure_load(report, name, Path(folder) / name, args.repeats)
    report.finish(args.json)


if __name__ == "__main__":
    main()

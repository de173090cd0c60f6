"""Compares a whole round of this program (`fidelity=code`) with the published code on the same images.

    git clone https://github.com/cap-ntu/FedReID CHECKOUT
    python benchmarks/reference.py CHECKOUT [--repeats 3] [--threads 1] [--bf16]

This repository does not contain the published code (commit 81a1729): CHECKOUT is your copy. Two clients train on 128
drawn images of 256 x 128 each (four batches of 32), ResNet-50 from random weights, one local epoch; then the global
model is tested on each client's 100 queries and 500 gallery images. Both sides compute in fp32; with
`--bf16` this program's round is also measured with `trainer.precision=bf16-mixed`.

The script patches the published code in memory, as current packages or a machine without a GPU require:
`pretrainedmodels`, which is imported but not used; `resnet50(pretrained=True)`, which would download weights;
`numpy.in1d`, which was removed; `.cuda()` without a GPU; and `python evaluate.py`, which is started with the same
patches. Loaders start their worker processes like the published code (spawn).

Not counted: the start of the programs, drawing and reading the folders. This program's round is the training of round 1
and the evaluation of the global model in round 2, because round 2 also evaluates local models, unlike the published
code.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from figures import Report

CLIENTS, PUBLIC, PERSONS, BATCH = ("one", "two"), "cuhk02", 16, 32
HEIGHT, WIDTH = 256, 128
OURS = {"ours": "32-true", "ours-bf16": "bf16-mixed"}  # precision of this program's sides


def draw(folder: Path, images: int, queries: int, gallery: int) -> None:
    """Writes drawn images in the layout of both programs: `DATASET/pytorch/SPLIT/PERSON/NAME.jpg`."""
    draws = np.random.default_rng(0)
    for name in (*CLIENTS, PUBLIC):
        for person in range(1, PERSONS + 1):
            own = draws.integers(40, 216, (8, 4, 3))
            # the first image of a person is for validation: train_all has one more than train
            for number in range(images // PERSONS + 1):
                splits = ["train_all"] + ["train"] * (number > 0)
                _write(folder / name, splits, person, 1 + number % 2, number, _picture(own, draws))
        for split, count, camera in (("query", queries, 1), ("gallery", gallery, 2)):
            for number in range(count if name != PUBLIC else 0):
                person = 100 + number % queries
                own = np.random.default_rng(person).integers(40, 216, (8, 4, 3))
                _write(folder / name, [split], person, camera, number, _picture(own, draws))


def _picture(own: np.ndarray, draws: np.random.Generator) -> Image.Image:
    coarse = Image.fromarray((own + draws.integers(-30, 31, own.shape)).clip(0, 255).astype(np.uint8))
    return coarse.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)


def _write(dataset: Path, splits: list[str], person: int, camera: int, number: int, picture: Image.Image) -> None:
    for split in splits:
        place = dataset / "pytorch" / split / f"{person:04d}" / f"{person:04d}_c{camera}s1_{number:06d}_00.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        picture.save(place, quality=90)


def patch(checkout: Path) -> None:
    """Patches the published code; see the module docstring."""
    import torch
    import torchvision

    sys.path.insert(0, str(checkout))
    sys.modules["pretrainedmodels"] = types.ModuleType("pretrainedmodels")
    if not hasattr(np, "in1d"):
        np.in1d = np.isin  # type: ignore[attr-defined]
    if not torch.cuda.is_available():
        torch.Tensor.cuda = lambda self, *rest, **more: self  # type: ignore[method-assign, assignment]
    build = torchvision.models.resnet50
    torchvision.models.resnet50 = lambda pretrained=False: build()
    again = [sys.executable, str(Path(__file__).resolve()), str(checkout), "--side", "evaluate"]
    os.system = lambda command: subprocess.run([*again, *command.split()[2:]], check=True).returncode  # type: ignore[assignment]


def published(checkout: Path, work: Path) -> dict[str, float]:
    """Returns the seconds of the published code's round."""
    import multiprocessing

    import torch

    multiprocessing.set_start_method("spawn", force=True)
    os.environ["MPLBACKEND"] = "Agg"
    os.chdir(work)
    patch(checkout)
    from client import Client
    from data_utils import Data
    from server import Server
    from utils import set_random_seed

    set_random_seed(1)
    (work / "model" / "reference").mkdir(parents=True, exist_ok=True)
    data = Data(",".join(CLIENTS), "data", BATCH, 0, False, False)
    data.preprocess()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    use = device.type == "cuda"
    clients = {name: Client(name, data, device, ".", "reference", 1, 0.05, BATCH, 0.5, 2) for name in data.client_list}
    server = Server(clients, data, device, ".", "reference", len(clients), 0.05, 0.5, 2, "1")
    marks = [time.perf_counter()]
    server.train(0, False, use)
    marks.append(time.perf_counter())
    server.test(use)
    marks.append(time.perf_counter())
    return {"train": marks[1] - marks[0], "evaluate": marks[2] - marks[1]}


def ours(work: Path, precision: str) -> dict[str, float]:
    """Returns the seconds of this program's round with this `trainer.precision`."""
    from fedreid_pl import train
    from fedreid_pl.reporting.run_folder import read_timings

    settings = {
        "data.root": work / "data",
        "data.datasets": list(CLIENTS),
        "data.public": None,
        "data.height": HEIGHT,
        "data.width": WIDTH,
        "model.name": "resnet50",
        "model.weights": "none",
        "fidelity": "code",
        "batch_size": BATCH,
        "optim.lr_backbone": 0.005,
        "optim.lr_head": 0.05,
        "rounds": 2,
        "evaluate_every": 2,
        "logger": "none",
        "trainer.precision": precision,
    }
    run = train("fedpav_rw", "auto", output_dir=work / "run", resume="never", **settings)
    timings = read_timings(run.folder)
    seconds = {phase: timings.series("system", phase, "seconds") for phase in ("fit", "aggregate", "evaluate")}
    return {"train": seconds["fit"][1] + seconds["aggregate"][1], "evaluate": seconds["evaluate"][2]}


def in_turn(
    checkout: Path, work: Path, repeats: int, threads: int, sides: Sequence[str]
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yields (side, seconds) of all sides in turn, each in a separate process."""
    for _ in range(repeats):
        for side in sides:
            answer = work / "seconds.json"
            answer.unlink(missing_ok=True)
            words = [sys.executable, __file__, str(checkout), "--side", side, "--work", str(work)]
            log = work / f"{side}.log"
            with open(log, "w") as file:
                environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
                code = subprocess.run(words, env=environment, stdout=file, stderr=file).returncode
            if code or not answer.exists():
                raise SystemExit(f"{side}: {log.read_text()[-3000:]}")
            yield side, json.loads(answer.read_text())


def main() -> int:
    """Measures and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path, help="a copy of the published code")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int, default=128, help="training pictures of a client")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--gallery", type=int, default=500)
    parser.add_argument("--bf16", action="store_true", help="measure this program in bf16-mixed too")
    parser.add_argument("--side", choices=("published", *OURS, "evaluate"), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments, rest = parser.parse_known_args()
    if rest and arguments.side != "evaluate":
        parser.error(f"unknown words: {' '.join(rest)}")
    checkout = arguments.checkout.resolve()
    if not (checkout / "evaluate.py").is_file():
        raise SystemExit(f"{checkout}: is not a copy of the published code (evaluate.py is missing)")
    if arguments.side == "evaluate":
        patch(checkout)
        sys.argv = ["evaluate.py", *rest]
        runpy.run_path(str(checkout / "evaluate.py"), run_name="__main__")
        return 0
    if arguments.side:
        work, precision = arguments.work, OURS.get(arguments.side)
        seconds = ours(work, precision) if precision else published(checkout, work)
        (arguments.work / "seconds.json").write_text(json.dumps(seconds))
        return 0
    return _report(checkout, arguments)


def _report(checkout: Path, arguments: argparse.Namespace) -> int:
    from figures import Report, machine

    report = Report("A round of the published code and of this program")
    sides = ("published", "ours", *(["ours-bf16"] if arguments.bf16 else []))
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as place:
        draw(Path(place) / "data", arguments.images, arguments.queries, arguments.gallery)
        for side, seconds in in_turn(checkout, Path(place), arguments.repeats, arguments.threads, sides):
            found[side].append(seconds)
            print(side, {name: round(value, 1) for name, value in seconds.items()}, file=sys.stderr, flush=True)
    for side in sides[1:]:
        fp32 = side == "ours"
        pairs = list(zip(found["published"], found[side], strict=True))
        training = [theirs["train"] / own["train"] for theirs, own in pairs]
        evaluation = [theirs["evaluate"] / own["evaluate"] for theirs, own in pairs]
        whole = [sum(theirs.values()) / sum(own.values()) for theirs, own in pairs]
        report.add(f"training, published / {side}", training, "at least 2.5" if fp32 else "")
        report.add(f"evaluation, published / {side}", evaluation)
        report.add(f"round with evaluation, published / {side}", whole, "at least 3.5" if fp32 else "")
    report.note(f"{arguments.threads} thread(s), fp32 on both sides, except ours-bf16; {machine()}")
    _bound(report, found, arguments)
    return 0


def _bound(report: Report, found: Mapping[str, list[dict[str, float]]], arguments: argparse.Namespace) -> None:
    """Notes how much arithmetic each side does in a second, beside the speed of a matrix product."""
    from arithmetic import operations, product_rate

    from fedreid_pl.models.trunks import build_trunk

    image = operations(build_trunk("resnet50", 2), HEIGHT, WIDTH)  # the neck adds less than a thousandth
    # a training step has a forward pass and a backward pass of twice the work; a test adds the mirrored image
    work = {
        "train": 3 * len(CLIENTS) * arguments.images * image,
        "evaluate": 2 * len(CLIENTS) * (arguments.queries + arguments.gallery) * image,
    }
    for side in ("published", "ours"):
        rates = [f"{phase} {amount / median(one[phase] for one in found[side]):.0f}" for phase, amount in work.items()]
        report.note(f"{side}, GFLOP/s: {', '.join(rates)}")
    report.note(f"matrix product, GFLOP/s: {product_rate(arguments.threads):.0f}")


if __name__ == "__main__":
    sys.exit(main())

"""Measures the figures that need a GPU, within eight minutes and offline, as a table for docs/performance.md.

    make gpu-pack        # on a machine with network: wheels into gpu-pack/, all but torch
    make gpu-check       # on the GPU machine, which has torch
    python benchmarks/gpu_check.py [--minutes 8] [--only training bits] [--out FOLDER] [--tiny] [KEY=VALUE ...]

Measured: training steps of ResNet-50 relative to fp32 eager (goal 3 times); a federated round of nine clients with
torch.compile and with CUDA graphs; the share of such a round that its batches need in a bare loop (goal 85 %);
ranking and re-ranking at Market-1501's size relative to the bare matrix product; whether two runs with
`trainer.deterministic=true` have the same bits; two clients on one GPU with `engine=ray` and fractions relative to
sequential clients. A part starts only while time is left; the table lists skipped parts. Arguments KEY=VALUE are
passed to every run. `--tiny` uses a small network and few images, to test all parts on a CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from figures import Report
from ranking import SIZES, generate
from training import find_device, make_step

from fedreid_pl.cli import main as command
from fedreid_pl.config import compose
from fedreid_pl.federation.precision import default_precision
from fedreid_pl.functional.ranking import retrieval_results
from fedreid_pl.functional.reranking import KReciprocal
from fedreid_pl.reporting.run_folder import read_timings
from fedreid_pl.reporting.summary_file import read_summary

NETWORK = ["model.name=resnet50", "model.weights=none", "data.height=256", "data.width=128", "trainer.precision=auto"]
"""Settings of the runs: MiniReID's images in the size of real ones."""


class Check:
    """The parts of the check; each part adds its figures to the report.

    Args:
        folder: folder of the runs until the end.
        words: settings of every run.
        tiny: whether to use few images and a small network.
    """

    def __init__(self, folder: Path, words: list[str], tiny: bool) -> None:
        self.folder, self.words, self.tiny = folder, words, tiny
        self.report, self.device = Report("GPU"), find_device()
        self.runs = 0
        self._plain: float | None = None

    def training(self) -> None:
        """Measures training steps of one network: the gain of each setting over fp32 eager."""
        name, batch, repeats = ("small", 2, 1) if self.tiny else ("resnet50", 64, 20)
        precision = default_precision("auto")
        kinds = {"plain fp32": (False, "32-true", "none"), "channels_last, fused": (True, "32-true", "none")}
        kinds[f"the same with {precision}"] = (True, precision, "none")
        if self.device.type == "cuda":
            kinds[f"{precision}, compiled"] = (True, precision, "default")
            kinds[f"{precision}, CUDA graphs"] = (True, precision, "reduce-overhead")
        steps = {kind: make_step(name, batch, False, *setting) for kind, setting in kinds.items()}
        for step in steps.values():  # compiles, and runs cuDNN's selection
            step(0), step(1)
        seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
        for number in range(repeats):
            for kind, step in steps.items():
                seconds[kind].append(_seconds(partial(step, number)))
        for kind, values in list(seconds.items())[1:]:
            ratios = [plain / value for plain, value in zip(seconds["plain fp32"], values, strict=True)]
            self.report.add(f"{name}, images per second: {kind} / plain fp32", ratios, "goal 3")

    def rounds(self) -> None:
        """Measures a federated round, eager and compiled."""
        plain = self._plain_round()
        self.report.add("round of all clients, eager", [plain], unit="s")
        modes = ("default", "reduce-overhead") if self.device.type == "cuda" else ()
        for mode in modes:
            ratio = self._fit(f"trainer.compile={mode}") / plain
            self.report.add(f"the same round, trainer.compile={mode} / eager", [ratio])

    def share(self) -> None:
        """Measures the share of a round that its batches need in a bare loop of the same steps."""
        config = compose(self._words())
        clients = (read_summary(self._last()) or {})["clients"] if self._plain_round() else {}
        batches = sum(-(-size // config.batch_size) for size in clients.values())
        precision = default_precision("auto") if config.trainer.precision == "auto" else config.trainer.precision
        step = make_step(config.model.name, config.batch_size, True, True, precision, "none")
        step(0), step(1)
        seconds = statistics.median(_seconds(lambda: step(0)) for _ in range(1 if self.tiny else 20))
        self.report.add("share of a round spent in the model", [batches * seconds / self._plain_round()], "goal 0.85")

    def ranking(self) -> None:
        """Measures exact ranking and re-ranking relative to the matrix product that both need."""
        name = "small" if self.tiny else "market1501"
        query, gallery = generate(SIZES[name], 512, 2.5, str(self.device))
        product, ranked, reranked = [], [], []
        for _ in range(1 if self.tiny else 5):
            product.append(_seconds(lambda: query[0] @ gallery[0].T))
            ranked.append(_seconds(lambda: retrieval_results(*query, *gallery)))
            reranked.append(_seconds(lambda: KReciprocal(query[0], gallery[0])))
        for what, values in (("ranking", ranked), ("the graph of re-ranking", reranked)):
            ratios = [value / bare for value, bare in zip(values, product, strict=True)]
            self.report.add(f"{what} at the size of {name} / matrix product", ratios)
            self.report.add(f"{what} at the size of {name}", values, unit="s")

    def fractions(self) -> None:
        """Measures two simultaneous clients on one GPU."""
        share = ["engine.gpus_per_client=0.5"] if self.device.type == "cuda" else []
        both = self._fit("engine=ray", "engine.slots=2", *share)
        self.report.add(
            "round with two clients at once on one device / one after the other", [both / self._plain_round()]
        )

    def bits(self) -> None:
        """Checks whether two runs with deterministic algorithms are equal."""
        found = []
        for _ in range(2):
            self._fit("trainer.deterministic=true", "evaluate_every=1")
            found.append((self._last() / "metrics.csv").read_bytes())
        equal = "the same" if found[0] == found[1] else "DIFFERENT"
        self.report.note(f"Two runs with trainer.deterministic=true have {equal} metrics.csv, bit by bit.")

    def _plain_round(self) -> float:
        if self._plain is None:
            self._plain = self._fit()
        return self._plain

    def _words(self, *words: str) -> list[str]:
        network = [] if self.tiny else NETWORK
        return ["exp=fedpav", *network, "rounds=2", "evaluate_every=2", "logger=none", *self.words, *words]

    def _last(self) -> Path:
        return self.folder / str(self.runs)

    def _fit(self, *words: str) -> float:
        """Trains two rounds and returns the training seconds of the second round."""
        self.runs += 1
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = command(["train", *self._words(*words), f"output_dir={self._last()}"])
        if code:
            raise RuntimeError(said.getvalue().strip().splitlines()[-1])
        return read_timings(self._last()).series("system", "fit", "seconds")[2]


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


PARTS = ("training", "rounds", "share", "ranking", "bits", "fractions")


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints and writes the figures, and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--minutes", type=float, default=8.0, help="time limit; no part starts after three quarters of it"
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", default=[])
    args, more = parser.parse_known_args(arguments)
    start, failed = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as folder:
        check = Check(Path(folder), [*args.words, *more], args.tiny)
        for part in args.only:
            if time.monotonic() - start > 45 * args.minutes:
                check.report.note(f"{part}: not measured, the time was over")
                continue
            try:
                getattr(check, part)()
            except Exception as error:  # the other parts still run
                failed += 1
                check.report.note(f"{part}: failed ({' '.join(str(error).split())[:300]})")
    args.out.mkdir(parents=True, exist_ok=True)
    check.report.finish(args.out / "gpu.json")
    lines = ["| what | median | min | max | times | target |", "|---|---|---|---|---|---|"]
    lines += ["| " + " | ".join(figure.cells()) + " |" for figure in check.report.figures]
    text = "\n".join([*lines, "", *check.report.notes])
    (args.out / "table.md").write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())

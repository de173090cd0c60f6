"""Measures training steps of ResNet-50 at 256 x 128: the gain of the default settings over plain fp32.

    python benchmarks/training.py [--repeats 5] [--compile reduce-overhead] [--batch 32]

Each variant repeats the forward pass, the loss, the backward pass and the SGD step on one batch of random images in a
separate process; images per second are those of single steps, alternating with the plain variant. `plain fp32` is
eager, with contiguous images and weights and PyTorch's default SGD. The other variants add the settings of a run: freed
memory is kept (`federation.memory`), `model.channels_last`, the fused optimizer, the precision of
`trainer.precision=auto` on this machine and, with `--compile`, `trainer.compile`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from figures import Report
from processes import OtherProcess
from torch.nn import functional as F

from fedreid_pl.config import ModelConfig
from fedreid_pl.federation.memory import keep_freed_memory
from fedreid_pl.federation.precision import default_precision
from fedreid_pl.models.compiled import CompiledTrunk
from fedreid_pl.models.ide import build_head
from fedreid_pl.models.weights import build_backbone

IDENTITIES = 1041  # MSMT17, the largest client


def make_step(name: str, batch: int, kept: bool, fast: bool, precision: str, mode: str) -> Callable[[int], None]:
    """Returns a function that runs one synchronous step of a new network; called in a separate process."""
    if kept:
        keep_freed_memory()
    device = find_device()
    backbone = build_backbone(ModelConfig(name=name, weights="none", channels_last=fast)).to(device).train()
    head = build_head(backbone.feature_dim, IDENTITIES).to(device)
    options = {"fused": True} if fast else {}
    groups = [{"params": list(part.parameters())} for part in (backbone, head)]
    sgd = torch.optim.SGD(groups, lr=0.005, momentum=0.9, weight_decay=5e-4, **options)
    images = torch.randn(batch, 3, 256, 128, device=device)
    if fast:
        images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch, device=device)
    compiled = CompiledTrunk(backbone, mode, batch) if mode != "none" else None

    def step(number: int) -> None:
        sgd.zero_grad()
        with (
            torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"),
            compiled.full_batch(images) if compiled else nullcontext(),
        ):
            loss = F.cross_entropy(head(backbone(images)), labels)
        loss.backward()
        sgd.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def find_device() -> torch.device:
    """Returns the GPU if one is available, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def main() -> None:
    """Measures and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--compile", default="none", help="mode of torch.compile, as in trainer.compile")
    parser.add_argument("--json", type=Path, help="JSON file for the figures; they are always printed")
    args = parser.parse_args()
    device, precision = find_device(), default_precision("auto")
    variants = {
        "plain fp32": (False, False, "32-true", "none"),
        "kept memory": (True, False, "32-true", "none"),
        "kept memory, channels_last, fused": (True, True, "32-true", "none"),
        f"kept memory, channels_last, fused, {precision}": (True, True, precision, "none"),
    }
    if (mode := args.compile) != "none":
        variants[f"kept memory, channels_last, fused, {precision}, {args.compile}"] = (True, True, precision, mode)
    times = {name: [] for name in variants}
    steps = {name: OtherProcess(make_step, args.model, args.batch, *how) for name, how in variants.items()}
    for repeat in range(args.repeats + 1):
        for name, step in steps.items():
            taken = step(repeat).clock
            if repeat:  # the first one allocates, and compiles
                times[name].append(taken)
    for step in steps.values():
        step.end()
    report = Report(f"training {args.model}")
    report.note(f"{args.model}, 256 x 128, B={args.batch}, {device.type}; per step:")
    plain, *others = times
    for name, values in times.items():
        report.add(f"images per second, {name}", [args.batch / value for value in values], unit="img/s")
    for name in others:
        bound = "at least 3" if precision in name and args.compile in (name.split(", ")[-1], "none") else ""
        ratios = [bare / fast for bare, fast in zip(times[plain], times[name], strict=True)]
        report.add(f"{args.model}: {name} / plain fp32, images per second", ratios, bound)
    report.finish(args.json)


if __name__ == "__main__":
    main()

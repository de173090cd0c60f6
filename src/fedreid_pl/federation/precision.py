"""The precision that `trainer.precision=auto` stands for."""

from __future__ import annotations

from dataclasses import replace

import torch

from fedreid_pl.config import Config


def resolve_precision(config: Config, recorded: str | None = None) -> Config:
    """The configuration with a precision in place of `auto`, which is what a run's config.yaml records.

    Args:
        config: of the run.
        recorded: the precision that the run was begun with, if it was: it is kept, so that a resumed run ends with
            the same bits on a machine with another default.
    """
    if config.trainer.precision != "auto":
        return config
    chosen = recorded if recorded not in (None, "auto") else default_precision(config.trainer.accelerator)
    return replace(config, trainer=replace(config.trainer, precision=str(chosen)))


def default_precision(accelerator: str) -> str:
    """`bf16-mixed` where the device multiplies bfloat16 in hardware, `32-true` elsewhere.

    These are NVIDIA's GPUs since Ampere, and processors with AVX-512's or AMX's bfloat16 instructions. Without them
    bfloat16 is emulated and slower; 16-bit floats, which older GPUs have, need a loss scale and are left to the user.
    """
    if accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif accelerator == "cpu" or (accelerator == "auto" and not torch.backends.mps.is_available()):
        able = torch.cpu.get_capabilities()
        fast = bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    else:
        fast = False
    return "bf16-mixed" if fast else "32-true"


def precision_warning(config: Config) -> str:
    """One line where bfloat16 was asked for and the processor has no instructions for it; else nothing."""
    c = config.trainer
    on_processor = c.accelerator == "cpu" or (c.accelerator == "auto" and not torch.cuda.is_available())
    if c.precision != "bf16-mixed" or not on_processor or default_precision(c.accelerator) == "bf16-mixed":
        return ""
    return (
        "trainer.precision=bf16-mixed: this processor has no bfloat16 instructions and emulates them: a training "
        "step of ResNet-50 took 162 s instead of 9 s on such a processor. trainer.precision=auto chooses the fast one"
    )

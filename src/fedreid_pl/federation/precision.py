"""Chooses the precision for `trainer.precision=auto`."""

from __future__ import annotations

from dataclasses import replace

import torch

from fedreid_pl.config import Config


def resolve_precision(config: Config, recorded: str | None = None) -> Config:
    """Returns the configuration with a concrete precision instead of `auto`; a run's config.yaml records the result.

    Args:
        config: configuration of the run.
        recorded: precision with which the run started, `None` for a new run. A resumed run keeps this precision, so
            that it ends with the same bits on a machine with another default.
    """
    if config.trainer.precision != "auto":
        return config
    chosen = recorded if recorded not in (None, "auto") else default_precision(config.trainer.accelerator)
    return replace(config, trainer=replace(config.trainer, precision=str(chosen)))


def default_precision(accelerator: str) -> str:
    """Returns `bf16-mixed` if the device multiplies bfloat16 in hardware, otherwise `32-true`.

    NVIDIA GPUs since Ampere have this hardware, and processors with the bfloat16 instructions of AVX-512 or AMX. On
    other devices bfloat16 is emulated and slower. The 16-bit floats of older GPUs need a loss scale; the user can
    choose them.
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
    """Returns a warning if the run uses bfloat16 on a processor without bfloat16 instructions, otherwise ""."""
    c = config.trainer
    on_processor = c.accelerator == "cpu" or (c.accelerator == "auto" and not torch.cuda.is_available())
    if c.precision != "bf16-mixed" or not on_processor or default_precision(c.accelerator) == "bf16-mixed":
        return ""
    return (
        "trainer.precision=bf16-mixed: this processor has no bfloat16 instructions and emulates them. A training "
        "step of ResNet-50 took 162 s instead of 9 s on such a processor. Set trainer.precision=auto to use the "
        "faster precision"
    )

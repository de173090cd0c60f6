"""Initial weights: ImageNet by torchvision's name, or a state dict from a file."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights

from fedreid_pl.config import ModelConfig
from fedreid_pl.errors import FedReIDError
from fedreid_pl.functional.randomness import derive_seed
from fedreid_pl.models.bnneck import BNNeckBackbone
from fedreid_pl.models.ide import IDEBackbone
from fedreid_pl.models.trunks import build_trunk
from fedreid_pl.models.weights_file import State, find_neck, find_network, read_tensors

Backbone = IDEBackbone | BNNeckBackbone


def build_backbone(
    config: ModelConfig, seed: int = 0, say: Callable[[str], object] | None = None, given: State | None = None
) -> Backbone:
    """Returns the backbone of a configuration with its initial weights; equal for equal seeds.

    With `model.neck=bnneck` the trunk sets the size of the feature: `feature_dim` and `dropout` have no effect.

    Args:
        config: the network and where its weights come from.
        seed: of what no file holds.
        say: called with a line about what a file held.
        given: tensors to take in place of a file's; `model.weights` then only names them in messages.

    Raises:
        FedReIDError: if the weights cannot be had; the message says how to give a file or go without.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "backbone"))
        trunk = build_trunk(config.name, config.last_stride)
        backbone: Backbone
        if config.neck == "bnneck":
            backbone = BNNeckBackbone(trunk)
        else:
            backbone = IDEBackbone(trunk, config.feature_dim, config.dropout)
    if config.weights == "drawn":
        raise FedReIDError("model.weights=drawn: give this start's file; fedreid_pl.start.initial_backbone makes it")
    source = f"model.weights={config.weights}"
    if config.weights == "imagenet":
        load_trunk(backbone.trunk, _imagenet(config.name), source, config.name)
    elif config.weights not in ("none", None):
        tensors = read_tensors(Path(os.path.expanduser(config.weights)), source) if given is None else given
        line = load_weights(backbone, tensors, source, config.name)
        if say is not None:
            say(line)
    if config.channels_last:
        backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return backbone


def load_weights(backbone: Backbone, tensors: Mapping[str, Tensor], source: str, name: str) -> str:
    """Loads the trunk, and the neck where the file has one of this kind; returns a line that says what was loaded.

    Raises:
        FedReIDError: as `find_network`.
    """
    trunk = find_network(tensors, backbone.trunk.state_dict(), source, name)
    backbone.trunk.load_state_dict(trunk.state)
    neck = find_neck(tensors, backbone.bottleneck.state_dict())
    if neck is not None:
        backbone.bottleneck.load_state_dict(neck.state)
    used = {trunk.prefix + key for key in trunk.state} | ({neck.prefix + key for key in neck.state} if neck else set())
    unused = [key for key in tensors if key not in used]
    shown = f"{len(unused)} tensors are not used ({', '.join(unused[:3])}{', ...' * (len(unused) > 3)})"
    rest = shown if unused else "all tensors are used"
    return (
        f"{source}: loaded the {name} trunk{' and the neck' if neck else ''}"
        f"{f', names begin with {trunk.prefix!r}' if trunk.prefix else ''}; {rest}"
    )


def load_trunk(trunk: nn.Module, weights: Mapping[str, Tensor], source: str, name: str = "this network") -> None:
    """Copies the trunk's part of a state dict, whatever prefix its names have.

    Raises:
        FedReIDError: as `find_network`.
    """
    trunk.load_state_dict(find_network(weights, trunk.state_dict(), source, name).state)


def copy_state(state: Mapping[str, Tensor], network: nn.Module) -> None:
    """`network.load_state_dict(state)`, three times faster for a network of many small tensors.

    Raises:
        RuntimeError: if names or shapes differ, or something is no tensor.
    """
    own = network.state_dict()
    shapes = {name: getattr(value, "shape", None) for name, value in state.items()}
    if shapes != {name: value.shape for name, value in own.items()}:
        network.load_state_dict(state)  # which says what differs
    for name, value in own.items():
        value.copy_(state[name])


def _imagenet(name: str) -> Mapping[str, Tensor]:
    hint = "give a file with model.weights=PATH, or go without with model.weights=none"
    if name == "small":
        raise FedReIDError(
            "model.weights=imagenet: there are none for the small backbone; set model.weights=none or drawn"
        )
    try:
        return get_model_weights(name)["IMAGENET1K_V1"].get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = (str(getattr(error, "reason", error)).splitlines() or [type(error).__name__])[0]
        raise FedReIDError(f"model.weights=imagenet: {name} could not be downloaded ({reason}); {hint}") from error

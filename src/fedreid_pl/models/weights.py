"""Initial weights of a backbone: random, from a library (torchvision, timm), or from a file."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights, list_models

from fedreid_pl.config import ModelConfig
from fedreid_pl.config.trusted import is_import_path
from fedreid_pl.errors import FedReIDError
from fedreid_pl.functional.randomness import derive_seed
from fedreid_pl.models.bnneck import BNNeckBackbone
from fedreid_pl.models.ide import IDEBackbone
from fedreid_pl.models.pooling import GeMPooling
from fedreid_pl.models.restitution import restitute
from fedreid_pl.models.stages import first_stages
from fedreid_pl.models.trunks import SIZE, Trunk, build_trunk
from fedreid_pl.models.trunks.timm_nets import PREFIX, pretrained_state
from fedreid_pl.models.weights_file import Found, State, find_neck, find_network, read_tensors

Backbone = IDEBackbone | BNNeckBackbone

POWERS = ("pooling.p", "pool_layer.p", "gem.p")
"""Suffixes of the name of the GeM power in weights files of various programs."""


def build_backbone(
    config: ModelConfig,
    seed: int = 0,
    say: Callable[[str], object] | None = None,
    given: State | None = None,
    size: tuple[int, int] = SIZE,
) -> Backbone:
    """Returns the backbone of a configuration with its initial weights; equal seeds give equal weights.

    With `model.neck=bnneck` the trunk determines the size of the feature: `feature_dim` and `dropout` have no effect.

    Args:
        config: the network and the source of its weights.
        seed: seed of the weights that no file provides.
        say: called with one line that lists the loaded and the unused tensors of a file.
        given: tensors to load instead of a file; messages then name them by `model.weights`.
        size: height and width of the images.

    Raises:
        FedReIDError: if the weights are unavailable; the message explains how to give a file or train without one.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "backbone"))
        trunk = build_trunk(config.name, config.last_stride, size, config.patch_stride, config.pooling)
        backbone: Backbone
        if config.neck == "bnneck":
            backbone = BNNeckBackbone(trunk, config.pooling)
        else:
            backbone = IDEBackbone(trunk, config.feature_dim, config.dropout, config.pooling)
        if config.snr_stages:
            backbone.restitution = restitute(trunk, first_stages(trunk, config.name, config.snr_stages))
    if config.weights == "drawn":
        raise FedReIDError(
            "model.weights=drawn: set model.weights to a file with these weights; "
            "fedreid_pl.start.initial_backbone creates it"
        )
    source = f"model.weights={config.weights}"
    if config.weights == "imagenet":
        load_trunk(trunk, _imagenet(config.name), source, config.name)
    elif config.weights not in ("none", None):
        tensors = read_tensors(Path(os.path.expanduser(config.weights)), source) if given is None else given
        line = load_weights(backbone, tensors, source, config.name)
        if say is not None:
            say(line)
    if config.channels_last:
        backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return backbone


def load_weights(backbone: Backbone, tensors: Mapping[str, Tensor], source: str, name: str) -> str:
    """Loads the trunk, and the neck if the file has a matching one; returns a line with the loaded and unused tensors.

    Raises:
        FedReIDError: under the conditions of `find_network`.
    """
    trunk, held, notes = _load_trunk(backbone.trunk, tensors, source, name)
    parts, used = [f"the {name} trunk"], {trunk.prefix + key for key in trunk.state}
    neck = find_neck(held, backbone.bottleneck.state_dict())
    if neck is not None:
        backbone.bottleneck.load_state_dict(neck.state)
        parts.append("the neck")
        used |= {neck.prefix + key for key in neck.state}
    if restituted := _load_restitution(backbone, held, trunk.prefix.removesuffix("trunk.")):
        parts.append("the restitution")
        used |= restituted
    if power := _load_power(backbone.pooling, held):
        parts.append("the power of the pooling")
        used.add(power)
    unused = [key for key in held if key not in used]
    shown = f"{len(unused)} tensors are not used ({', '.join(unused[:3])}{', ...' * (len(unused) > 3)})"
    stripped = f", names begin with {trunk.prefix!r}" if trunk.prefix else ""
    rest = [*notes, shown if unused else "all tensors are used"]
    return "; ".join([f"{source}: loaded {_listed(parts)}{stripped}", *rest])


def load_trunk(trunk: nn.Module, weights: Mapping[str, Tensor], source: str, name: str = "this network") -> None:
    """Loads the trunk from a state dict; its names may have any prefix.

    Raises:
        FedReIDError: under the conditions of `find_network`.
    """
    _load_trunk(trunk, weights, source, name)


def _load_trunk(
    trunk: nn.Module, weights: Mapping[str, Tensor], source: str, name: str
) -> tuple[Found, State, list[str]]:
    """Loads the trunk; returns its tensors, all tensors of the file with adapted names, and the list of changes."""
    held, notes = dict(weights), list[str]()
    network = trunk
    if isinstance(trunk, Trunk):
        held, notes = trunk.adapted(held, source)
        network = trunk.named
    found = find_network(held, network.state_dict(), source, name)
    network.load_state_dict(found.state)
    return found, held, notes


def _load_restitution(backbone: Backbone, tensors: Mapping[str, Tensor], prefix: str) -> set[str]:
    """Loads the layers of `model.snr_stages` from a file of this program; returns their names in the file."""
    layers = getattr(backbone, "restitution", None)
    if layers is None:
        return set()
    wanted = {f"{prefix}restitution.{key}": (key, value.shape) for key, value in layers.state_dict().items()}
    if not all(name in tensors and tensors[name].shape == shape for name, (_, shape) in wanted.items()):
        return set()
    layers.load_state_dict({key: tensors[name] for name, (key, _) in wanted.items()})
    return set(wanted)


def _load_power(pooling: nn.Module, tensors: Mapping[str, Tensor]) -> str | None:
    """Loads the power of a GeM pooling; returns its name in the file, or `None`."""
    if not isinstance(pooling, GeMPooling):
        return None
    for key, value in tensors.items():
        if f".{key}".endswith(tuple(f".{power}" for power in POWERS)) and value.numel() == 1:
            pooling.load_state_dict({"p": value.reshape(1)})
            return key
    return None


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def copy_state(state: Mapping[str, Tensor], network: nn.Module) -> None:
    """Loads a state dict like `network.load_state_dict`, three times faster for a network of many small tensors.

    Raises:
        RuntimeError: if names or shapes differ, or if a value is not a tensor.
    """
    own = network.state_dict()
    shapes = {name: getattr(value, "shape", None) for name, value in state.items()}
    if shapes != {name: value.shape for name, value in own.items()}:
        network.load_state_dict(state)  # raises an error that lists the differences
    for name, value in own.items():
        value.copy_(state[name])


def copied(state: Mapping[str, Tensor]) -> State:
    """Returns independent copies of tensors on the CPU, without gradients."""
    return {name: value.detach().to("cpu", copy=True) for name, value in state.items()}


def _imagenet(name: str) -> Mapping[str, Tensor]:
    hint = "give a file with model.weights=PATH, or train from scratch with model.weights=none"
    if name == "small":
        raise FedReIDError(
            "model.weights=imagenet: the small backbone has no ImageNet weights; set model.weights=none or drawn"
        )
    if is_import_path(name) or not (name.startswith(PREFIX) or name in list_models()):
        raise FedReIDError(f"model.weights=imagenet: no ImageNet weights are known for {name}; {hint}")
    try:
        if name.startswith(PREFIX):
            return pretrained_state(name.removeprefix(PREFIX))
        return get_model_weights(name)["IMAGENET1K_V1"].get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = (str(getattr(error, "reason", error)).splitlines() or [type(error).__name__])[0]
        raise FedReIDError(f"model.weights=imagenet: {name} could not be downloaded ({reason}); {hint}") from error

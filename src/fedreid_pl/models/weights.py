"""Initial weights: ImageNet by torchvision's name, or a state dict from a file."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Mapping
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

Backbone = IDEBackbone | BNNeckBackbone


def build_backbone(config: ModelConfig, seed: int = 0) -> Backbone:
    """The backbone of a configuration with its initial weights; equal for equal seeds.

    With `model.neck=bnneck` the trunk sets the size of the feature: `feature_dim` and `dropout` have no effect.

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
    if config.weights == "imagenet":
        load_trunk(backbone.trunk, _imagenet(config.name), "model.weights=imagenet")
    elif config.weights not in ("none", None):
        load_trunk(
            backbone.trunk, _from_file(Path(os.path.expanduser(config.weights))), f"model.weights={config.weights}"
        )
    if config.channels_last:
        backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return backbone


def load_trunk(trunk: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copies the trunk's part of a state dict; a classifier `fc.*` and a `trunk.` prefix are looked through.

    Raises:
        FedReIDError: if a tensor of the trunk is missing or has another shape.
    """
    given = {name.removeprefix("module.").removeprefix("trunk."): value for name, value in weights.items()}
    wanted = trunk.state_dict()
    for name, value in wanted.items():
        if name.endswith("num_batches_tracked"):
            continue
        if name not in given:
            raise FedReIDError(f"{source}: holds no '{name}'; it is not a state dict of this backbone")
        if given[name].shape != value.shape:
            raise FedReIDError(
                f"{source}: '{name}' is {tuple(given[name].shape)}, this backbone has {tuple(value.shape)}"
            )
    trunk.load_state_dict({name: given.get(name, value) for name, value in wanted.items()})


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


def _from_file(path: Path) -> Mapping[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch remarks on odd pickles before it refuses them
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise FedReIDError(f"model.weights={path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # damaged bytes make the unpickler fail in any way
        raise FedReIDError(f"model.weights={path}: is not a state dict of tensors saved by torch.save") from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in loaded.items()
    ):
        raise FedReIDError(f"model.weights={path}: is not a state dict of tensors saved by torch.save")
    return loaded

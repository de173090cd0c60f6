"""The policy of a silo: what its operator allows. A silo checks it before it reads any picture."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, get_type_hints

from fedreid_pl.config import Config
from fedreid_pl.config.documents import read_document
from fedreid_pl.config.values import typed
from fedreid_pl.errors import FedReIDError, counted, nearest, printable

NAME = "policy.yaml"


@dataclass(frozen=True)
class Policy:
    """The keys of `policy.yaml`; `TEXT` explains them to the operator.

    Lists contain patterns such as `fedpav*` and `train/*`.
    """

    algorithms: tuple[str, ...] = ("*",)
    callbacks: tuple[str, ...] = (
        *("backbone_sync", "reweighting", "distillation", "fedprox", "fednova", "fedopt", "mixstyle", "crossstyle"),
    )
    metrics: tuple[str, ...] = ("train/*", "test/*", "cost/*", "cosine_distance*", "effective_steps")
    minimum_silos: int = 2
    secure_aggregation: str = "no"
    dp_noise_at_least: float = 0.0
    rounds_at_most: int = 1000
    largest_change: float = 10.0

    def check(self, config: Config, silos: int) -> None:
        """Checks that the policy allows an experiment.

        Args:
            config: configuration of the experiment.
            silos: number of silos that take part, as the coordinator reports it.

        Raises:
            PolicyRefusal: if it does not; the message names the policy's key and the value of the experiment.
        """
        if not matches(config.name, self.algorithms):
            raise PolicyRefusal("algorithms", f"the experiment is {printable(config.name)}")
        for name in config.callbacks:
            if not matches(name, self.callbacks):
                raise PolicyRefusal("callbacks", f"the experiment uses callbacks.{printable(name)}")
        present = min(silos, config.clients_per_round or silos, config.min_clients)
        if present < self.minimum_silos:
            raise PolicyRefusal(
                "minimum_silos",
                f"a round may end with {counted(present, 'silo')} (min_clients={config.min_clients}), but the "
                f"policy requires {self.minimum_silos}",
            )
        if self.secure_aggregation == "required":
            raise PolicyRefusal("secure_aggregation", "the coordinator sees the update of every single silo")
        noise = _noise(config.callbacks.get("differential_privacy"))
        if noise < self.dp_noise_at_least:
            raise PolicyRefusal(
                "dp_noise_at_least",
                f"noise_multiplier is {noise:g}, but the policy requires {self.dp_noise_at_least:g}",
            )
        if config.rounds > self.rounds_at_most:
            raise PolicyRefusal("rounds_at_most", f"rounds={config.rounds}, the policy allows {self.rounds_at_most}")

    def check_metrics(self, names: Iterable[str]) -> None:
        """Checks that the policy allows an update to contain the numbers with these names.

        Raises:
            PolicyRefusal: if it does not; the message names the number.
        """
        for name in names:
            if not matches(name, self.metrics):
                raise PolicyRefusal("metrics", f"the update contains the number {printable(name)}")


class PolicyRefusal(FedReIDError):
    """Raised for an experiment or an update that the policy does not allow.

    Attributes:
        key: key of the policy; the coordinator receives this key and nothing else.
    """

    def __init__(self, key: str, found: str) -> None:
        self.key = key
        super().__init__(f"{NAME}, {key}: {found}; change the policy to allow it")


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Returns whether a name matches one of the patterns.

    >>> matches("train/loss", ("train/*",)), matches("path", ("train/*",))
    (True, False)
    """
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def read_policy(path: Path) -> Policy:
    """Reads a policy; a missing key has the value that `TEXT` shows.

    Raises:
        FedReIDError: if the file is missing, or has an unknown key or an invalid value; the message names the line.
    """
    section = read_document(path)
    kinds = get_type_hints(Policy)
    known = [item.name for item in fields(Policy)]
    values: dict[str, Any] = {}
    for name, value in section.items():
        where = f"{path}, line {section.lines[name]}"
        if name not in known:
            raise FedReIDError(f"{where}: unknown key '{printable(name)}'{nearest(name, known)}")
        listed = kinds[name] not in (int, float, str)
        try:
            found = typed(value, list[str] if listed else kinds[name])
        except ValueError as error:
            raise FedReIDError(f"{where}: {name}: {error}") from error
        values[name] = tuple(found) if listed else found
    policy = Policy(**values)
    if policy.secure_aggregation not in ("no", "required"):
        raise FedReIDError(f"{path}: secure_aggregation={printable(policy.secure_aggregation)}: must be no or required")
    for name, least in (("minimum_silos", 1), ("dp_noise_at_least", 0), ("rounds_at_most", 1), ("largest_change", 0)):
        if not least <= getattr(policy, name) < float("inf"):
            raise FedReIDError(f"{path}: {name}={getattr(policy, name)}: must be a number of at least {least}")
    return policy


def _noise(options: Any) -> float:
    """Returns the noise multiplier of secret noise; 0 without differential privacy or with reproducible noise."""
    if not isinstance(options, dict) or options.get("noise", "secret") != "secret":
        return 0.0
    value = options.get("noise_multiplier", 1.0)  # the callback's own default
    return float(value) if isinstance(value, int | float) else 0.0


TEXT = """\
# What this silo allows. The silo refuses everything else, before it reads any picture.
# Patterns: * matches any text. A change of this file applies to the next experiment and to every further job.

# Experiments, by name (fedpav, fedpav_rw, scaffold, ...).
algorithms: ["*"]

# Parts of algorithms. clustering sends summaries of features, style_bank colour statistics of each camera. scaffold,
# ditto, moon, fedbabu, fedreid_decentralised, dual_norm, dacs, sscu and snr keep more state at this silo. Add their
# names to allow them.
callbacks: [backbone_sync, reweighting, distillation, fedprox, fednova, fedopt, mixstyle, crossstyle]

# Numbers that this silo may send with the model. test/* are scores on this silo's test pictures.
metrics: ["train/*", "test/*", "cost/*", "cosine_distance*", effective_steps]

# Smallest number of silos whose updates a round averages (the experiment's min_clients). With 1, the new model can
# be this silo's own update, and the next silo receives it.
minimum_silos: 2

# required: refuse every experiment in which the coordinator sees this silo's own update. This version does not
# offer secure aggregation yet, so required refuses all experiments.
secure_aggregation: "no"

# Smallest noise_multiplier of callbacks.differential_privacy (secret noise). 0 allows experiments without noise.
dp_noise_at_least: 0.0

# Largest number of rounds of an experiment.
rounds_at_most: 1000

# Largest distance of a received model from the previous model, as a multiple of the previous model's norm. The silo
# refuses a job with a larger distance.
largest_change: 10.0
"""
"""The file `policy.yaml` that `silo init` writes."""

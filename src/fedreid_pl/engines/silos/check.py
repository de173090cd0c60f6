"""The checks of `silo check`: everything that a silo needs before it joins a federation."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone

import grpc
import torch

from fedreid_pl import __version__
from fedreid_pl.config import Config
from fedreid_pl.data.scenarios import load_federated_data
from fedreid_pl.engines.silos.audit import NAME, check_log
from fedreid_pl.engines.silos.probe import probe
from fedreid_pl.engines.silos.shared import own_config
from fedreid_pl.engines.silos.silo_folder import SiloFolder
from fedreid_pl.errors import FedReIDError, counted

ROOM = 4 * 2**30  # bytes of free disk: enough for a few copies of the largest models
SOON = 30  # days before the end of a certificate from which the check mentions a new invitation
MOST_SECONDS = 300  # largest difference between the clocks of silo and coordinator
NEEDS = {"certificate": ("invitation",), "coordinator": ("keys", "invitation", "certificate")}
"""Checks that are skipped if one of these other checks fails, so that a mistake is reported once."""
Result = tuple[str, bool, str]
"""Name of the check, whether it passed, and one line about its result."""


def check_silo(folder: SiloFolder, words: Sequence[str], address: str) -> Iterator[Result]:
    """Yields the result of every check. The checks change no file."""
    failed: list[str] = []
    for name, look in (
        ("keys", lambda: _keys(folder)),
        (
            "policy",
            lambda: f"{', '.join(folder.policy.callbacks)}; at least {counted(folder.policy.minimum_silos, 'silo')}",
        ),
        ("invitation", lambda: f"federation {folder.invitation.federation}, {folder.invitation.fingerprint}"),
        ("certificate", lambda: _certificate(folder)),
        ("audit log", lambda: _log(folder)),
        ("data", lambda: _data(own_config(words, folder.name))),
        ("disk", lambda: _disk(folder)),
        ("versions", lambda: f"fedreid_pl {__version__}, torch {torch.__version__}, grpcio {grpc.__version__}"),
        ("coordinator", lambda: _route(folder, address)),
    ):
        try:
            if causes := [cause for cause in NEEDS.get(name, ()) if cause in failed]:
                raise FedReIDError(f"not checked, because of the check of {causes[0]}")
            yield name, True, look()
        except FedReIDError as error:
            failed.append(name)
            yield name, False, str(error)


def _keys(folder: SiloFolder) -> str:
    folder.check_keys()
    return f"{folder.name}, fingerprint {folder.card.fingerprint}"


def _certificate(folder: SiloFolder) -> str:
    end = folder.check_certificate()
    soon = (end - datetime.now(timezone.utc)).days < SOON
    return f"valid until {end:%Y-%m-%d}" + (", ask the coordinator for a new invitation" if soon else "")


def _log(folder: SiloFolder) -> str:
    lines, _ = check_log(folder.path / NAME)
    folder.newest_launch()
    return f"{lines} lines, none altered"


def _data(config: Config) -> str:
    data = load_federated_data(config.data)
    (client,) = data.clients.values()
    persons = counted(client.train.num_identities(), "person")
    return f"{counted(len(client.train), 'training picture')} of {persons} in {config.data.root}"


def _disk(folder: SiloFolder) -> str:
    free = shutil.disk_usage(folder.path).free
    if free < ROOM:
        raise FedReIDError(f"{folder.path}: {free / 2**30:.1f} GiB are free, large models need {ROOM / 2**30:.0f}")
    return f"{free / 2**30:.0f} GiB free"


def _route(folder: SiloFolder, address: str) -> str:
    place = address or folder.invitation.address
    difference = probe(place, folder.credentials)
    if abs(difference) > MOST_SECONDS:
        raise FedReIDError(f"{place} answers, but the clocks differ by {difference:.0f} s; set both by NTP")
    return f"{place} answers; the clocks differ by {abs(difference):.0f} s"

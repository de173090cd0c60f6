"""Creates the parties of a federation: folders, silo services and a coordinator over the loopback transport."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import support

from fedreid_pl.config import compose
from fedreid_pl.coordination import coordinate
from fedreid_pl.engines.silos.federation_folder import FederationFolder
from fedreid_pl.engines.silos.loopback import Loopback
from fedreid_pl.engines.silos.payload import Payload
from fedreid_pl.engines.silos.service import SiloService
from fedreid_pl.engines.silos.shared import own_config
from fedreid_pl.engines.silos.silo_folder import SiloFolder
from fedreid_pl.federation.server.loop import FederationLoop
from fedreid_pl.federation.storage import read_state

OPEN = """\
callbacks: ["*"]
metrics: ["*"]
minimum_silos: 1
"""
"""A policy that allows every shipped experiment."""


def make_parties(
    home: Path, names: Sequence[str], host: str = "localhost", port: int = 8443, policy: str = OPEN
) -> tuple[FederationFolder, dict[str, SiloFolder]]:
    """Creates the folders of a federation and its silos, as the commands do, and exchanges cards and invitations."""
    silos = {name: SiloFolder.new(home / name, name) for name in names}
    federation = FederationFolder.new(home / "federation", host, port, [silo.card for silo in silos.values()])
    for name, silo in silos.items():
        (silo.path / "invitation.json").write_bytes((federation.path / "invitations" / f"{name}.json").read_bytes())
        (silo.path / "policy.yaml").write_text(policy)
    return federation, silos


def silo_words(root: Path, name: str) -> list[str]:
    """Returns the settings that a silo's operator types; the dataset's folder has the silo's name."""
    return ["data.source=folder", f"data.root={root}", f"data.datasets=[{name}]", "trainer.accelerator=cpu"]


def make_service(silo: SiloFolder, root: Path, say: Callable[[str], None] = lambda line: None) -> SiloService:
    """Returns a silo's service over one of the tiny datasets."""
    return SiloService(silo, own_config(silo_words(root, silo.name), silo.name), say)


def coordinator_words(root: Path, output: Path, federation: FederationFolder, *words: str) -> list[str]:
    """Returns the coordinator's arguments; it has the public images and no client's images."""
    words = ("trainer.accelerator=cpu", "engine=silos", f"federation={federation.path}", *words)
    return [word for word in support.quick(root, output, *words) if not word.startswith("data.datasets=")]


def run_loopback(
    words: Sequence[str], output: Path, answers: dict[str, Callable[[Payload], Payload | None]], seed: int = 0
) -> FederationLoop:
    """Runs an experiment whose silos answer in this process, in a random order."""
    return coordinate(compose(words), output, lambda federation: Loopback(answers, output.parent / "copies", seed))


def assert_same_run(one: Path, other: Path) -> None:
    """Asserts that metrics.csv and the last checkpoints are equal, except for costs and lineage."""
    assert (one / "metrics.csv").read_bytes() == (other / "metrics.csv").read_bytes()
    left, right = (read_state(max((folder / "checkpoints").glob("round-*.ckpt"))) for folder in (one, other))
    for state in (left, right):
        state.pop("costs"), state.pop("lineage")
    support.assert_equal(left, right)

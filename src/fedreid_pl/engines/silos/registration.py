"""Reads a silo's answer to an experiment: its registration, or the reason why it does not join."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fedreid_pl.data.scenarios import NO_CAMERAS
from fedreid_pl.data.validation import no_validation
from fedreid_pl.engines.silos.payload import Header
from fedreid_pl.errors import FedReIDError, printable


@dataclass(frozen=True)
class Registration:
    """A silo's description of itself when it joins an experiment.

    Args:
        silo: name of the silo.
        client: name of the silo's client.
        images: number of the silo's training pictures.
        tests: names of the silo's test sets.
        synthetic: whether the silo reports that this program drew its pictures.
        version: version of fedreid_pl at the silo.
        torch: version of PyTorch at the silo.
    """

    silo: str
    client: str
    images: int
    tests: tuple[str, ...]
    synthetic: bool
    version: str
    torch: str

    def check_synthetic(self) -> None:
        """Checks that the silo's pictures are synthetic.

        Raises:
            FedReIDError: if the silo has photographs.
        """
        if not self.synthetic:
            raise FedReIDError(
                f"silo {self.silo}: has photographs, and all data of this run are synthetic so far; begin a new run "
                "with resume=never or another output_dir"
            )


def check_validated(registered: Iterable[Registration], share: float) -> None:
    """Checks that at least one silo has validation persons, in a run with `data.val_ids=SHARE`.

    Raises:
        FedReIDError: if no silo has validation persons; the message is the same as in a run on one machine.
    """
    if share and not any(f"val:{found.client}" in found.tests for found in registered):
        raise no_validation(share)


def refusal_of(silo: str, reason: str) -> str:
    """Returns an error line that explains why a silo does not join an experiment."""
    reason = printable(reason, 60)
    key = reason.removeprefix("policy.")
    if key == reason:
        return f"silo {silo}: cannot join ({reason}); the silo's log contains the reason"
    advice = " (set min_clients=2 or more)" if key == "minimum_silos" else ""
    return f"silo {silo}: its policy does not allow this experiment ({key}){advice}; ask its operator"


def registration_of(silo: str, header: Header) -> Registration:
    """Reads the registration in a silo's answer.

    Raises:
        FedReIDError: if a field is missing, or has a value that a silo of this version never sends.
    """
    values = header.values
    kinds = {"client": str, "images": int, "tests": str, "synthetic": bool, "version": str, "torch": str}
    if any(type(values.get(name)) is not kind for name, kind in kinds.items()):
        raise FedReIDError(f"silo {silo}: its registration is not valid; use the same version of fedreid_pl")
    client, tests = str(values["client"]), tuple(name for name in str(values["tests"]).split("/") if name)
    if client not in (silo, silo + NO_CAMERAS):
        raise FedReIDError(f"silo {silo}: joined as client {printable(client)}; the client must have the silo's name")
    own = {client, f"val:{client}"}
    images = values["images"]
    if not set(tests) <= own or not isinstance(images, int) or not 2 <= images <= 2**40:
        raise FedReIDError(
            f"silo {silo}: joined with {images} images and test sets {printable(str(tests), 80)}, which is not valid"
        )
    versions = (printable(str(values["version"]), 40), printable(str(values["torch"]), 40))
    return Registration(silo, client, images, tests, bool(values["synthetic"]), *versions)

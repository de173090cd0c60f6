"""The version of Flower that is tested; every other one is refused."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from fedreid_pl.errors import FedReIDError, printable

FLOWER = "1.42.0"
"""The same version as in the extra `flower`. Later versions change how their parts talk to each other."""


def check_flower() -> None:
    """Checks that Flower is installed in the version that is tested.

    Raises:
        FedReIDError: with the command that installs it.
    """
    try:
        found = version("flwr")
    except PackageNotFoundError:
        found = ""
    if found == FLOWER:
        return
    what = f"flwr {printable(found, 40)} is installed, and only {FLOWER} is tested" if found else "flwr is missing"
    raise FedReIDError(f"flower: {what}; install with pip install 'fedreid-pl[flower]', in an environment of its own")

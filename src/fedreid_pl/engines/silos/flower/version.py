"""Checks the version of Flower: only the tested version is allowed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from fedreid_pl.errors import FedReIDError, printable

FLOWER = "1.42.0"
"""The tested version, the same as in the extra `flower`. Later versions change the protocol between Flower's parts."""


def check_flower() -> None:
    """Checks that the tested version of Flower is installed.

    Raises:
        FedReIDError: if Flower is missing or has another version; the message gives the command that installs it.
    """
    try:
        found = version("flwr")
    except PackageNotFoundError:
        found = ""
    if found == FLOWER:
        return
    what = f"flwr {printable(found, 40)} is installed, and only {FLOWER} is tested" if found else "flwr is missing"
    raise FedReIDError(f"flower: {what}; install with pip install 'fedreid-pl[flower]', in a separate environment")

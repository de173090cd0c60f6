"""Explains to a silo's operator why a call to the coordinator failed."""

from __future__ import annotations

import grpc

from fedreid_pl import __version__
from fedreid_pl.engines.silos.grpc_calls import NO_COMMON
from fedreid_pl.errors import FedReIDError, printable


def check_refusal(address: str, error: grpc.RpcError) -> None:
    """Raises an error if a repetition of the failed call would fail as well.

    Args:
        address: address of the coordinator.
        error: error of the call.

    Raises:
        FedReIDError: if the coordinator does not know this silo's key, or speaks another protocol.
    """
    code, details = error.code(), str(error.details())  # type: ignore[attr-defined]
    if code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED):
        raise FedReIDError(
            f"{address}: the coordinator refuses this silo ({printable(details, 200)}); ask the coordinator whether "
            "this silo was revoked"
        ) from error
    # other programs answer UNIMPLEMENTED as well
    if code is grpc.StatusCode.UNIMPLEMENTED and details.startswith(NO_COMMON):
        raise FedReIDError(
            f"{address}: {printable(details, 200)}; install the same release of fedreid_pl on both sides; this "
            f"silo has {__version__}"
        ) from error


def cause_of(error: grpc.RpcError) -> str:
    """Returns the cause of a failed call in gRPC's words, without the words that stand before every cause."""
    details = str(error.details()).rpartition("last error: ")[2]  # type: ignore[attr-defined]
    return printable(details.removeprefix("UNKNOWN: "), 200)

"""Calls the coordinator once, before a silo joins or leaves."""

from __future__ import annotations

import time

import grpc

from fedreid_pl.engines.silos.certificates import Credentials
from fedreid_pl.engines.silos.grpc_calls import CLIENT_OPTIONS, CLOCK, FETCH, SERVICE, note, spoken_by_me
from fedreid_pl.engines.silos.grpc_errors import cause_of, check_refusal
from fedreid_pl.engines.silos.grpc_link import BEAT, target_of
from fedreid_pl.errors import FedReIDError


def probe(address: str, credentials: Credentials) -> float:
    """Calls the coordinator once; returns the seconds that its clock is ahead of this machine's clock.

    Raises:
        FedReIDError: if the coordinator does not answer, does not know the silo's key, or speaks another protocol;
            the message gives the reason.
    """
    channel = grpc.secure_channel(
        target_of(address),
        grpc.ssl_channel_credentials(credentials.authority, credentials.key, credentials.certificate),
        options=CLIENT_OPTIONS,
    )
    try:
        stream = channel.unary_stream(f"/{SERVICE}/{FETCH}")(note(wait=False), timeout=BEAT, metadata=spoken_by_me())
        for _ in stream:
            pass
        clock = dict(stream.trailing_metadata()).get(CLOCK, "0")
        return float(clock) - time.time()
    except grpc.RpcError as error:
        check_refusal(address, error)
        raise FedReIDError(
            f"{address}: no answer ({cause_of(error)}); check that the coordinator runs fedreid-pl train, and that no "
            "firewall blocks the connection"
        ) from error
    finally:
        channel.close()

"""A silo as a process: fetches, answers, and goes on trying while the coordinator is away."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from threading import Event

from fedreid_pl.engines.silos.grpc_link import Beating, GrpcLink, target_of
from fedreid_pl.engines.silos.leaving import leave
from fedreid_pl.engines.silos.service import SiloService
from fedreid_pl.engines.silos.shared import own_config
from fedreid_pl.engines.silos.silo_folder import SiloFolder

PAUSE = 5.0  # seconds after a payload that is ignored


def run_silo(folder: SiloFolder, words: Sequence[str], address: str, say: Callable[[str], None]) -> None:
    """Serves one silo until the process is ended.

    Args:
        folder: of the silo.
        words: of its operator, about its data and devices.
        address: `https://HOST:PORT` of the coordinator; empty: as the invitation says.
        say: prints a line.

    Raises:
        FedReIDError: for a mistake in words or folder, and if the coordinator does not know this silo's key.
    """
    address = address or folder.invitation.address
    target_of(address)  # before the pictures are looked for
    lock = folder.lock()
    service = SiloService(folder, own_config(words, folder.name), say)
    say(f"silo {folder.name} calls {address}; nothing listens here. Ctrl-C ends it")
    with closing(GrpcLink(address, folder.credentials, folder.path / "spool", say)) as link:
        serve(service, link)
    del lock


def leave_run(folder: SiloFolder, address: str, say: Callable[[str], None]) -> None:
    """Tells the coordinator that this silo leaves the run; waits until it is told.

    Raises:
        FedReIDError: if the silo's process still runs, or the coordinator does not know this silo's key.
    """
    address = address or folder.invitation.address
    lock = folder.lock()
    say(f"silo {folder.name} calls {address} to leave the run; this takes until the coordinator's next message")
    with closing(GrpcLink(address, folder.credentials, folder.path / "spool", say)) as link:
        leave(folder, link, say)
    del lock
    say(f"silo {folder.name} has left; it comes back with fedreid-pl silo run")


def serve(service: SiloService, link: GrpcLink, over: Event | None = None) -> None:
    """Answers what a link brings, until `over` is set."""
    while over is None or not over.is_set():
        sent = link.fetch()
        if sent is None:
            continue
        with Beating(link):
            answer = service.answer(sent)
        sent.path.unlink(missing_ok=True)  # a job that was done is in the session's folder by now
        if answer is None:
            time.sleep(PAUSE)
        else:
            link.push(answer, sent.envelope.digest)

"""Runs a silo as a process: fetches payloads, answers them, and retries while the coordinator does not answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from threading import Event
from typing import Any

from fedreid_pl.engines.silos.grpc_link import Beating, GrpcLink, target_of
from fedreid_pl.engines.silos.leaving import leave
from fedreid_pl.engines.silos.log_lines import Emit, quiet
from fedreid_pl.engines.silos.probe import probe
from fedreid_pl.engines.silos.service import SiloService
from fedreid_pl.engines.silos.shared import own_config
from fedreid_pl.engines.silos.silo_folder import SiloFolder

PAUSE = 5.0  # seconds to wait after an ignored payload


def run_silo(
    folder: SiloFolder, words: Sequence[str], address: str, say: Callable[[str], None], events: Emit = quiet
) -> None:
    """Runs one silo until the process ends.

    Args:
        folder: folder of the silo.
        words: the operator's command-line words about data and devices.
        address: `https://HOST:PORT` of the coordinator; an empty text selects the address in the invitation.
        say: prints a line.
        events: writes what happens to a log for programs.

    Raises:
        FedReIDError: if a word or the folder is invalid, or the coordinator does not know this silo's key.
    """
    address = address or folder.invitation.address
    target_of(address)  # raises for an invalid address before the search for pictures
    own = own_config(words, folder.name)
    folder.check_keys()
    folder.check_certificate()
    lock = folder.lock()
    service = SiloService(folder, own, say)
    service.audit.listener = Events(events)
    events("started")
    say(f"silo {folder.name} calls {address} and opens no port. Press Ctrl-C to stop")
    with closing(GrpcLink(address, folder.credentials, folder.path / "spool", say)) as link:
        link.events = events
        serve(service, link)
    del lock


class Events:
    """Writes the lines of an audit log as events, without their free text.

    Args:
        emit: writes an event.
    """

    def __init__(self, emit: Emit) -> None:
        self._emit, self._since = emit, time.monotonic()

    def __call__(self, event: str, values: Mapping[str, Any]) -> None:
        """Writes an event with the seconds since the previous event."""
        now = time.monotonic()
        seconds, self._since = round(now - self._since, 3), now
        known = {
            name: values[name] for name in ("round", "attempt", "kind", "bytes", "reason", "word") if name in values
        }
        level = "warning" if event in ("failed", "refused", "ignored", "recovered") else "info"
        self._emit(event.replace(" ", "_"), level, seconds=seconds, **known)


def leave_run(folder: SiloFolder, address: str, say: Callable[[str], None]) -> None:
    """Leaves the run: waits for the coordinator's next message and answers it with `left`.

    Raises:
        FedReIDError: if the silo's process still runs, or if the coordinator does not answer or does not know this
            silo's key.
    """
    address = address or folder.invitation.address
    folder.check_keys()
    folder.check_certificate()
    lock = folder.lock()
    probe(address, folder.credentials)  # without a coordinator there is no run to leave
    say(f"silo {folder.name} calls {address} to leave the run; this takes until the coordinator's next message")
    with closing(GrpcLink(address, folder.credentials, folder.path / "spool", say)) as link:
        leave(folder, link, say)
    del lock
    say(f"silo {folder.name} has left; to rejoin, use fedreid-pl silo run")


def serve(service: SiloService, link: GrpcLink, over: Event | None = None) -> None:
    """Answers the payloads of a link until `over` is set."""
    while over is None or not over.is_set():
        sent = link.fetch()
        if sent is None:
            continue
        with Beating(link):
            answer = service.answer(sent)
        sent.path.unlink(missing_ok=True)  # the payload of a finished job has moved to the session's folder
        if answer is None:
            time.sleep(PAUSE)
        else:
            link.push(answer, sent.envelope.digest)

"""Lets a silo leave a run: it answers the coordinator's next payload with `left` and does no work."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event

from fedreid_pl.engines.silos.audit import AuditLog
from fedreid_pl.engines.silos.payload import BadPayload, Payload, open_payload, write_payload
from fedreid_pl.engines.silos.service import check_address, reply_to
from fedreid_pl.engines.silos.silo_folder import SiloFolder
from fedreid_pl.engines.silos.transport import Link


class Leaver:
    """Answers a payload of the coordinator with `left`.

    Args:
        folder: folder of the silo.
        say: prints a line for the operator.
    """

    def __init__(self, folder: SiloFolder, say: Callable[[str], None]) -> None:
        self.folder, self.say, self.audit = folder, say, AuditLog(folder.path)

    def answer(self, sent: Payload) -> Payload | None:
        """Returns the answer to a payload, `None` if the payload is not from the silo's coordinator."""
        try:
            header = open_payload(sent, self.folder.invitation.coordinator_key).header
            check_address(header, self.folder)
        except BadPayload as error:
            self.audit.add("ignored", payload=sent.envelope.digest, reason=str(error))
            self.say(f"warning: ignored a payload: {error}")
            return None
        self.audit.add("left", experiment=header.experiment, session=header.session, round=header.round)
        target = self.folder.path / "left.safetensors"
        target.unlink(missing_ok=True)
        return write_payload(target, reply_to(header, self.folder, "left", sent, {}), self.folder.key)


def leave(folder: SiloFolder, link: Link, say: Callable[[str], None], over: Event | None = None) -> bool:
    """Waits for the coordinator's next payload and answers it with `left`.

    Args:
        folder: folder of the silo.
        link: link to the coordinator.
        say: prints a line for the operator.
        over: ends the wait when it is set.

    Returns:
        Whether the coordinator accepted the answer.
    """
    leaver = Leaver(folder, say)
    while over is None or not over.is_set():
        if (sent := link.fetch("")) is None:
            continue
        answer = leaver.answer(sent)
        sent.path.unlink(missing_ok=True)
        if answer is not None:
            taken = link.push(answer, sent.envelope.digest)
            answer.path.unlink(missing_ok=True)
            if taken:
                return True
    return False

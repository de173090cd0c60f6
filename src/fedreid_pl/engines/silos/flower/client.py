"""A silo's end of a federation over Flower. Flower may start a new process for each call."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from fedreid_pl.engines.silos.flower.introduction import introduce
from fedreid_pl.engines.silos.flower.parcel import Parcel, pack, unpack
from fedreid_pl.engines.silos.silo_folder import SiloFolder
from fedreid_pl.errors import FedReIDError, printable

FOLDER, WORDS = "silo-folder", "silo-words"
"""Keys of `--node-config`: the silo's folder, and the operator's settings of data and devices."""
ROOM = 2**30  # bytes of the disk that stay free after a payload is received
Node = Mapping[str, object]
Say = Callable[[str], None]


def answer_question(asked: Parcel, node: int, node_config: Node) -> Parcel:
    """Returns the answer to the coordinator's question which silo this node is, signed with the silo's key.

    Args:
        asked: the coordinator's question.
        node: number of this node.
        node_config: node configuration of the SuperNode.

    Raises:
        BadPayload: if the question is not from the silo's coordinator, or is for another node.
        FedReIDError: if `node_config` names no silo folder.
    """
    return introduce(asked, silo_folder(node_config), node)


def answer_payload(sent: Parcel, node_config: Node, say: Say) -> Parcel:
    """Returns the silo's answer to a payload. The silo saves its state in its own folder, never in Flower's state.

    Args:
        sent: the payload.
        node_config: node configuration of the SuperNode.
        say: prints a line for the operator.

    Raises:
        BadPayload: if the parcel contains no valid payload.
        FedReIDError: if `node_config` is invalid, or another process runs this silo.
    """
    from fedreid_pl.engines.silos.service import SiloService  # Lightning takes seconds: not for a question
    from fedreid_pl.engines.silos.shared import own_config

    folder = silo_folder(node_config)
    lock = folder.lock()
    service = SiloService(folder, own_config(shlex.split(str(node_config.get(WORDS, ""))), folder.name), say)
    spool = folder.path / "spool"
    spool.mkdir(exist_ok=True)
    payload = unpack(sent, spool / "flower.safetensors", max(shutil.disk_usage(spool).free - ROOM, 0))
    try:
        answer = service.answer(payload)
        return Parcel({"failed": "Ignored"}) if answer is None else pack(answer, answers=payload.envelope.digest)
    finally:
        payload.path.unlink(missing_ok=True)  # the payload of a finished job has moved to the session's folder
        del lock


def silo_folder(node_config: Node) -> SiloFolder:
    """Returns the silo's folder that `--node-config` names.

    Raises:
        FedReIDError: if `--node-config` names no silo folder.
    """
    if not node_config.get(FOLDER):
        raise FedReIDError(f'--node-config: has no {FOLDER}; add {FOLDER}="/path/of/the/silo"')
    return SiloFolder(Path(os.path.expanduser(str(node_config[FOLDER]))))


def guarded(work: Callable[[], Parcel], say: Say) -> Parcel:
    """Returns the result of `work`, or a parcel with the type of its error.

    The error's message is printed at this silo and never leaves it: Flower would send it to the server.
    """
    try:
        return work()
    except Exception as error:
        say(f"error: {printable(str(error), 500)}")
        return Parcel({"failed": type(error).__name__})

"""A silo's end of a federation whose payloads travel through Flower. Each call may be the only one of its process."""

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
"""Keys of `--node-config`: the silo's folder, and what its operator says of its data and devices."""
ROOM = 2**30  # bytes of the disk that a payload leaves free
Node = Mapping[str, object]
Say = Callable[[str], None]


def answer_question(asked: Parcel, node: int, node_config: Node) -> Parcel:
    """Returns who this node is, as the silo's key says.

    Args:
        asked: the coordinator's question.
        node: number of this node.
        node_config: of the SuperNode.

    Raises:
        BadPayload: for a question that is not from the silo's coordinator, or is for another node.
        FedReIDError: if no silo's folder is named.
    """
    return introduce(asked, silo_folder(node_config), node)


def answer_payload(sent: Parcel, node_config: Node, say: Say) -> Parcel:
    """Returns the silo's answer to a payload; what a silo keeps is in its own folder, never in Flower's state.

    Args:
        sent: the payload.
        node_config: of the SuperNode.
        say: prints a line for the operator.

    Raises:
        BadPayload: for what is no payload.
        FedReIDError: for a mistake of the operator, and if another process runs this silo.
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
        payload.path.unlink(missing_ok=True)  # a job that was done is in the session's folder by now
        del lock


def silo_folder(node_config: Node) -> SiloFolder:
    """Returns the silo's folder that `--node-config` names.

    Raises:
        FedReIDError: if it names none.
    """
    if not node_config.get(FOLDER):
        raise FedReIDError(f'--node-config: has no {FOLDER}; add {FOLDER}="/path/of/the/silo"')
    return SiloFolder(Path(os.path.expanduser(str(node_config[FOLDER]))))


def guarded(work: Callable[[], Parcel], say: Say) -> Parcel:
    """Returns what `work` returns, or a parcel with the kind of its error.

    The words of an error are printed here and never leave this silo: Flower would send them to the server.
    """
    try:
        return work()
    except Exception as error:
        say(f"error: {printable(str(error), 500)}")
        return Parcel({"failed": type(error).__name__})

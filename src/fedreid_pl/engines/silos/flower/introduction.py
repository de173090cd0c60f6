"""Finds out which node of Flower is which silo: the coordinator asks each node, and the silo signs its answer.

The number of a node does not identify a silo: Flower draws a new number whenever a SuperNode starts. The coordinator
signs the question, which contains a random number for this node. The silo signs the answer. Neither message is valid
for another node or at another time.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from fedreid_pl.engines.silos.cards import COORDINATOR
from fedreid_pl.engines.silos.federation_folder import FederationFolder, Member
from fedreid_pl.engines.silos.flower.parcel import Parcel
from fedreid_pl.engines.silos.keys import verified
from fedreid_pl.engines.silos.payload import BadPayload, canonical
from fedreid_pl.engines.silos.silo_folder import SiloFolder

DOMAIN = b"fedreid_pl introduction 1\0"  # part of the signed bytes: other signatures are invalid


def question(federation: FederationFolder, node: int) -> Parcel:
    """Returns the coordinator's signed question to a node."""
    nonce = secrets.token_hex(16)
    signature = federation.key.sign(_content(COORDINATOR, federation.number, node, nonce))
    return Parcel({"federation": federation.number, "nonce": nonce, "signature": signature})


def introduce(asked: Parcel, silo: SiloFolder, node: int) -> Parcel:
    """Returns a silo's signed answer to the coordinator's question.

    Args:
        asked: the question.
        silo: folder of the silo.
        node: number of the node that the silo's app runs on.

    Raises:
        BadPayload: if the question is not from the silo's coordinator, or is for another node.
    """
    invitation, nonce = silo.invitation, str(asked.note.get("nonce", ""))
    content = _content(COORDINATOR, invitation.federation, node, nonce)
    if not verified(invitation.coordinator_key, str(asked.note.get("signature", "")), content):
        raise BadPayload("the question is not from this silo's coordinator")
    return Parcel(
        {"silo": silo.name, "signature": silo.key.sign(_content(silo.name, invitation.federation, node, nonce))}
    )


def introduced(answer: Parcel, asked: Parcel, members: Mapping[str, Member], node: int) -> str | None:
    """Returns the name of the silo behind a node, `None` if the answer is not signed by a member.

    Args:
        answer: the node's answer.
        asked: the question to the node.
        members: members of the federation by name.
        node: number of the node.
    """
    name = str(answer.note.get("silo", ""))
    if name not in members:
        return None
    content = _content(name, str(asked.note["federation"]), node, str(asked.note["nonce"]))
    return name if verified(members[name].signing_key, str(answer.note.get("signature", "")), content) else None


def _content(sender: str, federation: str, node: int, nonce: str) -> bytes:
    values = {"sender": sender, "federation": federation, "node": str(node), "nonce": nonce}
    return DOMAIN + canonical(values).encode()

"""Which node of Flower is which silo: the coordinator asks, and the silo's key answers.

A node's number says nothing: Flower draws it anew when a SuperNode starts. The question holds a number drawn for
this node, and is signed by the coordinator. The answer is signed by the silo. Neither can be used for another node or
another time.
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

DOMAIN = b"fedreid_pl introduction 1\0"  # a signature of something else is none of an introduction


def question(federation: FederationFolder, node: int) -> Parcel:
    """Returns what the coordinator asks a node."""
    nonce = secrets.token_hex(16)
    signature = federation.key.sign(_content(COORDINATOR, federation.number, node, nonce))
    return Parcel({"federation": federation.number, "nonce": nonce, "signature": signature})


def introduce(asked: Parcel, silo: SiloFolder, node: int) -> Parcel:
    """Returns a silo's answer.

    Args:
        asked: the question.
        silo: folder of the silo.
        node: that the silo's app runs on.

    Raises:
        BadPayload: for a question that is not from the silo's coordinator, or is for another node.
    """
    invitation, nonce = silo.invitation, str(asked.note.get("nonce", ""))
    content = _content(COORDINATOR, invitation.federation, node, nonce)
    if not verified(invitation.coordinator_key, str(asked.note.get("signature", "")), content):
        raise BadPayload("is no question of this silo's coordinator")
    return Parcel(
        {"silo": silo.name, "signature": silo.key.sign(_content(silo.name, invitation.federation, node, nonce))}
    )


def introduced(answer: Parcel, asked: Parcel, members: Mapping[str, Member], node: int) -> str | None:
    """Returns the silo that a node is, `None` for a node that is no member.

    Args:
        answer: of the node.
        asked: the question to it.
        members: of the federation.
        node: its number.
    """
    name = str(answer.note.get("silo", ""))
    if name not in members:
        return None
    content = _content(name, str(asked.note["federation"]), node, str(asked.note["nonce"]))
    return name if verified(members[name].signing_key, str(answer.note.get("signature", "")), content) else None


def _content(sender: str, federation: str, node: int, nonce: str) -> bytes:
    values = {"sender": sender, "federation": federation, "node": str(node), "nonce": nonce}
    return DOMAIN + canonical(values).encode()

"""The two files that operators exchange: a silo's card for the coordinator, and the coordinator's invitation."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from fedreid_pl.bounded import read_bounded
from fedreid_pl.data.scenarios import NO_CAMERAS
from fedreid_pl.engines.silos.keys import MOST_BYTES, SigningKey, fingerprint, verified
from fedreid_pl.engines.silos.payload import canonical
from fedreid_pl.errors import FedReIDError, printable

FORMAT = 1
COORDINATOR = "coordinator"
WRONG = {
    "card": "is not the card of a silo; give the file silo.json that fedreid-pl silo init wrote",
    "invitation": "is not an invitation; save the file that fedreid-pl federation init wrote for this silo",
}
"""What is wrong with a file of another kind, and what to do."""
Kind = TypeVar("Kind", "Card", "Invitation")


@dataclass(frozen=True)
class Card:
    """A silo's public identity, signed with the silo's own key.

    Args:
        name: name of the silo.
        signing_key: public half of the key that signs its payloads, hexadecimal.
        tls_key: public half of the key of its connections, PEM.
        signature: the silo's signature of the other fields.
    """

    name: str
    signing_key: str
    tls_key: str
    signature: str = ""

    @property
    def fingerprint(self) -> str:
        """Returns the fingerprint of the card, which the two operators compare by telephone."""
        return fingerprint(self._content())

    def _content(self) -> bytes:
        return canonical({"name": self.name, "signing_key": self.signing_key, "tls_key": self.tls_key}).encode()


@dataclass(frozen=True)
class Invitation:
    """The coordinator's invitation of a silo; all its fields are public.

    Args:
        silo: name of the invited silo.
        federation: number of the federation.
        coordinator_key: public half of the key that signs jobs, hexadecimal.
        authority: certificate of the federation's own authority, PEM.
        certificate: certificate for the silo's connections, PEM.
        address: `https://HOST:PORT` of the coordinator.
    """

    silo: str
    federation: str
    coordinator_key: str
    authority: str
    certificate: str
    address: str

    @property
    def fingerprint(self) -> str:
        """Returns the fingerprint of the federation's number, key and authority.

        It is equal for all silos; the two operators compare it by telephone.
        """
        return fingerprint("\n".join((self.federation, self.coordinator_key, self.authority)).encode())


def signed_card(name: str, key: SigningKey, tls_key: str) -> Card:
    """Returns a silo's card, signed with `key`."""
    card = Card(check_name(name), key.public, tls_key)
    return Card(name, key.public, tls_key, key.sign(card._content()))


def read_card(path: Path) -> Card:
    """Reads a silo's card.

    Raises:
        FedReIDError: if the file is not a card, or was changed: the signature of its own key is wrong.
    """
    card = _read(path, Card)
    check_name(card.name)
    if not verified(card.signing_key, card.signature, card._content()):
        raise FedReIDError(f"{path}: was changed after silo init wrote it; use the original file")
    return card


def read_invitation(path: Path) -> Invitation:
    """Reads an invitation.

    Raises:
        FedReIDError: if the file is not an invitation.
    """
    return _read(path, Invitation)


def write_public(path: Path, content: Card | Invitation) -> None:
    """Writes a card or an invitation; replaces an earlier file.

    Raises:
        FedReIDError: if the file cannot be written.
    """
    from fedreid_pl.federation.storage import write_text

    kind = type(content).__name__.lower()
    write_text(path, json.dumps({"fedreid_pl": kind, "format": FORMAT, **asdict(content)}, indent=2) + "\n")


def check_name(name: str) -> str:
    """Returns the name if a silo can have it.

    Raises:
        FedReIDError: if the name is not a valid host label, or is reserved.
    """
    reserved = name == COORDINATOR or name.endswith(NO_CAMERAS)
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name) or reserved:
        raise FedReIDError(
            f"name={printable(name)}: a silo's name has up to 63 lower-case letters, digits and hyphens, such as "
            f"hospital-a; {COORDINATOR} and names that end with {NO_CAMERAS} are reserved"
        )
    return name


def _read(path: Path, kind: type[Kind]) -> Kind:
    what = kind.__name__.lower()
    try:
        found: dict[str, Any] = json.loads(read_bounded(path, MOST_BYTES))
        if found.pop("fedreid_pl") != what or found.pop("format") != FORMAT:
            raise ValueError("kind")
        if set(found) != {item.name for item in fields(kind)} or any(type(text) is not str for text in found.values()):
            raise ValueError("fields")
        return kind(**found)
    except OSError as error:
        raise FedReIDError(f"{printable(str(path), 300)}: cannot be read ({error.strerror})") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise FedReIDError(f"{path}: {WRONG[what]}") from error

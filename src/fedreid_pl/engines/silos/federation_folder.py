"""The coordinator's folder of a federation: the list of silos, the authority, the key that signs jobs."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fedreid_pl.bounded import read_bounded
from fedreid_pl.engines.silos import deployment
from fedreid_pl.engines.silos.cards import Card, Invitation, write_public
from fedreid_pl.engines.silos.certificates import Authority, Credentials, public_key_digest
from fedreid_pl.engines.silos.keys import MOST_BYTES, SigningKey, write_private
from fedreid_pl.engines.silos.silo_folder import locked
from fedreid_pl.errors import FedReIDError, nearest, printable
from fedreid_pl.federation.storage import write_text

NAME, AUTHORITY_KEY, AUTHORITY, SIGNING = "federation.json", "ca.pem", "ca.crt", "signing.pem"
FORMAT, PORT, MOST_SILOS = 1, 8443, 1000


@dataclass(frozen=True)
class Member:
    """The coordinator's record of a silo.

    Args:
        name: name of the silo and of its client.
        signing_key: public half of the key that signs the silo's answers, hexadecimal.
        tls_key_sha256: SHA-256 of the public key of the silo's connections.
        fingerprint: fingerprint of the silo's card.
        revoked: whether the silo may no longer join.
    """

    name: str
    signing_key: str
    tls_key_sha256: str
    fingerprint: str
    revoked: bool = False


class FederationFolder:
    """A folder that `federation init` has created.

    Args:
        path: the folder.

    Raises:
        FedReIDError: if the folder is not a federation's, or `federation.json` is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number, self.host, self.port, self.listen, self._members = self._read()

    @classmethod
    def new(cls, path: Path, host: str, port: int, cards: Sequence[Card], listen: str = "") -> FederationFolder:
        """Creates the folder, draws the authority and the key that signs jobs, and writes an invitation for each card.

        Args:
            path: the folder.
            host, port: host and port of the coordinator that silos connect to.
            cards: cards of the silos.
            listen: address to listen on if it differs from `host`, such as 127.0.0.1 behind a proxy.

        Raises:
            FedReIDError: if the folder already belongs to a federation, or cannot be written.
        """
        if (path / NAME).exists() or (path / SIGNING).exists():
            raise FedReIDError(
                f"out={path}: is a federation's folder already; add silos with fedreid-pl federation add"
            )
        _with_cards({}, cards)  # raises for invalid cards before any file is written
        number = secrets.token_hex(8)
        authority, key = Authority.new(number)
        authority.for_coordinator([host])  # raises for an invalid host before any file is written
        try:
            path.mkdir(parents=True, exist_ok=True)
            os.chmod(path, 0o700)
        except OSError as error:
            raise FedReIDError(f"out={path}: cannot be created ({error.strerror})") from error
        write_private(path / AUTHORITY_KEY, key)
        write_text(path / AUTHORITY, authority.pem.decode())
        SigningKey.new().save(path / SIGNING)
        target = f"{host}:{port}"
        write_text(path / "nginx.conf", deployment.NGINX.format(folder=path.resolve(), target=target))
        service = deployment.COORDINATOR_SERVICE.format(folder=path.resolve())
        write_text(path / "fedreid-coordinator.service", service)
        _write(path, (number, host, port, listen), {})
        folder = cls(path)
        folder.add(cards)
        return folder

    @property
    def members(self) -> dict[str, Member]:
        """Returns the silos that may join, by name, in the order in which they were added."""
        return {name: member for name, member in self._members.items() if not member.revoked}

    @property
    def everybody(self) -> dict[str, Member]:
        """Returns all silos by name, including revoked silos."""
        return dict(self._members)

    @cached_property
    def key(self) -> SigningKey:
        """Returns the key that signs jobs."""
        return SigningKey.load(self.path / SIGNING)

    @cached_property
    def authority(self) -> Authority:
        """Returns the authority that signs the certificates of this federation."""
        try:
            parts = [read_bounded(self.path / name, MOST_BYTES) for name in (AUTHORITY_KEY, AUTHORITY)]
        except OSError as error:
            raise FedReIDError(f"{self.path}: the authority cannot be read ({error.strerror})") from error
        return Authority(*parts)

    @property
    def address(self) -> str:
        """Returns the address that silos connect to, `https://HOST:PORT`."""
        return f"https://{self.host}:{self.port}"

    def credentials(self) -> Credentials:
        """Returns a new key and certificate for the coordinator's port; they stay in memory and are never saved."""
        return self.authority.for_coordinator([self.host])

    def reload(self) -> None:
        """Reads the list of silos from the file again."""
        self._members = self._read()[-1]

    def member_of_key(self, tls_key_sha256: str) -> Member | None:
        """Returns the silo that owns the key of a connection, `None` for an unknown key or a revoked silo."""
        return next((found for found in self.members.values() if found.tls_key_sha256 == tls_key_sha256), None)

    def add(self, cards: Sequence[Card]) -> None:
        """Adds silos and writes `invitations/NAME.json` for each. A known silo gets a new certificate.

        Raises:
            FedReIDError: if a member with the same name has another key, or a member with another name the same key.
        """
        members = _with_cards(self._members, cards)
        (self.path / "invitations").mkdir(exist_ok=True)
        for card in cards:
            certificate = self.authority.for_silo(card.name, card.tls_key)
            parts = (card.name, self.number, self.key.public, self.authority.pem.decode(), certificate, self.address)
            write_public(self.path / "invitations" / f"{card.name}.json", Invitation(*parts))
        self._save(members)

    def revoke(self, name: str) -> None:
        """Revokes a silo: the coordinator rejects its next call, without a restart.

        Raises:
            FedReIDError: if the federation has no silo with this name.
        """
        if name not in self._members:
            raise FedReIDError(f"name={printable(name)}: no such silo{nearest(name, list(self._members))}")
        self._save({**self._members, name: replace(self._members[name], revoked=True)})

    def lock(self) -> object:
        """Locks the federation: no other coordinator can start until the returned object is dropped.

        Raises:
            FedReIDError: if another process already coordinates this federation.
        """
        return locked(self.path, "another process coordinates this federation; wait for it")

    def next_launch(self) -> int:
        """Returns a number that grows with every start of a coordinator; it prevents the replay of old experiments."""
        file = self.path / "launches"
        try:
            number = 1 + int(file.read_text(encoding="ascii")) if file.exists() else 1
        except (OSError, ValueError) as error:
            raise FedReIDError(
                f"{file}: cannot be read; write a number above all earlier ones into the file"
            ) from error
        write_text(file, f"{number}\n")
        return number

    def _save(self, members: dict[str, Member]) -> None:
        _write(self.path, (self.number, self.host, self.port, self.listen), members)
        self._members = members

    def _read(self) -> tuple[str, str, int, str, dict[str, Member]]:
        file = self.path / NAME
        try:
            found: dict[str, Any] = json.loads(read_bounded(file, 8 * 2**20))
            members = [Member(**item) for item in found["silos"]]
            number, host, port, listen = (found[name] for name in ("number", "host", "port", "listen"))
            if (
                found["format"] != FORMAT
                or not re.fullmatch(r"[0-9a-f]{16}", number)
                or type(host) is not str
                or type(listen) is not str
            ):
                raise ValueError("fields")
            if type(port) is not int or any(type(item.name) is not str for item in members):
                raise ValueError("fields")
        except FileNotFoundError as error:
            raise FedReIDError(
                f"federation={self.path}: is not a federation's folder; check the path, or create a federation with "
                "fedreid-pl federation init"
            ) from error
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise FedReIDError(f"{file}: is not a valid file of federation init; restore it from a backup") from error
        return number, host, port, listen, {item.name: item for item in members}


def _write(path: Path, place: tuple[str, str, int, str], members: dict[str, Member]) -> None:
    content = {"format": FORMAT, **dict(zip(("number", "host", "port", "listen"), place, strict=True))}
    silos = [asdict(member) for member in members.values()]
    write_text(path / NAME, json.dumps({**content, "silos": silos}, indent=2) + "\n")


def _with_cards(members: Mapping[str, Member], cards: Sequence[Card]) -> dict[str, Member]:
    """Returns the members with a member for each card; a known silo is no longer revoked.

    Raises:
        FedReIDError: if two cards have the same name, if a member with the same name has another key, or if another
            member has the same key.
    """
    found = dict(members)
    for card in cards:
        if sum(card.name == other.name for other in cards) > 1:
            raise FedReIDError(
                f"silo {card.name}: two of the cards have this name; list each silo once, and give each its own name"
            )
        member = Member(card.name, card.signing_key, public_key_digest(card.tls_key), card.fingerprint)
        known = found.get(card.name)
        if known is not None and replace(known, revoked=False) != member:
            raise FedReIDError(f"silo {card.name}: is a member with another key; give the new silo another name")
        for other in found.values():
            same = other.signing_key == member.signing_key or other.tls_key_sha256 == member.tls_key_sha256
            if other.name != card.name and same:
                raise FedReIDError(f"silo {card.name}: {other.name} has the same key; each silo needs its own key")
        found[card.name] = member
    if len(found) > MOST_SILOS:
        raise FedReIDError(f"silos: {len(found)} are more than {MOST_SILOS}")
    return found

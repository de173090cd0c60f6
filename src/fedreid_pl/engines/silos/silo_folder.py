"""A silo's folder: its keys, policy, invitation, audit log and the state of its client."""

from __future__ import annotations

import fcntl
import json
import os
from datetime import datetime
from functools import cached_property
from pathlib import Path

from fedreid_pl.bounded import read_bounded
from fedreid_pl.engines.silos import audit, deployment
from fedreid_pl.engines.silos.cards import Card, Invitation, read_card, read_invitation, signed_card, write_public
from fedreid_pl.engines.silos.certificates import (
    Credentials,
    check_authority,
    check_certificate,
    key_digest,
    new_tls_key,
    public_half,
    public_key_digest,
)
from fedreid_pl.engines.silos.keys import MOST_BYTES, SigningKey, write_private
from fedreid_pl.engines.silos.policy import NAME as POLICY
from fedreid_pl.engines.silos.policy import TEXT, Policy, read_policy
from fedreid_pl.errors import FedReIDError, printable
from fedreid_pl.federation.storage import write_text

SIGNING, TLS, CARD, INVITATION, LAUNCH = "signing.pem", "tls.pem", "silo.json", "invitation.json", "launch.json"


class SiloFolder:
    """A folder that `silo init` has created, with the coordinator's invitation once that is saved there.

    Args:
        path: the folder.

    Raises:
        FedReIDError: if it is not the folder of a silo.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not (path / CARD).is_file():
            raise FedReIDError(
                f"{path}: is not a silo's folder; check the path, or create a silo with fedreid-pl silo init "
                "out=FOLDER name=NAME"
            )
        self.card: Card = read_card(path / CARD)
        self.name = self.card.name

    @classmethod
    def new(cls, path: Path, name: str) -> SiloFolder:
        """Creates a silo's folder: draws its keys, and writes a policy and the files of its service.

        Raises:
            FedReIDError: if the folder already belongs to a silo, or cannot be written.
        """
        if (path / CARD).exists() or (path / SIGNING).exists():
            raise FedReIDError(f"out={path}: is a silo's folder already; choose another folder")
        key, (tls, public) = SigningKey.new(), new_tls_key()
        card = signed_card(name, key, public)  # checks the name
        try:
            path.mkdir(parents=True, exist_ok=True)
            os.chmod(path, 0o700)
        except OSError as error:
            raise FedReIDError(f"out={path}: cannot be created ({error.strerror})") from error
        key.save(path / SIGNING)
        write_private(path / TLS, tls)
        write_text(path / POLICY, TEXT)
        write_text(path / "fedreid-silo.service", deployment.SILO_SERVICE.format(folder=path.resolve(), name=name))
        write_text(path / "Containerfile", deployment.CONTAINERFILE)
        write_public(path / CARD, card)  # last: the card marks a complete folder
        return cls(path)

    @cached_property
    def key(self) -> SigningKey:
        """Returns the key that signs this silo's answers."""
        return SigningKey.load(self.path / SIGNING)

    @property
    def policy(self) -> Policy:
        """Returns the operator's current policy; reads the file at every access."""
        return read_policy(self.path / POLICY)

    @cached_property
    def invitation(self) -> Invitation:
        """Returns the coordinator's invitation.

        Raises:
            FedReIDError: if the invitation is missing, or invites another silo.
        """
        file = self.path / INVITATION
        if not file.is_file():
            raise FedReIDError(
                f"{file}: is missing; give {self.path / CARD} to the coordinator, who returns a file "
                f"invitations/{self.name}.json, and save that file as {file}"
            )
        found = read_invitation(file)
        if found.silo != self.name:
            raise FedReIDError(
                f"{file}: invites {printable(found.silo)}, but this silo is {self.name}; ask the coordinator for "
                f"invitations/{self.name}.json"
            )
        try:
            own = key_digest(found.certificate.encode()) == public_key_digest(self.card.tls_key)
        except ValueError as error:
            raise FedReIDError(f"{file}: contains no certificate; ask the coordinator for the file again") from error
        if not own:
            raise FedReIDError(f"{file}: its certificate is not for this silo's key; send the card to the coordinator")
        return found

    @property
    def credentials(self) -> Credentials:
        """Returns the key and the certificates of this silo's connections."""
        try:
            key = read_bounded(self.path / TLS, MOST_BYTES)
        except OSError as error:
            raise FedReIDError(f"{self.path / TLS}: cannot be read ({error.strerror})") from error
        return Credentials(key, self.invitation.certificate.encode(), self.invitation.authority.encode())

    def check_keys(self) -> None:
        """Checks that the private keys in the folder are those of the card.

        Raises:
            FedReIDError: if a key is missing, damaged, or belongs to another card.
        """
        try:
            own = public_key_digest(public_half(read_bounded(self.path / TLS, MOST_BYTES)))
        except (OSError, ValueError) as error:
            raise FedReIDError(f"{self.path / TLS}: contains no readable key; restore the file") from error
        for name, same in (
            (SIGNING, self.key.public == self.card.signing_key),
            (TLS, own == public_key_digest(self.card.tls_key)),
        ):
            if not same:
                raise FedReIDError(f"{self.path / name}: is not the key of {self.path / CARD}; restore the file")

    def check_certificate(self) -> datetime:
        """Returns the time at which the certificate in the invitation expires.

        Raises:
            FedReIDError: if the certificate is not valid now, or its authority is damaged.
        """
        end = check_certificate(self.invitation.certificate.encode())
        try:
            check_authority(self.invitation.authority.encode(), self.invitation.certificate.encode())
        except ValueError as error:
            raise FedReIDError(
                f"{self.path / INVITATION}: its authority does not belong to its certificate; ask the coordinator for "
                "the file again"
            ) from error
        return end

    def newest_launch(self) -> tuple[int, str]:
        """Returns launch number and digest of the newest experiment that this silo has joined.

        Raises:
            FedReIDError: if `launch.json` is damaged, or is missing although the silo has joined an experiment.
        """
        file, advice = self.path / LAUNCH, "restore the file, or create a new silo"
        try:
            launch, digest = json.loads(file.read_text(encoding="utf-8"))
            return int(launch), str(digest)
        except FileNotFoundError as error:
            if not audit.contains(self.path / audit.NAME, "joined"):
                return 0, ""
            raise FedReIDError(
                f"{file}: is missing; without it an old experiment could be replayed: {advice}"
            ) from error
        except (OSError, ValueError, TypeError) as error:
            raise FedReIDError(
                f"{file}: cannot be read; without it an old experiment could be replayed: {advice}"
            ) from error

    def lock(self) -> object:
        """Locks the silo: no other process can run it until the returned object is dropped.

        Raises:
            FedReIDError: if another process already runs this silo.
        """
        return locked(self.path, "another process runs this silo; stop that one first")


def locked(folder: Path, taken: str) -> object:
    """Locks `folder/.lock` until the returned object is dropped or the process ends.

    Raises:
        FedReIDError: with the text `taken` if another process holds the lock.
    """
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.fdopen(os.open(folder / ".lock", flags, 0o600), "r+b")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise FedReIDError(f"{folder}: {taken}") from error
    except OSError as error:
        raise FedReIDError(f"{folder}: cannot be written ({error.strerror})") from error
    return file

"""Ed25519 keys, which sign payloads and check signatures."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedreid_pl.bounded import read_bounded
from fedreid_pl.errors import FedReIDError

MOST_BYTES = 64 * 1024  # largest size of a file with keys or certificates, in bytes


class SigningKey:
    """A party's private key for signatures; its public half identifies the party.

    >>> key = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))
    >>> verified(key.public, key.sign(b"round 3"), b"round 3"), verified(key.public, key.sign(b"round 3"), b"round 4")
    (True, False)
    """

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.public = raw.hex()

    @classmethod
    def new(cls) -> SigningKey:
        """Returns a new random key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """Reads a private key from a PEM file.

        Raises:
            FedReIDError: if the file is missing or contains no Ed25519 key.
        """
        try:
            key = serialization.load_pem_private_key(read_bounded(path, MOST_BYTES), None)
        except (OSError, ValueError, TypeError) as error:
            raise FedReIDError(f"{path}: contains no readable key; restore the file, or create a new folder") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise FedReIDError(f"{path}: contains a key that is not an Ed25519 key")
        return cls(key)

    def save(self, path: Path) -> None:
        """Writes the private key to a new file that only its owner can read."""
        write_private(path, pem_of(self._key))

    def sign(self, content: bytes) -> str:
        """Returns the signature of `content`, hexadecimal."""
        return self._key.sign(content).hex()


def verified(public: str, signature: str, content: bytes) -> bool:
    """Returns whether the owner of a public key signed `content`; `False` for an invalid key or signature."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(bytes.fromhex(signature), content)
    except (InvalidSignature, ValueError):
        return False
    return True


def fingerprint(content: bytes) -> str:
    """Returns the first 32 digits of a SHA-256 in groups of four, which two people can compare by telephone.

    >>> fingerprint(b"card")
    '8367-cd66-fdd1-36bb-a8ba-23f8-805b-b050'
    """
    digits = hashlib.sha256(content).hexdigest()[:32]
    return "-".join(digits[start : start + 4] for start in range(0, 32, 4))


def pem_of(key: object) -> bytes:
    """Returns a private key as PEM, without a password."""
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption())  # type: ignore[attr-defined]


def write_private(path: Path, content: bytes) -> None:
    """Writes a new file that only its owner can read.

    Raises:
        FedReIDError: if the file already exists or the folder cannot be written.
    """
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            os.fsync(file.fileno())
    except OSError as error:
        raise FedReIDError(f"{path}: cannot be written ({error.strerror})") from error

"""Records the pictures that a silo has trained on in a session, and rejects them as test pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fedreid_pl.bounded import read_bounded
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.data.file_digests import SIZE
from fedreid_pl.errors import FedReIDError, counted
from fedreid_pl.federation.storage import write_bytes

TRAINED = "trained"
"""Name of the file in a session's folder with the SHA-256 of every training picture so far, 32 bytes each."""
MOST = 32 * 2**26
"""Largest size of this file in bytes."""


def check_trained(file: Path, data: FederatedData, keys: Mapping[str, bytes], begun: bool) -> None:
    """Checks that no test picture was a training picture before, and records the current training pictures.

    The check compares the pictures' bytes, so that a renamed picture is found too.

    Args:
        file: path of `TRAINED` in the session's folder.
        data: current data of the silo.
        keys: SHA-256 of every picture by its path, see `data.overlap.byte_keys`.
        begun: whether this session has trained already; otherwise an earlier record is ignored.

    Raises:
        FedReIDError: if test pictures were training pictures (the message gives their number and one path), or if
            the record cannot be read.
    """
    try:
        noted = read_bounded(file, MOST) if begun and file.exists() else b""
    except OSError as error:
        raise FedReIDError(f"{file}: cannot be read ({error.strerror}); restore the file") from error
    if len(noted) % SIZE:
        raise FedReIDError(f"{file}: is damaged; restore the file")
    trained = {noted[start : start + SIZE] for start in range(0, len(noted), SIZE)}
    tests = {path for test in data.tests.values() for table in (test.query, test.gallery) for path in table.files()}
    found = sorted(path for path in tests if keys.get(path) in trained)
    if found:
        raise FedReIDError(
            f"this run was trained on {counted(len(found), 'picture')} that the test sets contain now, such as "
            f"{found[0]}; make them training pictures again. If the split was drawn, copy {file.parent}/splits/NAME.csv"
            " into the dataset's folder as samples.csv and add the new pictures to it"
        )
    trained |= {keys[path] for client in data.clients.values() for path in client.train.files() if path in keys}
    write_bytes(file, b"".join(sorted(trained - {bytes(SIZE)})))

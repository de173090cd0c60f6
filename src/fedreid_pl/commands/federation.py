"""Implements `fedreid-pl federation`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fedreid_pl.commands.words import check_extra, take
from fedreid_pl.errors import FedReIDError, counted, nearest, printable

HELP = """\
fedreid-pl federation init out=FED silos=FILE,FILE,... host=HOST[:PORT] [listen=ADDRESS]
    Creates the folder of the coordinator: a certificate authority, the key that signs jobs, an invitation for every
    silo, and files for nginx and for a service. FILE is the silo.json of a silo. HOST is the address that silos call.
fedreid-pl federation add FED silos=FILE,FILE,...    add silos, or renew the certificates of known silos
fedreid-pl federation revoke FED name=NAME           exclude a silo from now on
fedreid-pl federation status FED                     list the silos: last seen, state, traffic, refused messages
fedreid-pl train exp=NAME engine=silos federation=FED min_clients=2 [KEY=VALUE ...]
    Runs an experiment with the silos as clients.
"""


def federation(words: list[str]) -> int:
    """Creates, changes or shows a federation."""
    commands = {"init": _init, "add": _add, "revoke": _revoke, "status": _status}
    if not words:
        print(HELP, end="")
        return 0
    command, *rest = words
    if command not in commands:
        raise FedReIDError(f"federation {command}: no such command{nearest(command, list(commands))}")
    check_extra("silos", "cryptography", "grpc")
    return commands[command](rest)


def _init(words: list[str]) -> int:
    options, rest = take(words, "out", "silos", "host", "listen")
    if rest or not {"out", "silos", "host"} <= set(options):
        raise FedReIDError(
            "federation init: write fedreid-pl federation init out=FOLDER silos=FILE,FILE host=HOST:PORT, with the "
            "silo.json of every silo"
        )
    from fedreid_pl.engines.silos.cards import read_card
    from fedreid_pl.engines.silos.federation_folder import FederationFolder

    host, port = _place(options["host"])
    cards = [read_card(path) for path in _files(options["silos"])]
    folder = Path(os.path.expanduser(options["out"]))
    made = FederationFolder.new(folder, host, port, cards, options.get("listen", ""))
    print(f"federation   {made.number}, {counted(len(made.members), 'silo')}, {made.address}")
    _print_members(made)
    return 0


def _add(words: list[str]) -> int:
    options, rest = take(words, "silos")
    if len(rest) != 1 or set(options) != {"silos"}:
        raise FedReIDError("federation add: write fedreid-pl federation add FED silos=FILE,FILE")
    from fedreid_pl.engines.silos.cards import read_card
    from fedreid_pl.engines.silos.federation_folder import FederationFolder

    folder = FederationFolder(Path(os.path.expanduser(rest[0])))
    folder.add([read_card(path) for path in _files(options["silos"])])
    _print_members(folder)
    return 0


def _revoke(words: list[str]) -> int:
    options, rest = take(words, "name")
    if len(rest) != 1 or set(options) != {"name"}:
        raise FedReIDError("federation revoke: write fedreid-pl federation revoke FED name=NAME")
    from fedreid_pl.engines.silos.federation_folder import FederationFolder

    FederationFolder(Path(os.path.expanduser(rest[0]))).revoke(options["name"])
    print(f"{options['name']} is revoked and can no longer join; a running coordinator refuses its next call")
    return 0


def _status(words: list[str]) -> int:
    if len(words) != 1 or "=" in words[0]:
        raise FedReIDError("federation status: write fedreid-pl federation status FED")
    from fedreid_pl.engines.silos.federation_folder import FederationFolder
    from fedreid_pl.engines.silos.status import status_rows
    from fedreid_pl.reporting.tables import text_table
    from fedreid_pl.reporting.terminal import columns

    line, rows = status_rows(FederationFolder(Path(os.path.expanduser(words[0]))))
    header = ["silo", "last seen", "state", "MiB sent", "MiB received", "refused"]
    print(line)
    print(text_table(header, rows, left=3, width=columns(sys.stdout)))
    return 0


def _print_members(folder: object) -> None:
    from fedreid_pl.engines.silos.cards import read_invitation
    from fedreid_pl.engines.silos.federation_folder import FederationFolder

    assert isinstance(folder, FederationFolder)
    for name, member in folder.members.items():
        print(f"{name:<13}{member.fingerprint}  give {folder.path / 'invitations' / name}.json to this silo")
    invitations = [folder.path / "invitations" / f"{name}.json" for name in folder.members]
    if invitations:
        print(f"Fingerprint of the federation, the same for every silo: {read_invitation(invitations[0]).fingerprint}")
    print(
        "Compare all fingerprints by telephone. Then: fedreid-pl train exp=fedpav_rw engine=silos min_clients=2 "
        f"federation={folder.path}"
    )


def _files(text: str) -> list[Path]:
    """Returns the files in the value of `silos=A,B`; for a folder, the silo.json in it."""
    paths = [Path(os.path.expanduser(part.strip())) for part in text.strip("[]").split(",") if part.strip()]
    if not paths:
        raise FedReIDError("silos=: name the silo.json of every silo, silos=FILE,FILE")
    for path in paths:
        if path.is_dir() and not (path / "silo.json").exists():
            raise FedReIDError(
                f"silos={printable(str(path), 300)}: is a folder without silo.json; name the files in it"
            )
    return [path / "silo.json" if path.is_dir() else path for path in paths]


def _place(text: str) -> tuple[str, int]:
    """Returns host and port of the value of `host=HOST[:PORT]`."""
    from fedreid_pl.engines.silos.federation_folder import PORT
    from fedreid_pl.engines.silos.grpc_link import target_of

    try:
        host, _, port = target_of(text if "://" in text else f"https://{text}").rpartition(":")
    except FedReIDError as error:
        raise FedReIDError(
            f"host={printable(text)}: is not HOST or HOST:PORT; give the address that silos call, such as "
            f"host=fl.example.org:{PORT}"
        ) from error
    host = host.strip("[]")
    if host in ("0.0.0.0", "::"):
        raise FedReIDError(
            f"host={printable(text)}: silos cannot call this address; give the name or the address of this machine"
        )
    named = text.rstrip("/").endswith(f":{port}")
    return host, int(port) if named else PORT

"""Implements `fedreid-pl silo`."""

from __future__ import annotations

import os
from pathlib import Path

from fedreid_pl.commands.words import check_extra, take, take_log
from fedreid_pl.errors import FedReIDError, nearest

HELP = """\
fedreid-pl silo init out=SILO name=NAME
    Creates the folder of a silo: keys, a policy and files to run it as a service. Give SILO/silo.json to the
    coordinator, and compare the printed fingerprint by telephone. The coordinator returns an invitation; save it as
    SILO/invitation.json.
fedreid-pl silo check SILO data.root=FOLDER [data=NAME] [data.datasets=[NAME]] [coordinator=https://HOST:PORT]
    Checks the keys, policy, invitation, certificate, data, disk space, versions, connection and clock of a silo.
fedreid-pl silo run SILO data.root=FOLDER [data=NAME] [data.datasets=[NAME]] [coordinator=https://HOST:PORT]
    Joins the experiments of the coordinator that SILO/policy.yaml allows, until you stop it. Prints every experiment
    before it joins. SILO/audit.jsonl records every job and every update. With
    log=json, writes one JSON object per line to stderr, without paths, names of pictures or persons.
fedreid-pl silo leave SILO [coordinator=https://HOST:PORT]
    Removes this silo from the current run; the run continues without it. Stop `silo run` first. To join again, also
    with other pictures, start `silo run`.
"""


def silo(words: list[str]) -> int:
    """Creates, checks or runs a silo, or removes it from a run."""
    commands = {"init": _init, "check": _check, "run": _run, "leave": _leave}
    if not words:
        print(HELP, end="")
        return 0
    command, *rest = words
    if command not in commands:
        raise FedReIDError(f"silo {command}: no such command{nearest(command, list(commands))}")
    check_extra("silos", "cryptography", "grpc")
    return commands[command](rest)


def _init(words: list[str]) -> int:
    options, rest = take(words, "out", "name")
    if rest or set(options) != {"out", "name"}:
        raise FedReIDError("silo init: write fedreid-pl silo init out=FOLDER name=NAME, such as name=hospital-a")
    from fedreid_pl.engines.silos.silo_folder import SiloFolder

    made = SiloFolder.new(Path(os.path.expanduser(options["out"])), options["name"])
    print(f"silo         {made.name}")
    print(f"fingerprint  {made.card.fingerprint}")
    print(f"Send {made.path / 'silo.json'} to the coordinator, and compare the fingerprint by telephone.")
    print(f"Save the invitation that the coordinator returns as {made.path / 'invitation.json'}.")
    print(f"Read and edit {made.path / 'policy.yaml'}: this file states what the silo allows.")
    print(f"Then: fedreid-pl silo check {made.path} data.root=FOLDER")
    return 0


def _check(words: list[str]) -> int:
    folder, rest, address = _folder(words, "check")
    from fedreid_pl.engines.silos.check import check_silo
    from fedreid_pl.engines.silos.silo_folder import SiloFolder

    wrong = []
    for name, well, found in check_silo(SiloFolder(folder), rest, address):
        print(f"{'ok' if well else 'no':<4}{name:<13}{found}", flush=True)
        wrong += [] if well else [name]
    if wrong:
        raise FedReIDError(f"silo check: failed checks: {', '.join(wrong)}; see the lines above")
    print(f"\nThis silo can join: fedreid-pl silo run {folder} {' '.join(rest)}".rstrip())
    return 0


def _run(words: list[str]) -> int:
    as_json, words = take_log(words)
    folder, rest, address = _folder(words, "run")
    from fedreid_pl.engines.silos.log_lines import JsonLog, logged
    from fedreid_pl.engines.silos.runner import run_silo
    from fedreid_pl.engines.silos.silo_folder import SiloFolder
    from fedreid_pl.reporting.terminal import say

    silo = SiloFolder(folder)
    if not as_json:
        run_silo(silo, rest, address, say)
        return 0
    events = JsonLog(silo.invitation.federation, silo.name)
    return logged(events, silo.path, lambda: run_silo(silo, rest, address, say, events))


def _leave(words: list[str]) -> int:
    folder, rest, address = _folder(words, "leave")
    if rest:
        raise FedReIDError(f"silo leave: unknown word {rest[0]}; write fedreid-pl silo leave SILO")
    from fedreid_pl.engines.silos.runner import leave_run
    from fedreid_pl.engines.silos.silo_folder import SiloFolder
    from fedreid_pl.reporting.terminal import say

    leave_run(SiloFolder(folder), address, say)
    return 0


def _folder(words: list[str], command: str) -> tuple[Path, list[str], str]:
    options, rest = take(words, "coordinator")
    plain = [word for word in rest if "=" not in word]
    if len(plain) != 1:
        more = "" if command == "leave" else " data.root=FOLDER"
        raise FedReIDError(f"silo {command}: name the silo's folder, fedreid-pl silo {command} SILO{more}")
    return (
        Path(os.path.expanduser(plain[0])),
        [word for word in rest if word not in plain],
        options.get("coordinator", ""),
    )

"""Mistakes of operators: each prints one error line that says what is wrong, where and what to do."""

from __future__ import annotations

import configparser
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from silos.parties import coordinator_words, make_parties, silo_words
from silos.place import Place
from silos.wire import free_port

from fedreid_pl import cli
from fedreid_pl.cli import main
from fedreid_pl.engines.silos.audit import AuditLog
from fedreid_pl.engines.silos.cards import read_invitation, write_public
from fedreid_pl.engines.silos.certificates import Authority
from fedreid_pl.engines.silos.federation_folder import FederationFolder
from fedreid_pl.engines.silos.grpc_link import GrpcLink
from fedreid_pl.engines.silos.silo_folder import SiloFolder
from fedreid_pl.errors import FedReIDError

A = "mini-viper"
Parties = tuple[FederationFolder, dict[str, SiloFolder]]


def certify(parties: Parties, authority: Authority | None = None, days: float = 397) -> None:
    """Replaces the certificate in the invitation of A."""
    federation, silos = parties
    file = silos[A].path / "invitation.json"
    certificate = (authority or federation.authority).for_silo(A, silos[A].card.tls_key, days)
    write_public(file, replace(read_invitation(file), certificate=certificate))


def swap(parties: Parties, name: str) -> None:
    """Replaces a file in the folder of A by the file of the other silo."""
    shutil.copyfile(parties[1]["other"].path / name, parties[1][A].path / name)


def write(parties: Parties, name: str, text: str) -> None:
    (parties[1][A].path / name).write_text(text)


def forget(parties: Parties) -> None:
    """The silo has joined an experiment, and launch.json is lost."""
    AuditLog(parties[1][A].path).add("joined")


def damage_authority(parties: Parties) -> None:
    file = parties[1][A].path / "invitation.json"
    write_public(file, replace(read_invitation(file), authority="x"))


MISTAKES: dict[str, tuple[Callable[[Parties], object], str]] = {
    "expired": (lambda parties: certify(parties, days=-1), "the certificate expired on "),
    "other authority": (
        lambda parties: certify(parties, Authority.new("0" * 16)[0]),
        "invitation.json: its authority does not belong to its certificate; ask the coordinator",
    ),
    "damaged authority": (damage_authority, "invitation.json: its authority does not belong to its certificate"),
    "damaged tls.pem": (lambda parties: write(parties, "tls.pem", "x"), "tls.pem: contains no readable key; restore"),
    "tls.pem of another": (lambda parties: swap(parties, "tls.pem"), "tls.pem: is not the key of"),
    "signing.pem of another": (lambda parties: swap(parties, "signing.pem"), "signing.pem: is not the key of"),
    "damaged signing.pem": (lambda parties: write(parties, "signing.pem", "x"), "signing.pem: "),
    "invitation of another": (
        lambda parties: swap(parties, "invitation.json"),
        f"invites other, but this silo is {A}; ask the coordinator for invitations/{A}.json",
    ),
    "card as invitation": (
        lambda parties: write(parties, "invitation.json", (parties[1][A].path / "silo.json").read_text()),
        "invitation.json: is not an invitation; save the file that fedreid-pl federation init wrote",
    ),
    "damaged launch.json": (lambda parties: write(parties, "launch.json", "x"), "launch.json: cannot be read; without"),
    "lost launch.json": (forget, "launch.json: is missing; without it an old experiment could be replayed"),
    "unknown policy key": (
        lambda parties: write(parties, "policy.yaml", "rounds: 3\n"),
        "line 1: unknown key 'rounds'",
    ),
    "altered audit log": (lambda parties: write(parties, "audit.jsonl", "{}\n"), "audit.jsonl, line 1: was altered"),
}


def error_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Runs a command that fails and returns its error line, which is the only line on stderr."""
    capsys.readouterr()
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("mistake", MISTAKES)
def test_silo_run_ends_before_it_calls_the_coordinator(
    mistake: str, tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parties = make_parties(tmp_path, [A, "other"], port=free_port())
    change, named = MISTAKES[mistake]
    change(parties)
    assert named in error_line(["silo", "run", str(parties[1][A].path), *silo_words(tiny_root, A)], capsys)


def test_a_silo_without_a_folder_of_pictures_draws_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEDREID_PL_CACHE", str(tmp_path / "cache"))
    _, silos = make_parties(tmp_path, [A, "other"], port=free_port())
    line = error_line(["silo", "run", str(silos[A].path)], capsys)
    assert "data.root: is missing; give the folder of this silo's pictures" in line
    assert not (tmp_path / "cache").exists()


def test_silo_check_names_the_cause_once(tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parties = make_parties(tmp_path, [A, "other"], port=free_port())
    words = ["silo", "check", str(parties[1][A].path), *silo_words(tiny_root, A)]
    for change, cause, others in (
        (lambda: certify(parties, days=-1), "certificate", ["coordinator"]),
        (lambda: swap(parties, "invitation.json"), "invitation", ["certificate", "coordinator"]),
    ):
        change()
        assert main(words) == 2
        printed = capsys.readouterr()
        found = {line[4:16].strip(): line[17:] for line in printed.out.splitlines() if line.startswith("no  ")}
        assert list(found) == [cause, *others]
        assert all(found[name] == f"not checked, because of the check of {cause}" for name in others)
        assert f"failed checks: {', '.join([cause, *others])}" in printed.err


def test_a_silo_whose_certificate_expires_while_it_runs_ends(tmp_path: Path) -> None:
    parties = make_parties(tmp_path, [A, "other"], port=free_port())
    certify(parties, days=-1)
    link = GrpcLink(parties[0].address, SiloFolder(parties[1][A].path).credentials, tmp_path / "spool", print)
    with pytest.raises(FedReIDError, match="the certificate expired on "):
        link.fetch()
    link.close()


def test_leaving_without_a_coordinator_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    federation, silos = make_parties(tmp_path, [A, "other"], port=free_port())
    line = error_line(["silo", "leave", str(silos[A].path)], capsys)
    assert f"{federation.address}: no answer (" in line and "check that the coordinator runs" in line


def test_check_and_leave_of_a_revoked_silo_name_the_refusal(
    tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Place(tmp_path)
    folder = str(place.silos["a"].path)
    try:
        FederationFolder(place.federation.path).revoke("a")
        assert "the coordinator refuses this silo (" in error_line(["silo", "leave", folder], capsys)
        assert main(["silo", "check", folder, *silo_words(tiny_root, A)]) == 2
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("no  ")]
        assert "the coordinator refuses this silo (" in line and "revoked" in line
    finally:
        place.server.close()


@pytest.mark.parametrize(
    ("host", "named"),
    [
        (":8443", "is not HOST or HOST:PORT"),
        ("http://x", "is not HOST or HOST:PORT"),
        ("x:0", "is not HOST or HOST:PORT"),
        ("x:99999", "is not HOST or HOST:PORT"),
        ("x:port", "is not HOST or HOST:PORT"),
        ("x y", "is not HOST or HOST:PORT"),
        ("0.0.0.0", "silos cannot call this address"),
        ("[::]:8443", "silos cannot call this address"),
    ],
)
def test_an_invalid_host_names_the_key(
    host: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = SiloFolder.new(tmp_path / "a", "a").path
    line = error_line(["federation", "init", f"out={tmp_path / 'f'}", f"host={host}", f"silos={card}"], capsys)
    assert line.startswith(f"error: host={host}: ") and named in line
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize("second", ["same card", "same name"])
def test_a_federation_with_two_cards_of_one_name_is_not_created(
    second: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = (SiloFolder.new(tmp_path / folder, "a").path for folder in ("one", "other"))
    words = ["federation", "init", f"out={tmp_path / 'f'}", "host=localhost"]
    cards = f"{one},{one if second == 'same card' else other}"
    assert "silo a: two of the cards have this name" in error_line([*words, f"silos={cards}"], capsys)
    assert not (tmp_path / "f").exists(), "the corrected command can be run"
    assert main([*words, f"silos={one}"]) == 0


def test_a_folder_without_a_card_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["federation", "init", f"out={tmp_path / 'f'}", "host=localhost", f"silos={tmp_path}"]
    assert f"silos={tmp_path}: is a folder without silo.json" in error_line(words, capsys)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (
            ["silo", "run", "x"],
            "repeat the command; to remove the silo from the current run, use fedreid-pl silo leave",
        ),
        (["silo", "check", "x"], "interrupted; repeat the command"),
        (["federation", "init"], "interrupted; repeat the command"),
        (["train"], "interrupted; finished rounds are saved"),
    ],
)
def test_an_interrupted_command_says_how_to_continue(
    words: list[str], wanted: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: list[str]) -> int:
        raise cli.Interrupted

    monkeypatch.setitem(cli.COMMANDS, words[0], interrupted)
    assert main(words) == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert wanted in line


def test_a_service_is_not_restarted_after_invalid_input(tmp_path: Path) -> None:
    """The written service files treat exit code 2 as deploy/systemd does."""
    federation, silos = make_parties(tmp_path, ["a"])
    for file in (federation.path / "fedreid-coordinator.service", silos["a"].path / "fedreid-silo.service"):
        unit = configparser.ConfigParser(strict=True, interpolation=None)
        unit.optionxform = str  # type: ignore[assignment, method-assign]
        unit.read_string(file.read_text())
        assert unit["Service"]["RestartPreventExitStatus"] == "2", file


@pytest.mark.system
def test_a_port_in_use_prints_one_line(tiny_root: Path, tmp_path: Path) -> None:
    """gRPC itself prints no line."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        federation, _ = make_parties(tmp_path, [A, "other"], port=taken.getsockname()[1])
        words = coordinator_words(tiny_root, tmp_path / "run", federation, "exp=fedpav", "min_clients=2")
        environment = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
        done = subprocess.run(
            [sys.executable, "-m", "fedreid_pl", "train", *words], capture_output=True, text=True, env=environment
        )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"cannot listen on 127.0.0.1:{federation.port}: another program uses the port" in line


def test_a_log_of_another_event_does_not_count_as_joined(tmp_path: Path) -> None:
    silo = SiloFolder.new(tmp_path / "a", "a")
    AuditLog(silo.path).add("ignored", reason='"event":"joined"')
    assert json.loads((silo.path / "audit.jsonl").read_text())["event"] == "ignored"
    assert silo.newest_launch() == (0, "")

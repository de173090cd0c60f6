"""Folders, cards, invitations and certificates of a federation."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from cryptography import x509
from silos.parties import coordinator_words, make_parties

from fedreid_pl.cli import main
from fedreid_pl.engines.silos.cards import read_card, read_invitation
from fedreid_pl.engines.silos.certificates import key_digest, public_key_digest
from fedreid_pl.engines.silos.federation_folder import FederationFolder
from fedreid_pl.engines.silos.shared import own_config, own_words
from fedreid_pl.engines.silos.silo_folder import SiloFolder
from fedreid_pl.errors import FedReIDError


def test_private_files_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    federation, silos = make_parties(tmp_path, ["a", "b"])
    private = [silos["a"].path / name for name in ("signing.pem", "tls.pem")]
    private += [federation.path / name for name in ("ca.pem", "signing.pem")]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in private)
    for folder in (federation.path, silos["a"].path):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    texts = {path: path.read_text() for path in tmp_path.rglob("*.json")}
    assert not [path for path, text in texts.items() if "PRIVATE" in text], "the exchanged files contain no private key"


def test_certificates_contain_the_silos_keys_and_chain_to_the_authority(tmp_path: Path) -> None:
    federation, silos = make_parties(tmp_path, ["a", "b"])
    authority = x509.load_pem_x509_certificate((federation.path / "ca.crt").read_bytes())
    for name, silo in silos.items():
        certificate = silo.invitation.certificate.encode()
        assert key_digest(certificate) == public_key_digest(silo.card.tls_key)
        x509.load_pem_x509_certificate(certificate).verify_directly_issued_by(authority)
        assert federation.members[name].fingerprint == read_card(silo.path / "silo.json").fingerprint
    assert silos["a"].invitation.fingerprint == silos["b"].invitation.fingerprint


def test_the_commands_create_folders_from_exchanged_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        assert main(["silo", "init", f"out={tmp_path / name}", f"name={name}"]) == 0
    said = capsys.readouterr().out
    cards = ",".join(str(tmp_path / name) for name in ("a", "b"))
    assert main(["federation", "init", f"out={tmp_path / 'fed'}", f"silos={cards}", "host=fl.example.org"]) == 0
    printed = capsys.readouterr().out
    for name in ("a", "b"):
        assert read_card(tmp_path / name / "silo.json").fingerprint in said
        assert read_card(tmp_path / name / "silo.json").fingerprint in printed
    assert read_invitation(tmp_path / "fed" / "invitations" / "a.json").address == "https://fl.example.org:8443"
    assert (tmp_path / "fed" / "nginx.conf").read_text().count("fl.example.org:8443") == 1
    assert main(["federation", "revoke", str(tmp_path / "fed"), "name=b"]) == 0
    assert list(FederationFolder(tmp_path / "fed").members) == ["a"]
    assert main(["federation", "status", str(tmp_path / "fed")]) == 0
    assert "revoked" in capsys.readouterr().out
    assert main(["federation", "add", str(tmp_path / "fed"), f"silos={tmp_path / 'b'}"]) == 0
    assert list(FederationFolder(tmp_path / "fed").members) == ["a", "b"], "a revoked silo may rejoin with its key"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["silo", "ini"], "did you mean 'init'"),
        (["silo", "init", "out=x"], "name=hospital-a"),
        (["silo", "init", "out={0}/x", "name=Hospital A"], "lower-case"),
        (["silo", "init", "out={0}/x", "name=coordinator"], "reserved"),
        (["silo", "init", "out={0}/x", "name=../x"], "lower-case"),
        (["silo", "init", "out={0}/silo", "name=a"], "is a silo's folder already"),
        (["silo", "run"], "name the silo's folder"),
        (["silo", "run", "{0}/nothing", "data.root={0}"], "is not a silo's folder"),
        (["silo", "run", "{0}/silo", "data.root={0}"], "invitation.json: is missing"),
        (["silo", "run", "{0}/silo", "data.root={0}", "coordinator=http://x"], "write https://HOST:PORT"),
        (["federation", "init", "out={0}/f", "host=x"], "silos=FILE,FILE"),
        (["federation", "init", "out={0}/f", "host=x", "silos={0}/none.json"], "none.json: cannot be read"),
        (["federation", "init", "out={0}/f", "host=x", "silos={0}/bad.json"], "bad.json: is not the card of a silo"),
        (["federation", "init", "out={0}/f", "host=x", "silos={0}/altered.json"], "altered.json: was changed"),
        (["federation", "init", "out={0}/f", "host=x y", "silos={0}/silo"], "host=x y: is not HOST or HOST:PORT"),
        (["federation", "status", "{0}/nothing"], "is not a federation's folder"),
        (["federation", "revoke", "{0}/nothing", "name=a"], "is not a federation's folder"),
        (["train", "engine=silos"], "name the federation's folder"),
        (["train", "engine=silos", "federation={0}/nothing"], "is not a federation's folder"),
        (["train", "federation={0}/nothing"], "add engine=silos"),
        (["train", "engine.deadline=5"], "add engine=silos"),
        (["train", "engine=silos", "federation={0}/nothing", "dry_run=true"], "is not a federation's folder"),
        (
            ["silo", "run", "{0}/silo", "data.root={0}", "rounds=3", "coordinator=https://x"],
            "the coordinator sets rounds",
        ),
    ],
)
def test_a_mistake_prints_one_error_line(
    words: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    SiloFolder.new(tmp_path / "silo", "a")
    (tmp_path / "bad.json").write_text('{"fedreid_pl": "card"}')
    card = json.loads((tmp_path / "silo" / "silo.json").read_text())
    (tmp_path / "altered.json").write_text(json.dumps({**card, "name": "b"}))
    capsys.readouterr()
    assert main([word.format(tmp_path) for word in words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and named in lines[0], lines


def test_a_dry_run_contacts_no_silo_and_writes_no_file(
    tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    federation, _ = make_parties(tmp_path, ["a", "b"])
    words = coordinator_words(tiny_root, tmp_path / "run", federation, "dry_run=true")
    assert main(["train", *words]) == 0
    assert "with the silos a, b" in capsys.readouterr().out
    assert not (tmp_path / "run").exists() and not (federation.path / "launches").exists()


def test_names_for_wandb_are_checked_before_any_silo_is_called(
    tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    federation, _ = make_parties(tmp_path, ["a", "b"])
    words = coordinator_words(tiny_root, tmp_path / "run", federation, "logger=wandb", "wandb.project=a/b")
    assert main(["train", *words]) == 2
    assert "wandb.project=a/b: wandb does not allow '/'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_one_name_one_key(tmp_path: Path) -> None:
    federation, _ = make_parties(tmp_path, ["a", "b"])
    other = SiloFolder.new(tmp_path / "second", "a")
    with pytest.raises(FedReIDError, match="silo a: is a member with another key"):
        federation.add([other.card])
    with pytest.raises(FedReIDError, match="no such silo"):
        federation.revoke("c")


def test_an_invitation_for_another_silo_or_key_is_refused(tmp_path: Path) -> None:
    _, silos = make_parties(tmp_path, ["a", "b"])
    mine, theirs = (silos[name].path / "invitation.json" for name in ("a", "b"))
    mine.write_bytes(theirs.read_bytes())
    with pytest.raises(FedReIDError, match="invites b, but this silo is a"):
        SiloFolder(silos["a"].path).invitation  # noqa: B018
    mine.write_text(json.dumps({**json.loads(theirs.read_text()), "silo": "a"}))
    with pytest.raises(FedReIDError, match="not for this silo's key"):
        SiloFolder(silos["a"].path).invitation  # noqa: B018


def test_a_silo_sets_only_data_and_device_keys(tiny_root: Path) -> None:
    for word in (
        "rounds=3",
        "exp=scaffold",
        "data.height=8",
        "callbacks.fedprox.mu=1",
        "data.public=x",
        "engine=silos",
    ):
        with pytest.raises(FedReIDError, match="the coordinator sets"):
            own_words([word])
    with pytest.raises(FedReIDError, match=r"no such key of a silo, did you mean 'data\.root'"):
        own_words(["data.rot=x"])
    with pytest.raises(FedReIDError, match="contains 4 datasets"):
        own_config(["data.source=folder", "data=market_layout", f"data.root={tiny_root}"], "a")
    config = own_config([f"data.root={tiny_root}", "data=market_layout", "data.datasets=[mini-viper]"], "hospital-a")
    assert config.data.datasets == ["hospital-a=mini-viper"]

"""Files in deploy/: the compose file and the services are consistent, isolate the silos and use valid commands."""

from __future__ import annotations

import configparser
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedreid_pl.commands.silo import _folder
from fedreid_pl.commands.words import take
from fedreid_pl.config import compose
from fedreid_pl.engines.silos.shared import check_shareable, own_words

DEPLOY = Path(__file__).parents[2] / "deploy"
SERVICES = ("coordinator", "silo")


def composed() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def check_command(words: list[str]) -> None:
    """Parses a command as the program does, except for the parts that read folders."""
    if words[0] == "train":
        _, words = take(words[1:], "log")
        config = compose(words)
        check_shareable(config)
        assert config.engine.name == "silos" and config.engine.federation and config.output_dir
        assert config.min_clients >= 2, "the silos' policies require at least two silos"
        return
    assert words[:2] == ["silo", "run"]
    _, rest = take(words[2:], "log")
    _, rest, _ = _folder(rest, "run")
    own_words(rest)
    compose(rest)


def test_networks_and_volumes_of_every_service_exist() -> None:
    found = composed()
    for name, service in found["services"].items():
        assert set(service["networks"]) <= set(found["networks"]), name
        named = [volume.split(":")[0] for volume in service["volumes"] if not volume.startswith(("$", ".", "/"))]
        assert named and set(named) <= set(found["volumes"]), name
    used = [network for service in found["services"].values() for network in service["networks"]]
    assert set(used) == set(found["networks"])


def test_silos_share_neither_a_network_nor_a_volume() -> None:
    services = composed()["services"]
    silos = [service for name, service in services.items() if name != "coordinator"]
    assert len(silos) == 2
    for key in ("networks", "volumes"):
        one, other = ({str(item).partition(":")[0] for item in silo[key]} for silo in silos)
        assert not one & other, key
    assert all(set(silo["networks"]) & set(services["coordinator"]["networks"]) for silo in silos)
    assert all(network["internal"] for network in composed()["networks"].values()), "no access to the outside"


def test_containers_have_no_more_rights_than_they_need() -> None:
    for name, service in composed()["services"].items():
        assert service["user"].split(":")[0] not in ("0", "root"), name
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"] and "privileged" not in service, name
        pictures = [volume for volume in service["volumes"] if ":/pictures" in volume]
        assert all(volume.endswith(":ro") for volume in pictures) and len(pictures) == (name != "coordinator"), name
    image = (DEPLOY / "Containerfile").read_text()
    user = next(line.split()[1] for line in image.splitlines() if line.startswith("USER"))
    assert user == composed()["services"]["coordinator"]["user"]


@pytest.mark.parametrize("name", ["coordinator", "hospital-a", "hospital-b"])
def test_the_program_accepts_the_commands_of_the_containers(name: str) -> None:
    check_command(composed()["services"][name]["command"])


@pytest.mark.parametrize("name", SERVICES)
def test_services_are_accepted_and_hardened(name: str) -> None:
    unit = configparser.ConfigParser(strict=True, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string((DEPLOY / "systemd" / f"fedreid-{name}.service").read_text())
    service = unit["Service"]
    program, *words = shlex.split(service["ExecStart"])
    assert program.endswith("/fedreid-pl")
    check_command(words)
    assert service["User"] not in ("", "root") and service["CapabilityBoundingSet"] == ""
    for key in ("NoNewPrivileges", "PrivateTmp", "ProtectHome", "RestrictSUIDSGID", "LockPersonality"):
        assert service[key] == "yes", key
    assert service["ProtectSystem"] == "strict" and service["RestartPreventExitStatus"] == "2"
    written = [word for word in words if "/var/lib/" in word]
    assert all(f"/var/lib/{service['StateDirectory']}/" in word for word in written)


def test_a_misspelt_command_is_refused() -> None:
    for words in (["train", "engine=silos", "min_client=2"], ["silo", "run", "/silo", "rounds=3"]):
        with pytest.raises(Exception, match=r"min_client|rounds"):
            check_command(words)


def test_the_compose_file_fits_the_published_schema() -> None:
    """Validates against the compose-spec schema in check-jsonschema, if that package is installed."""
    schemas = pytest.importorskip("check_jsonschema.catalog", reason="check-jsonschema is not installed")
    if not any("compose" in name for name in schemas.SCHEMA_CATALOG):
        pytest.skip("this check-jsonschema has no schema of compose files")
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr

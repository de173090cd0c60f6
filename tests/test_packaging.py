"""The wheel and the source distribution, installed outside the repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from email import message_from_bytes
from functools import partial
from importlib import metadata
from pathlib import Path

import pytest
import support
from packaging.requirements import Requirement

from fedreid_pl import __version__
from fedreid_pl.methods import list_methods

pytestmark = pytest.mark.system

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with the source distribution and the wheel built from it, not from the checkout.

    `make release` names the folder that it built, so the tests examine the files that are released.
    """
    if ready := os.environ.get("FEDREID_PL_DIST"):
        return Path(ready).resolve()
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(REPOSITORY)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module", params=["wheel", "sdist"])
def installed(request: pytest.FixtureRequest, built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the `bin` of an environment with one of the two files and only the packages of its metadata."""
    folder = tmp_path_factory.mktemp(request.param)
    (wheel,) = built.glob("*.whl")
    if request.param == "sdist":
        (archive,) = built.glob("*.tar.gz")
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
        subprocess.run([*pip, "--wheel-dir", str(folder), str(archive)], check=True, timeout=300, env=alone())
        (wheel,) = folder.glob("*.whl")
    environment = folder / "env"
    venv.create(environment, with_pip=True)
    python = str(environment / "bin" / "python")
    ask = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    link_requirements(wheel, Path(subprocess.check_output(ask, text=True).strip()))
    # without --no-deps: pip checks that the linked packages satisfy the wheel
    pip = [python, "-m", "pip", "install", "--quiet", "--no-index", str(wheel)]
    subprocess.run(pip, check=True, timeout=120, env=alone())
    return environment / "bin"


def alone() -> dict[str, str]:
    """Returns the environment's variables without pip's settings, and disables bytecode files in linked packages."""
    return {**os.environ, "PIP_CONFIG_FILE": os.devnull, "PYTHONDONTWRITEBYTECODE": "1"}


def link_requirements(wheel: Path, site: Path) -> None:
    """Links the packages that a wheel requires, and those that they require, from this environment into another."""
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        waiting = [Requirement(line) for line in message_from_bytes(file.read(name)).get_all("Requires-Dist", [])]
    waiting = [one for one in waiting if one.marker is None or one.marker.evaluate({"extra": ""})]
    done = set()
    while waiting:
        wanted = waiting.pop()
        if (str(wanted.name), frozenset(wanted.extras)) in done:
            continue
        done.add((str(wanted.name), frozenset(wanted.extras)))
        found = metadata.distribution(wanted.name)
        for top in {path.parts[0] for path in found.files or ()} - {"..", "__pycache__"}:
            if not (site / top).exists() and not top.endswith(".pth"):
                (site / top).symlink_to(Path(str(found.locate_file(top))))
        for text in found.requires or ():
            one = Requirement(text)
            if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras)):
                waiting.append(one)


def sources() -> set[str]:
    """Returns the paths in the wheel of every module and YAML file that an installation must contain."""
    wanted = {f"fedreid_pl/{path.relative_to(REPOSITORY / 'src' / 'fedreid_pl')}" for path in modules("src/fedreid_pl")}
    wanted |= {f"fedreid_pl/{path.relative_to(REPOSITORY)}" for path in modules("callbacks")}
    configs = [*modules("configs"), *(REPOSITORY / "configs").rglob("*.yaml")]
    wanted |= {f"fedreid_pl/{path.relative_to(REPOSITORY)}" for path in configs}
    return wanted | {"fedreid_pl/py.typed"}


def modules(folder: str) -> list[Path]:
    return [path for path in (REPOSITORY / folder).rglob("*.py") if "__pycache__" not in path.parts]


def test_the_wheel_contains_only_the_modules_and_configurations(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if ".dist-info/" not in name} == sources()
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_source_distribution_contains_every_file_of_the_repository(built: Path) -> None:
    """The source distribution can be built and tested. Hidden files are settings of tools and of CI."""
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {member.name.partition("/")[2] for member in file.getmembers() if member.isfile()}
    tracked = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git repository")
    wanted = {name for name in tracked.stdout.splitlines() if not name.startswith(".")}
    assert wanted <= names, sorted(wanted - names)
    extra = {name for name in names - wanted if ".egg-info/" not in name}
    assert extra <= {"PKG-INFO", "setup.cfg"}, sorted(extra)


def test_an_installation_trains_outside_the_repository(installed: Path, tiny_root: Path, tmp_path: Path) -> None:
    ask = [str(installed / "python"), "-c", "import fedreid_pl; print(fedreid_pl.__file__)"]
    where = subprocess.check_output(ask, text=True, cwd=tmp_path)
    assert where.startswith(str(installed.parent)), "the installed package is imported"

    script = str(installed / "fedreid-pl")
    run = partial(subprocess.run, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=alone())
    assert run([script, "--version"]).stdout == f"fedreid_pl {__version__}\n"
    assert "fedreid-pl train" in run([script, "--help"]).stdout
    listed = run([script, "methods"]).stdout
    assert all(f"\n{one.name} " in listed for one in list_methods())
    done = run([script, "train", "exp=fedpav_rw", *support.quick(tiny_root, tmp_path / "run")])
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["rounds"] == 2


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["figure", "."], "figure"),
        (["train", "exp=fedpav_rw", "engine=ray"], "ray"),
        (["train", "exp=fedpav_rw", "engine=silos"], "silos"),
        (["train", "exp=fedpav_dp"], "dp"),
        (["silo", "init", "out=silo", "name=one"], "silos"),
        (["dashboard", "data=minireid", "out=x.json"], "dashboard"),
    ],
)
def test_the_error_names_a_missing_extra(installed: Path, words: list[str], extra: str, tmp_path: Path) -> None:
    command = [str(installed / "fedreid-pl"), *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=alone())
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"pip install 'fedreid-pl[{extra}]'" in done.stderr
    assert not list(tmp_path.iterdir())


def test_package_map_of_setup_cfg_is_complete() -> None:
    import configparser

    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    found = {
        ".".join(("fedreid_pl", *path.parent.relative_to(REPOSITORY / "src" / "fedreid_pl").parts))
        for path in modules("src/fedreid_pl")
    }
    found |= {".".join(("fedreid_pl", *path.parent.relative_to(REPOSITORY).parts)) for path in modules("callbacks")}
    assert listed >= found

"""What a user installs: the wheel and the source distribution, outside the repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import support

from fedreid_pl import __version__

pytestmark = pytest.mark.system

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution, and the wheel built from it (not from the checkout)."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(REPOSITORY)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def sources() -> set[str]:
    """Every module and YAML file that an installation has to hold, as paths inside the wheel."""
    wanted = {f"fedreid_pl/{path.relative_to(REPOSITORY / 'src' / 'fedreid_pl')}" for path in modules("src/fedreid_pl")}
    wanted |= {f"fedreid_pl/{path.relative_to(REPOSITORY)}" for path in modules("callbacks")}
    wanted |= {f"fedreid_pl/{path.relative_to(REPOSITORY)}" for path in (REPOSITORY / "configs").rglob("*.yaml")}
    return wanted | {"fedreid_pl/py.typed"}


def modules(folder: str) -> list[Path]:
    return [path for path in (REPOSITORY / folder).rglob("*.py") if "__pycache__" not in path.parts]


def test_wheel_holds_every_module_and_configuration(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert sources() <= names, sources() - names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_source_distribution_can_build_and_test_itself(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    for name in ("setup.cfg", "pyproject.toml", "Makefile", "constraints.txt", "LICENSE", "README.md"):
        assert name in names
    assert {"configs/base.yaml", "callbacks/backbone_sync.py", "tests/conftest.py"} <= names


def test_wheel_trains_outside_the_repository(built: Path, tiny_root: Path, tmp_path: Path) -> None:
    environment = tmp_path / "env"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    purelib = subprocess.check_output(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    ).strip()
    # torch and the rest come from here; a .pth inside that folder, the editable install, is not followed
    (Path(purelib) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (wheel,) = built.glob("*.whl")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, check=True, timeout=120, env={**os.environ, "PIP_CONFIG_FILE": os.devnull})
    where = subprocess.check_output([str(python), "-c", "import fedreid_pl; print(fedreid_pl.__file__)"], text=True)
    assert where.startswith(str(environment)), "the wheel is what is imported"

    script = environment / "bin" / "fedreid-pl"
    assert subprocess.check_output([str(script), "--version"], text=True) == f"fedreid_pl {__version__}\n"
    words = ["train", "exp=fedpav_rw", *support.quick(tiny_root, tmp_path / "run", "rounds=1")]
    done = subprocess.run([str(script), *words], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["rounds"] == 1


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

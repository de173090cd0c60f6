"""Collects wheels for a GPU machine without network: this package and its requirements except torch.

    python benchmarks/gpu_pack.py [--out gpu-pack] [--python 3.12] [--with-torch]

On that machine, in a copy of the repository: `pip install --no-index --no-deps gpu-pack/*.whl`, then `make gpu-check`.
"""

from __future__ import annotations

import argparse
import configparser
import json
import subprocess
import sys
import tempfile
from pathlib import Path

TORCH = ("torch", "torchvision", "triton", "nvidia-", "cuda-", "sympy", "mpmath", "networkx", "jinja2", "setuptools")
"""Name prefixes of packages that come with torch and are excluded."""


def needed(pip: list[str], root: Path, python: str) -> list[str]:
    """Returns NAME==VERSION of all requirements of the package with the extra `ray`."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        words = [
            "install",
            "--dry-run",
            "--quiet",
            "--ignore-installed",
            "--only-binary=:all:",
            "--report",
            str(report),
        ]
        place = ["--target", folder, "--python-version", python]
        subprocess.run([*pip, *words, *place, "-c", str(root / "constraints.txt"), *requirements(root)], check=True)
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
    return [f"{item['metadata']['name']}=={item['metadata']['version']}" for item in found]


def is_of_torch(name: str) -> bool:
    """Returns whether a package comes with torch.

    >>> is_of_torch("nvidia-nccl-cu13==2.28"), is_of_torch("torchmetrics==1.9.0")
    (True, False)
    """
    return name.startswith(TORCH) and not name.startswith("torchmetrics")


def requirements(root: Path) -> list[str]:
    """Returns the requirements in setup.cfg, with the extra `ray`."""
    setup = configparser.ConfigParser()
    setup.read(root / "setup.cfg", encoding="utf-8")
    lines = setup["options"]["install_requires"] + setup["options.extras_require"]["ray"]
    return [line.strip() for line in lines.splitlines() if line.strip()]


def main() -> None:
    """Downloads and builds the wheels, and prints their size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu-pack"))
    parser.add_argument("--python", default="3.12", help="Python version of the GPU machine")
    parser.add_argument("--with-torch", action="store_true", help="include torch and CUDA, several gigabytes")
    args = parser.parse_args()
    root, pip = Path(__file__).resolve().parents[1], [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    names = needed(pip, root, args.python)
    if not args.with_torch:
        names = [name for name in names if not is_of_torch(name.lower())]
    args.out.mkdir(parents=True, exist_ok=True)
    platforms = [f"manylinux_2_{number}_x86_64" for number in (28, 27, 17)] + ["manylinux2014_x86_64"]
    words = ["--no-deps", "--only-binary=:all:", "--implementation", "cp", "--python-version", args.python]
    for platform in platforms:
        words += ["--platform", platform]
    subprocess.run([*pip, "download", "--quiet", "--dest", str(args.out), *words, *names], check=True)
    subprocess.run([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(args.out), str(root)], check=True)
    wheels = list(args.out.glob("*.whl"))
    print(f"{len(wheels)} wheels, {sum(wheel.stat().st_size for wheel in wheels) / 1e6:.0f} MB, in {args.out}")


if __name__ == "__main__":
    main()

"""Runs three parties and a coordinator on this machine; `make silos-demo` calls this script.

    python benchmarks/silos_demo.py [exp=fedpav_rw] [rounds=3] [folder=FOLDER] [KEY=VALUE ...]

Every party is a process with a separate folder, keys and drawn images. The parties communicate by gRPC over mutual TLS
on one port of the loopback address. At the end the same experiment runs in one process, and the script compares both.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

PARTIES = {"hospital-a": "mini-market1501", "hospital-b": "mini-viper", "campus-c": "mini-ilids"}
"""The parties and their drawn datasets."""
COMMON = ("model.weights=none", "trainer.accelerator=cpu", "logger=none", "evaluate_every=1", "batch_size=16")
OWN = ("exp", "rounds", "folder")


def main(words: Sequence[str]) -> int:
    """Runs the demonstration; returns 0 if both runs are equal."""
    options = dict(word.split("=", 1) for word in words if word.split("=", 1)[0] in OWN)
    more = [word for word in words if word.split("=", 1)[0] not in OWN]
    home = Path(options.get("folder") or tempfile.mkdtemp(prefix="silos-demo-")).resolve()
    experiment = [f"exp={options.get('exp', 'fedpav_rw')}", f"rounds={options.get('rounds', '3')}", "min_clients=3"]
    experiment += ["data=minireid", "data.source=folder", "data.public=mini-cuhk02", *COMMON, *more]
    begun = time.monotonic()
    draw(home)
    federation = introduce(home)
    with silos(home, PARTIES) as running:
        place = [f"output_dir={home / 'federated'}", "engine=silos", f"federation={federation}"]
        command("train", *experiment, *place, f"data.root={home / 'coordinator' / 'pictures'}", beside=running)
        command("federation", "status", str(federation))
    print(
        f"\nThe federation took {time.monotonic() - begun:.0f} s. Now the same experiment in one process.\n", flush=True
    )
    together = home / "together"
    together.mkdir(exist_ok=True)
    for party, dataset in [*PARTIES.items(), ("coordinator", "mini-cuhk02")]:
        if not (together / dataset).exists():
            (together / dataset).symlink_to(home / party / "pictures" / dataset)
    datasets = ",".join(f"{party}={dataset}" for party, dataset in PARTIES.items())
    place = [f"output_dir={home / 'one_process'}", f"data.root={together}", f"data.datasets=[{datasets}]"]
    command("train", *experiment, *place)
    return compare(home / "federated", home / "one_process")


def draw(home: Path) -> None:
    """Draws each party's images into a separate folder, and public images for the coordinator."""
    from fedreid_pl.data.minireid import PUBLIC, domains_of, write_benchmark

    domains = domains_of(1)
    for party, dataset in [*PARTIES.items(), ("coordinator", PUBLIC.name)]:
        root = home / party / "pictures"
        if not (root / dataset).exists():
            write_benchmark(root, [domains[dataset].scaled(0.2)], processes=1)


def introduce(home: Path) -> Path:
    """Creates keys and certificates with the commands, and exchanges the files as people would."""
    federation = home / "coordinator" / "federation"
    if federation.exists():
        return federation
    for party in PARTIES:
        command("silo", "init", f"out={home / party / 'silo'}", f"name={party}")
    cards = ",".join(str(home / party / "silo" / "silo.json") for party in PARTIES)
    command("federation", "init", f"out={federation}", f"silos={cards}", f"host=localhost:{free_port()}")
    for party in PARTIES:
        shutil.copyfile(federation / "invitations" / f"{party}.json", home / party / "silo" / "invitation.json")
    return federation


@contextmanager
def silos(home: Path, parties: Iterable[str]) -> Iterator[dict[str, subprocess.Popen]]:
    """Starts a process for every party, and stops all processes at the end."""
    running: dict[str, subprocess.Popen] = {}
    try:
        for party in parties:
            words = ["silo", "run", str(home / party / "silo"), "data=market_layout", "trainer.accelerator=cpu"]
            words.append(f"data.root={home / party / 'pictures'}")
            print(f"$ fedreid-pl {' '.join(words)} &", flush=True)
            log = open(home / party / "log", "ab")  # noqa: SIM115 - the process uses it
            running[party] = subprocess.Popen(
                [sys.executable, "-m", "fedreid_pl", *words], stdout=log, stderr=log, env=environment()
            )
        yield running
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait(60)


def command(*words: str, beside: Mapping[str, subprocess.Popen] | None = None) -> None:
    """Prints a command of the program and runs it while the other processes run."""
    print(f"$ fedreid-pl {' '.join(words)}", flush=True)
    process = subprocess.Popen([sys.executable, "-m", "fedreid_pl", *words], env=environment())
    while process.poll() is None:
        if ended := [party for party, other in (beside or {}).items() if other.poll() is not None]:
            process.terminate()
            process.wait(60)
            sys.exit(f"{', '.join(ended)} ended; see the file log in the party's folder")
        time.sleep(0.2)
    if process.returncode:
        sys.exit(2)


def environment() -> dict[str, str]:
    """Returns an environment with one thread per process: equal bits need equal numbers of threads."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def free_port() -> int:
    """Returns a free port."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def compare(one: Path, other: Path) -> int:
    """Compares models and numbers of two runs to the last bit."""
    import torch

    from fedreid_pl.federation.storage import read_state

    newest = [max((folder / "checkpoints").glob("round-*.ckpt")) for folder in (one, other)]
    models = [read_state(path)["models"]["global"] for path in newest]
    same = models[0].keys() == models[1].keys() and all(
        torch.equal(models[0][name], models[1][name]) for name in models[0]
    )
    numbers = (one / "metrics.csv").read_bytes() == (other / "metrics.csv").read_bytes()
    print(f"\n{len(models[0])} tensors of the global model: {'equal bits' if same else 'DIFFERENT'}")
    print(f"metrics.csv: {'equal bytes' if numbers else 'DIFFERENT'}\nfolders: {one.parent}")
    return 0 if same and numbers else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

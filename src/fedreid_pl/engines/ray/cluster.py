"""Connects to Ray: starts it on this machine for one run, or joins a cluster that the user has started."""

from __future__ import annotations

import os
import re
import secrets
import sys
import threading
import time
from importlib.util import find_spec
from typing import Any

from fedreid_pl.config import Config
from fedreid_pl.config.launch import find_launcher
from fedreid_pl.engines.ray.leftovers import end_leftovers, mark_session
from fedreid_pl.engines.ray.signals import held_signals
from fedreid_pl.errors import FedReIDError, counted

EARLY = 16  # slots that are started before the number of clients is known
FOR_SLOTS = ("CUBLAS_", "NVIDIA_TF32", "TORCH_", "PYTORCH_", "ATEN_", "MKL_", "ONEDNN_", "DNNL_", "GLIBC_", "MALLOC_")
"""Prefixes of the environment variables that the driver passes to the slots: they change exact results or speed."""


def check(config: Config) -> None:
    """Checks that `engine=ray` can run the configuration, before any process starts.

    Raises:
        FedReIDError: if it cannot; the message names the key.
    """
    c, trainer = config.engine, config.trainer
    if find_spec("ray") is None:
        raise FedReIDError("engine=ray: Ray is not installed; pip install 'fedreid-pl[ray]', or leave engine=ray out")
    if trainer.devices * trainer.num_nodes > 1:
        raise FedReIDError(
            f"trainer.devices={trainer.devices}, trainer.num_nodes={trainer.num_nodes}: with engine=ray a client "
            "trains on one device; set both to 1, or leave engine=ray out"
        )
    launcher = find_launcher()
    if launcher is not None and (launcher.world or 1) > 1:
        raise FedReIDError(
            f"engine=ray: {launcher.name} started {launcher.world} processes; start one, Ray starts the others"
        )
    if c.address is not None and c.address != "auto" and not re.fullmatch(r"[^\s:/]+:\d{1,5}", c.address):
        raise FedReIDError(f"engine.address={c.address}: must be auto or HOST:PORT, such as 10.0.0.1:6379")


class Cluster:
    """Connects one run to Ray in a thread, so that the caller can prepare data meanwhile.

    If the program has called `ray.init` before, this class uses that Ray and does not end it.

    Args:
        config: configuration of the run.

    Attributes:
        early: actors that were started before the number of clients was known.
    """

    def __init__(self, config: Config) -> None:
        self.config, self.early, self._start = config, list[Any](), time.perf_counter()
        self._error: BaseException | None = None
        self._own = self._closed = False
        self._connected, self._over = threading.Event(), threading.Event()
        self._set_environment()
        self._thread = threading.Thread(target=self._connect, name="ray", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Waits until Ray is connected.

        Raises:
            FedReIDError: if Ray does not start or the cluster does not answer.
        """
        self._connected.wait()
        if isinstance(self._error, FedReIDError):
            raise self._error
        if self._error is not None:
            raise FedReIDError(_why(self.config, self._error)) from self._error

    def capacity(self) -> int:
        """Returns how many slots fit on all machines together."""
        import ray

        return sum(self._fitting(node) for node in ray.nodes() if node["Alive"])

    def most_on_one_machine(self) -> int:
        """Returns how many slots fit on the machine with the most room."""
        import ray

        return max(self._fitting(node) for node in ray.nodes() if node["Alive"])

    def machines(self) -> int:
        """Returns the number of living Ray nodes; usually a node is one machine."""
        import ray

        return sum(node["Alive"] for node in ray.nodes())

    def since_start(self) -> float:
        """Returns the seconds since this object was created."""
        return time.perf_counter() - self._start

    def end_early(self) -> None:
        """Ends the actors that remain in `early`: the run needs fewer slots than were started."""
        import ray

        for actor in self.early:
            with held_signals():
                ray.kill(actor)
        self.early = []

    def start_slot(self) -> Any:
        """Returns an actor from `early`, or a new actor that Ray starts as soon as a machine has room."""
        import ray

        from fedreid_pl.engines.ray.slot import Slot

        if self.early:
            return self.early.pop(0)
        c = self.config.engine
        variables = {name: value for name, value in os.environ.items() if name.startswith(FOR_SLOTS)}
        variables |= {"OMP_NUM_THREADS": str(c.cpus_per_client), "MKL_NUM_THREADS": str(c.cpus_per_client)}
        if c.address is None and "FEDREID_PL_CACHE" in os.environ:
            variables["FEDREID_PL_CACHE"] = os.environ["FEDREID_PL_CACHE"]
        options = ray.remote(Slot).options(
            num_cpus=c.cpus_per_client,
            num_gpus=self.gpus(),
            max_restarts=0,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": variables},
        )
        return options.remote(c.cpus_per_client)

    def gpus(self) -> float:
        """Returns the number of GPUs for each slot; a fraction if several slots share a GPU."""
        import ray

        chosen = self.config.engine.gpus_per_client
        if chosen is not None or self.config.trainer.accelerator not in ("auto", "gpu", "cuda"):
            return chosen or 0.0
        return float(any(node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"]))

    def close(self) -> None:
        """Ends Ray if this run has started it; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._connected.wait()
        if self._own:
            import ray

            with held_signals():
                ray.shutdown()
        self._over.set()

    def _fitting(self, node: dict[str, Any]) -> int:
        cpus, gpus = self.config.engine.cpus_per_client, self.gpus()
        room = int(node["Resources"].get("CPU", 0) // cpus)
        if not gpus:
            return room
        return min(room, int(node["Resources"].get("GPU", 0)) * int(1 / gpus))

    def _set_environment(self) -> None:
        """Sets the variables that Ray reads at its import and its start; keeps the values that the user has set."""
        wanted = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
        if self.config.engine.address is None and "ray" not in sys.modules:
            wanted["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # all ports on the loopback address, on Linux too
            if not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
                wanted |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        for name, value in wanted.items():
            os.environ.setdefault(name, value)

    def _connect(self) -> None:
        try:
            import ray

            if not ray.is_initialized():
                self._init(ray)
                self._own = True
            accelerator = self.config.trainer.accelerator
            if accelerator in ("gpu", "cuda") and not self.gpus():
                raise FedReIDError(
                    f"trainer.accelerator={accelerator}: no machine of this Ray has a GPU, or engine.gpus_per_client=0"
                )
            wanted = self.config.engine.slots
            capacity = self.capacity()
            if not capacity or (wanted or 0) > capacity:
                raise FedReIDError(self._too_many(capacity))
            guess = min(wanted or capacity, self.config.clients_per_round or EARLY, EARLY)
            self.early = [self.start_slot() for _ in range(guess)]
        except BaseException as error:
            self._error = error
        self._connected.set()
        self._over.wait()  # this thread stays alive: when it ends, the system ends the Ray processes that it started

    def _init(self, ray: Any) -> None:
        address = self.config.engine.address
        quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
        if address is not None:
            ray.init(address=address, **quiet)
            return
        end_leftovers()
        # "local": joins no cluster that RAY_ADDRESS names or that runs here, unless engine.address asks for it
        context = ray.init(address="local", include_dashboard=False, **quiet)
        mark_session(context.address_info["session_dir"])

    def _too_many(self, capacity: int) -> str:
        c, gpus = self.config.engine, self.gpus()
        share = f"engine.cpus_per_client={c.cpus_per_client}" + (
            f" and engine.gpus_per_client={gpus:g}" if gpus else ""
        )
        where = "this machine" if c.address is None else f"the cluster at {c.address}"
        asked = f"engine.slots={c.slots}" if c.slots else "engine=ray"
        return f"{asked}: {where} has room for {counted(capacity, 'slot')} of {share}; set fewer, or a smaller share"


def _why(config: Config, error: BaseException) -> str:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    address = config.engine.address
    if address is None:
        return f"engine=ray: Ray does not start on this machine ({reason})"
    return (
        f"engine.address={address}: no Ray cluster answers there ({reason}); start one with ray start, see "
        "docs/parallel.md"
    )

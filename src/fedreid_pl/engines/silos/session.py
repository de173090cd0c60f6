"""One experiment at a silo: data and network stay loaded until another experiment replaces it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from fedreid_pl import __version__
from fedreid_pl.callbacks import callback_factory
from fedreid_pl.clients import build_client_parts
from fedreid_pl.config import Config, lineage, load_config
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.data.layouts import find_layouts
from fedreid_pl.data.overlap import byte_keys
from fedreid_pl.data.readers.csv_table import to_csv
from fedreid_pl.engines.silos.description import SHOWN, describe_experiment, describe_messages
from fedreid_pl.engines.silos.payload import BadPayload, Opened, Payload, read_backbone
from fedreid_pl.engines.silos.policy import Policy
from fedreid_pl.engines.silos.shared import client_name, experiment_digest, silo_config
from fedreid_pl.engines.silos.trained import TRAINED, check_trained
from fedreid_pl.errors import counted
from fedreid_pl.federation.client.worker import ClientWorker
from fedreid_pl.federation.messages import ClientJob, ClientUpdate, Plain, RejectedJob
from fedreid_pl.federation.storage import write_text
from fedreid_pl.federation.tensor_checks import declared_like, misfit
from fedreid_pl.models.weights import copy_state

Say = Callable[[str], None]
LAST_JOB, LINEAGE = "job.safetensors", "lineage"


class Session:
    """A silo's side of one experiment: its configuration, its worker, and its last job.

    The silo checks the policy before it reads any picture.

    Args:
        folder: folder of the session.
        silo: name of the silo.
        own: the silo's configuration of its data and devices.
        opened: payload of the experiment.
        policy: policy of the silo.
        say: prints a line for the operator.

    Raises:
        PolicyRefusal: if the policy does not allow the experiment.
        FedReIDError: if the configuration or the data are invalid.
        RejectedJob: if the initial weights do not fit the network of the experiment.
    """

    def __init__(self, folder: Path, silo: str, own: Config, opened: Opened, policy: Policy, say: Say) -> None:
        header = opened.header
        text, silos = str(header.values.get("config", "")), header.values.get("silos", 0)
        if experiment_digest(text) != header.experiment or type(silos) is not int or len(text) > 2**20:
            raise RejectedJob("the number of the experiment does not match its configuration")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.header, self.silos, self.say = folder, header, silos, say
        self.config: Config = silo_config(text, own, folder / "experiment.yaml")
        self.lineage = self._checked_lineage()
        say(about := describe_experiment(self.config, header.experiment, silos))
        policy.check(self.config, silos)
        self.worker = self._worker(silo, opened)
        parts = self.worker.make_callbacks()
        held = (self.worker.backbone, parts, policy, self.samples)
        write_text(folder / "experiment.txt", "\n".join([about, describe_messages(*held), ""]))
        say(f"{describe_messages(*held, most=SHOWN)}\n  full list     {folder / 'experiment.txt'}")

    def _checked_lineage(self) -> str:
        """Returns the lineage of the coordinator's configuration, which may not change within a session.

        Raises:
            RejectedJob: if the session began with another lineage; the client's state would not fit.
        """
        found = lineage(load_config(self.folder / "experiment.yaml"))
        try:
            known = (self.folder / LINEAGE).read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return found
        if known != found:
            raise RejectedJob("the experiment has another configuration than the one with which this session began")
        return found

    @property
    def samples(self) -> int:
        """Returns the number of training pictures of this silo."""
        return self.worker.datamodules[self.client].num_samples

    def registration(self) -> dict[str, Plain]:
        """Returns the facts about this silo that the coordinator needs before the first round."""
        tests = self.worker.datamodules[self.client].tests
        return {
            "client": self.client,
            "images": self.samples,
            "tests": "/".join(tests),
            "synthetic": self.synthetic,
            "version": __version__,
            "torch": str(torch.__version__),
        }

    def do(self, job: ClientJob, policy: Policy) -> ClientUpdate:
        """Checks and runs a job and returns its update. A rejected job changes nothing at this silo.

        Raises:
            RejectedJob: for a job that no honest coordinator sends.
            PolicyRefusal: if the policy does not allow a number in the update.
            Exception: any error of the worker.
        """
        if job.round > self.config.rounds:  # the policy has checked config.rounds
            raise RejectedJob(f"the job has round {job.round}, but the run has {counted(self.config.rounds, 'round')}")
        if (problem := self._too_far(job, policy.largest_change)) is not None:
            raise RejectedJob(problem)
        update = self.worker.do(job)
        self.worker.take_looks()  # drops them: the details behind the scores never leave the silo
        policy.check_metrics(update.metrics)
        return update

    def note_job(self, payload: Payload) -> None:
        """Saves the payload of a finished job; the model of the next job is compared with its model."""
        os.replace(payload.path, self.folder / LAST_JOB)

    def _worker(self, silo: str, opened: Opened) -> ClientWorker:
        make_callbacks = callback_factory(self.config.callbacks, "silos", ())
        parts = build_client_parts(self.config, self.folder, make_callbacks, complete=False)
        worker, self.synthetic = parts.worker, parts.data.synthetic
        self.client = client_name(silo, worker.datamodules)
        if len(opened.extras):
            raise RejectedJob("the experiment contains other tensors than the initial weights")
        if (problem := misfit(opened.backbone, declared_like(worker.initial))) is not None:
            raise RejectedJob(f"the initial weights do not fit the network of this silo: {problem}")
        copy_state(opened.backbone, worker.backbone)
        worker.initial = {name: value.clone() for name, value in worker.backbone.state_dict().items()}
        worker.session, worker.look_at = self.header.session, None
        if parts.data.unvalidated:
            self.say("no validation persons here, because too few training persons are in two cameras")
        self._look_at_persons(worker, parts.data)
        return worker

    def _look_at_persons(self, worker: ClientWorker, data: FederatedData) -> None:
        """Checks the current pictures and persons against those that this session has trained on."""
        before = worker.store.newest(self.client)
        check_trained(self.folder / TRAINED, data, byte_keys(self.config.data, data.datasets), begun=before is not None)
        if new := worker.states.check_persons(self.client):
            self.say(f"{counted(new, 'new person')} since round {before}; the known ones keep their rows of the head")
        layouts = find_layouts()
        for table in data.datasets:  # lets the operator keep a drawn split when pictures are added
            if table.layout in layouts and layouts[table.layout].drawn:
                write_text(self.folder / "splits" / f"{table.name}.csv", to_csv(table))

    def _too_far(self, job: ClientJob, bound: float) -> str | None:
        """Returns a message if the job moves the model's parameters too far, otherwise `None`.

        The limit is `bound` times the norm of the parameters of the last job.
        """
        parameters = {name for name, _ in self.worker.backbone.named_parameters()}
        before = self._before()
        moved = size = 0.0
        for name, value in job.backbone.items():
            old = before.get(name)
            if name in parameters and old is not None and old.shape == value.shape and value.dtype == old.dtype:
                moved += float(torch.linalg.vector_norm((value - old).float())) ** 2
                size += float(torch.linalg.vector_norm(old.float())) ** 2
        if moved <= bound**2 * size or not size:
            return None
        factor = math.sqrt(moved / size)
        return f"the job moves the model by {factor:.3g} times its norm, but the policy allows at most {bound:g} times"

    def _before(self) -> Mapping[str, Tensor]:
        """Returns the model of the last finished job, before the first job the initial model."""
        try:
            return read_backbone(self.folder / LAST_JOB)
        except (OSError, BadPayload):
            return self.worker.initial

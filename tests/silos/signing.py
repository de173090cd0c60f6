"""A coordinator that signs valid and invalid payloads for one silo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import support
from torch import Tensor

from fedreid_pl.config import compose
from fedreid_pl.engines.silos.federation_folder import FederationFolder
from fedreid_pl.engines.silos.payload import Header, Opened, Payload, open_payload, write_payload
from fedreid_pl.engines.silos.shared import experiment_digest, shared_text
from fedreid_pl.engines.silos.silo_folder import SiloFolder
from fedreid_pl.start import initial_backbone

SESSION = "0123456789abcdef"


class Coordinator:
    """Writes payloads signed with the federation's key; `changes` replace header fields or the signing key."""

    def __init__(self, federation: FederationFolder, silo: SiloFolder, folder: Path, *words: str) -> None:
        self.federation, self.silo, self.folder = federation, silo, folder
        config = compose([*support.quick(Path("unused"), folder, "min_clients=2", "rounds=100"), *words])
        self.text = shared_text(config)
        self.initial = {name: value.clone() for name, value in initial_backbone(config).state_dict().items()}
        self.count = 0

    def payload(
        self, kind: str, round: int = 1, tensors: Mapping[str, Tensor] | None = None, **changes: Any
    ) -> Payload:
        key = changes.pop("key", self.federation.key)
        extras = changes.pop("extras", None)
        values = {"starts_from": max(round - 1, 0), "keeps": "", "evaluate": False, "inspect": False}
        header = Header(
            *(kind, "coordinator", self.silo.name, self.federation.number, experiment_digest(self.text), SESSION),
            *(round, 1),
            values=values,
        )
        self.count += 1
        path = self.folder / f"{self.count}.safetensors"
        return write_payload(path, replace(header, **changes), key, tensors or {}, extras)

    def experiment(self, launch: int = 1, **changes: Any) -> Payload:
        values = {"config": self.text, "silos": 3, "launch": launch}
        return self.payload("experiment", 0, self.initial, **{"values": values, **changes})

    def opened(self, answer: Payload | None) -> Opened:
        assert answer is not None
        return open_payload(answer, self.silo.card.signing_key)

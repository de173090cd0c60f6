"""Federated person re-identification on PyTorch Lightning.

model = fedreid_pl.load("runs/minireid/fedpav_rw/seed0")
features = model.embed("pictures/")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedreid_pl.retrieval.gallery import Gallery as Gallery
    from fedreid_pl.retrieval.loading import load as load

__version__ = "0.1.0"

_PUBLIC = {"load": "fedreid_pl.retrieval.loading", "Gallery": "fedreid_pl.retrieval.gallery"}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used: torch takes seconds to import."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'fedreid_pl' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    """Names of the module, the public ones that are not imported yet among them."""
    return sorted({*globals(), *_PUBLIC})

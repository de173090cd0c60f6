"""Every example in a docstring runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import fedreid_pl
import fedreid_pl.callbacks

NAMES = sorted(
    {
        module.name
        for package in (fedreid_pl, fedreid_pl.callbacks)
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
        if not module.name.endswith("__main__")
    }
)


@pytest.mark.parametrize("name", NAMES)
def test_examples(name: str) -> None:
    # by name: `pytest --doctest-modules callbacks` would import a second copy of the package
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = [case for name in NAMES for case in finder.find(importlib.import_module(name)) if case.examples]
    assert len(examples) >= 10

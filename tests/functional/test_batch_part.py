"""The current part of a distributed batch."""

from __future__ import annotations

import pytest

from fedreid_pl.functional.batch_part import BatchPart, current_part, working_on


def test_a_part_is_set_only_inside_the_context() -> None:
    outer, inner = BatchPart((0, 1), 4), BatchPart((2,), 3)
    with working_on(outer):
        with working_on(None):
            assert current_part() is None
        with pytest.raises(RuntimeError), working_on(inner):
            assert current_part() is inner
            raise RuntimeError
        assert current_part() is outer
    assert current_part() is None

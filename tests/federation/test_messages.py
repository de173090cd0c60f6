"""Messages contain only tensors and plain values; hostile bytes are neither executed nor accepted."""

from __future__ import annotations

import io
import math
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedreid_pl.federation.messages import (
    ClientJob,
    ClientUpdate,
    RejectedUpdate,
    State,
    from_bytes,
    state_bytes,
    to_bytes,
)
from fedreid_pl.federation.server.checks import check_update

NAN, INF = math.nan, math.inf


def make_state() -> State:
    draws = torch.Generator().manual_seed(0)
    return {
        "conv.weight": torch.randn(4, 3, 3, 3, generator=draws).to(memory_format=torch.channels_last),
        "norm.running_var": torch.rand(4, generator=draws),
        "norm.num_batches_tracked": torch.tensor(12),
        "half": torch.randn(5, generator=draws).half(),
    }


def make_update(**changed: Any) -> ClientUpdate:
    fields: dict[str, Any] = {"round": 3, "client": "a", "backbone": make_state(), "num_samples": 10, "metrics": {}}
    return ClientUpdate(**{**fields, **changed})


JOB = support.fit_job(3, "a", make_state(), {"evaluate": True, "tests": "x,y", "mu": 0.1, "steps": 4})


class Evil:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "metrics",
    [
        {"label": "person 7"},
        {"path": Path("x.jpg")},
        {"image": torch.zeros(3)},
        {"image": np.zeros(3)},
        {"number": np.float64(1)},
        {"loss": torch.tensor(1.0)},
        {"flag": True},
        {"labels": [1, 2]},
        {"more": {"loss": 1.0}},
        {"none": None},
        {7: 1.0},
    ],
)
def test_an_update_accepts_only_plain_numbers(metrics: dict) -> None:
    with pytest.raises(TypeError, match="has type "):
        make_update(metrics=metrics)


@pytest.mark.parametrize(
    "changed",
    [
        {"num_samples": "photos/0001.jpg"},
        {"num_samples": 2.5},
        {"num_samples": torch.tensor(3)},
        {"round": "1"},
        {"round": torch.zeros(2)},
        {"client": ["a"]},
        {"client": Path("a")},
        {"backbone": {"w": [1.0]}},
        {"backbone": {"w": np.zeros(3)}},
        {"backbone": {"w": "photos/0001.jpg"}},
        {"backbone": {0: torch.zeros(1)}},
    ],
)
def test_the_type_of_every_field_is_checked(changed: dict) -> None:
    with pytest.raises(TypeError):
        make_update(**changed)
    if changed.keys() <= {"round", "client", "backbone"}:
        with pytest.raises(TypeError):
            replace(JOB, **changed)


@pytest.mark.parametrize("value", [torch.zeros(1), [1], None, Path("x"), len])
def test_a_job_accepts_only_plain_values(value: Any) -> None:
    with pytest.raises(TypeError, match="has type "):
        support.fit_job(1, "a", {}, {"key": value})


def test_message_sizes_are_those_of_the_tensors() -> None:
    assert state_bytes(make_state()) == 4 * 27 * 4 + 4 * 4 + 8 + 5 * 2
    assert JOB.nbytes == make_update().nbytes == 466
    assert 466 <= len(to_bytes(make_update())) < 466 + 5000
    assert support.fit_job(1, "a").nbytes == 0


def test_a_view_is_sent_without_the_rest_of_its_storage() -> None:
    secret = torch.arange(10_000, dtype=torch.float64)
    data = to_bytes(make_update(backbone={"w": secret[:2]}))
    assert len(data) < 5000 and secret[5000:5002].numpy().tobytes() not in data
    assert secret[5000:5002].numpy().tobytes() in pickle.dumps(secret.numpy()), (
        "the search finds the secret in the storage"
    )


def test_round_trip_in_another_process() -> None:
    script = (
        "import sys; from fedreid_pl.federation.messages import from_bytes, to_bytes\n"
        "size = int(sys.stdin.buffer.readline())\n"
        "for data in (sys.stdin.buffer.read(size), sys.stdin.buffer.read()):\n"
        "    back = to_bytes(from_bytes(data))\n"
        "    sys.stdout.buffer.write(b'%d\\n' % len(back) + back)"
    )
    messages = [JOB, make_update(metrics={"a": 0.1, "b": 1e-300, "c": 7})]
    sent = [to_bytes(message) for message in messages]
    stream = io.BytesIO(b"%d\n" % len(sent[0]) + b"".join(sent))
    done = subprocess.run([sys.executable, "-c", script], input=stream.getvalue(), capture_output=True, check=True)
    answer = io.BytesIO(done.stdout)
    for message in messages:
        back = from_bytes(answer.read(int(answer.readline())))
        assert type(back) is type(message)
        assert {**vars(back), "backbone": 0} == {**vars(message), "backbone": 0}
        assert list(back.backbone) == list(message.backbone)
        for name, value in message.backbone.items():
            assert torch.equal(back.backbone[name], value) and back.backbone[name].dtype == value.dtype
            assert back.backbone[name].stride() == value.stride()


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("wrap", [pickle.dumps, saved, lambda evil: saved({"kind": "ClientUpdate", "metrics": evil})])
def test_code_in_the_bytes_does_not_run(tmp_path: Path, wrap: Any) -> None:
    target = tmp_path / "made"
    data = wrap(Evil(target))
    with pytest.raises(RejectedUpdate, match="not a message"):
        from_bytes(data)
    assert not target.exists()
    pickle.loads(pickle.dumps(Evil(target)))
    assert target.exists(), "pickle executes the same object"


@pytest.mark.parametrize(
    "content",
    [
        None,
        [1, 2],
        {},
        {"kind": "ClientUpdate"},
        {"kind": "os"},
        {"kind": ["ClientUpdate"]},
        {**vars(make_update()), "kind": "ClientUpdate", "head": torch.zeros(3)},
        {**vars(make_update()), "kind": "ClientJob"},
        {**vars(make_update()), "kind": "ClientUpdate", "metrics": None},
        {**vars(make_update()), "kind": "ClientUpdate", "metrics": {"path": "x.jpg"}},
        {**vars(make_update()), "kind": "ClientUpdate", "num_samples": "x.jpg"},
        {**vars(make_update()), "kind": "ClientUpdate", "backbone": [torch.zeros(1)]},
        {**vars(make_update()), "kind": "ClientUpdate", "round": torch.zeros(3)},
        {**vars(make_update()), "kind": "ClientUpdate", "client": {"a": 1}},
    ],
)
def test_other_content_is_rejected(content: Any) -> None:
    with pytest.raises(RejectedUpdate):
        from_bytes(saved(content))


WHOLE = to_bytes(make_update(metrics={"train/loss": 0.5}))


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=300))
def test_random_bytes_are_rejected(data: bytes) -> None:
    with pytest.raises(RejectedUpdate):
        from_bytes(data)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255), st.booleans())
def test_altered_bytes_are_rejected_or_still_a_message(place: int, byte: int, cut: bool) -> None:
    data = WHOLE[:place] if cut else WHOLE[:place] + bytes([byte]) + WHOLE[place + 1 :]
    try:
        message = from_bytes(data)
    except RejectedUpdate:
        return
    assert isinstance(message, ClientUpdate | ClientJob)
    assert not cut


def changed_state(**tensors: torch.Tensor) -> State:
    return {**make_state(), **tensors}


def poisoned(name: str, value: float) -> State:
    state = make_state()
    state[name][0] = value
    return state


def test_a_good_update_passes() -> None:
    check_update(make_update(metrics={"x": -1e308, "n": 10**300}), JOB)
    check_update(make_update(backbone={}), JOB.exchanging({}))


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"round": 2}, "round 2 for client a, expected round 3 and client a"),
        ({"client": "b"}, "round 3 for client b, expected round 3 and client a"),
        ({"num_samples": 0}, "reports 0 training images"),
        ({"num_samples": -4}, "reports -4"),
        ({"num_samples": True}, "reports True"),
        ({"num_samples": 10**400}, "reports 1000"),
        ({"backbone": {}}, "tensor .* is missing"),
        ({"backbone": changed_state(**{"head.weight": torch.zeros(3)})}, "'head.weight'"),
        (
            {"backbone": changed_state(**{"conv.weight": torch.zeros(4, 3, 3)})},
            r"shape \(4, 3, 3\), expected \(4, 3, 3, 3\)",
        ),
        ({"backbone": changed_state(half=torch.zeros(5))}, "float32, expected torch.float16"),
        ({"backbone": changed_state(**{"norm.running_var": torch.rand(4).double()})}, "float64"),
        ({"backbone": poisoned("conv.weight", NAN)}, "'conv.weight' contains NaN"),
        ({"backbone": poisoned("norm.running_var", INF)}, "'norm.running_var' contains NaN"),
        ({"backbone": poisoned("half", -INF)}, "'half' contains NaN"),
        ({"backbone": changed_state(**{"norm.running_var": torch.rand(4).to_sparse()})}, "not a dense tensor"),
        ({"backbone": changed_state(**{"norm.running_var": torch.empty(4, device="meta")})}, "not a dense tensor"),
        ({"metrics": {"train/loss": NAN}}, "metric 'train/loss' is nan"),
        ({"metrics": {"cosine_distance": INF}}, "metric 'cosine_distance' is inf"),
        ({"metrics": {"count": 10**400}}, "metric 'count'"),
    ],
)
def test_the_error_names_the_defect(changed: dict, wanted: str) -> None:
    with pytest.raises(RejectedUpdate, match=wanted):
        check_update(make_update(**changed), JOB)

"""Silos over the loopback transport give the bits of the sequential engine, whatever the order of answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import support
from end_to_end.test_every_experiment import EXPERIMENTS, MORE
from silos.parties import coordinator_words, make_parties, make_service, run_loopback

from fedreid_pl.cli import main
from fedreid_pl.config import compose
from fedreid_pl.errors import FedReIDError
from fedreid_pl.experiment import train
from fedreid_pl.federation.storage import read_state

ELSEWHERE = ("centralized",)
"""Experiments that need the images of all clients in one place."""

QUICK = ("fedpav_cc_rw", "fedpav_kd_rw", "scaffold")
"""Experiments of the quick tests: a declared answer, several models, a server's network, extras, a client's state."""


@pytest.mark.parametrize(
    "exp",
    [
        pytest.param(
            exp,
            marks=[] if exp in QUICK else [pytest.mark.system],
        )
        for exp in EXPERIMENTS
        if exp not in ELSEWHERE
    ],
)
def test_silos_give_the_bits_of_the_sequential_engine(exp: str, tiny_root: Path, tmp_path: Path) -> None:
    common = (f"exp={exp}", "rounds=3", "evaluate_every=2", "min_clients=3", *MORE.get(exp, []))
    straight, apart = tmp_path / "straight", tmp_path / "apart"
    assert main(["train", *support.quick(tiny_root, straight, "trainer.accelerator=cpu", *common)]) == 0

    federation, silos = make_parties(tmp_path / "parties", support.TINY)
    services = {name: make_service(silo, tiny_root) for name, silo in silos.items()}
    words = coordinator_words(tiny_root, apart, federation, *common)
    run_loopback(words, apart, {name: service.answer for name, service in services.items()})

    assert (straight / "metrics.csv").read_bytes() == (apart / "metrics.csv").read_bytes()
    one, other = (read_state(folder / "checkpoints" / "round-00003.ckpt") for folder in (straight, apart))
    for state in (one, other):
        state.pop("costs"), state.pop("lineage")
    support.assert_equal(one, other)
    assert not (apart / "clients").exists(), "the coordinator has no client state"
    for name, silo in silos.items():
        kept = sorted((straight / "clients" / name).glob("*.pt"))
        (folder,) = (silo.path / "sessions").iterdir()
        theirs = sorted((folder / "clients" / name).glob("*.pt"))
        assert [path.name for path in kept] == [path.name for path in theirs]
        for path, their in zip(kept, theirs, strict=True):
            mine, found = read_state(path), read_state(their)
            assert mine.pop("turn")["round"] == found.pop("turn")["round"]
            support.assert_equal(mine, found)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("exp=centralized",), "data.scenario=merged"),
        (("exp=fedpav", "model.name=networks:wide"), "a silo imports no code that a message names"),
        (("exp=fedpav_rw", "callbacks.reweighting.probe=code"), "sequential_order"),
    ],
)
def test_options_that_silos_do_not_support_are_refused_by_name(
    words: tuple[str, ...], named: str, tiny_root: Path, tmp_path: Path
) -> None:
    federation, _ = make_parties(tmp_path, ["a", "b"])
    output = tmp_path / "run"
    with pytest.raises(FedReIDError, match=named):
        run_loopback(coordinator_words(tiny_root, output, federation, *words), output, {})
    assert not output.exists(), "no file is written"


def test_at_least_one_silo_must_have_enough_persons_for_validation(tiny_root: Path, tmp_path: Path) -> None:
    federation, silos = make_parties(tmp_path / "parties", support.TINY)
    lines: list[str] = []
    services = {name: make_service(silo, tiny_root, lines.append) for name, silo in silos.items()}
    answers = {name: service.answer for name, service in services.items()}
    output = tmp_path / "some"
    words = coordinator_words(tiny_root, output, federation, "exp=fedpav", "rounds=1", "data.val_ids=0.2")
    loop = run_loopback(words, output, answers)
    *validated, small = support.TINY
    assert loop.context.tests[small] == (small,)
    assert all(loop.context.tests[name] == (name, f"val:{name}") for name in validated)
    assert len([line for line in lines if line.startswith("no validation persons here")]) == 1

    common = ("exp=fedpav", "rounds=1", "data.val_ids=0.2", "resume=never")
    straight, output = tmp_path / "straight", tmp_path / "none"
    federation, silos = make_parties(tmp_path / "small", [small])
    with pytest.raises(FedReIDError) as together:
        train(compose([*support.quick(tiny_root, straight, *common), f"data.datasets=[{small}]"]), straight)
    with pytest.raises(FedReIDError) as apart:
        words = coordinator_words(tiny_root, output, federation, *common)
        run_loopback(words, output, {small: make_service(silos[small], tiny_root).answer})
    assert str(apart.value) == str(together.value) and "no client has enough training persons" in str(apart.value)

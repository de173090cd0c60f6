"""Drawn splits never change."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import numpy as np
import pytest

from fedreid_pl.data.readers.drawn_split import draw_halves, random_state, shuffled, shuffled_persons
from fedreid_pl.errors import FedReIDError

FOLDER = Path("/data/VIPeR")


def test_recorded_splits_are_reproduced():
    """If this test fails, all drawn splits have changed and published numbers are no longer comparable."""
    train, test = draw_halves(range(1, 13), random_state(0, 0, "viper"), FOLDER)
    assert (sorted(train), sorted(test)) == ([1, 8, 9, 10, 11, 12], [2, 3, 4, 5, 6, 7])


def test_the_stream_depends_on_the_purpose():
    text = b"int:3\x1fint:1\x1fstr:grid"
    seed = (int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1) % 2**32
    expected = np.random.RandomState(seed).permutation(50)
    assert random_state(3, 1, "grid").permutation(50).tolist() == expected.tolist()
    assert random_state(1, 3, "grid").permutation(50).tolist() != expected.tolist()


def test_shuffled_is_the_permutation_of_the_sorted_items():
    items = ["b", "d", "a", "c", "a"]
    places = np.random.RandomState(8).permutation(4).tolist()
    assert shuffled(items, np.random.RandomState(8)) == ["abcd"[place] for place in places]


def test_order_and_repeats_do_not_matter():
    persons = [900, 7, 0, 31, 12, 5, 44]
    expected = draw_halves(persons, random_state("x"), FOLDER)
    for seed in range(5):
        mixed = random.Random(seed).sample(persons * 3, 21)
        assert draw_halves(mixed, random_state("x"), FOLDER) == expected


@pytest.mark.parametrize("count", range(2, 9))
def test_halves_are_whole_disjoint_and_rounded_down(count):
    train, test = draw_halves(range(count), random_state(count), FOLDER)
    assert train | test == set(range(count)) and not train & test
    assert (len(train), len(test)) == (count // 2, count - count // 2)


def test_every_person_is_trained_in_about_half_of_the_draws():
    times = np.zeros(10)
    for split in range(400):
        train, _ = draw_halves(range(10), random_state(0, split, "x"), FOLDER)
        times[sorted(train)] += 1
    assert times.sum() == 2000
    assert (abs(times - 200) < 50).all()  # five standard deviations of 10


@pytest.mark.parametrize("persons", [[], [4], [4, 4]])
def test_fewer_than_two_persons(persons):
    for draw in (draw_halves, shuffled_persons):
        with pytest.raises(FedReIDError, match=rf"^/data/VIPeR: {len(set(persons))} person\(s\)"):
            draw(persons, random_state("x"), FOLDER)

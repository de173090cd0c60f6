"""The image of a ranked list: order, size, and marks that are distinguishable without colours."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fedreid_pl.reporting.ranked_strip import FRAME, GAP, HEIGHT, RIGHT, WRONG, ranked_strip


def plain(colour: int, size: tuple[int, int] = (32, 64)) -> Image.Image:
    return Image.new("RGB", size, (colour, colour, colour))


def test_order_size_and_frames() -> None:
    strip = np.asarray(ranked_strip(plain(10), [(plain(80), True), (plain(160, (64, 64)), False)]))
    assert strip.shape == (HEIGHT + 2 * FRAME, 72 + 3 * GAP + 72 + GAP + 136, 3)
    middle = strip[HEIGHT // 2]
    first = 72 + 3 * GAP
    assert middle[36].tolist() == [10] * 3
    assert middle[first].tolist() == list(RIGHT) and middle[first + 36].tolist() == [80] * 3
    second = first + 72 + GAP
    assert middle[second].tolist() == list(WRONG) and middle[second + 68].tolist() == [160] * 3
    assert middle[first - 1].tolist() == middle[second - 1].tolist() == [255] * 3


def test_a_wrong_match_is_crossed_out_for_grey_print() -> None:
    right, wrong = (
        np.asarray(ranked_strip(plain(0), [(plain(80), correct)]).convert("L")) for correct in (True, False)
    )
    inside = (slice(FRAME, FRAME + HEIGHT), slice(72 + 3 * GAP + FRAME, -FRAME))
    assert len(np.unique(right[inside])) == 1 and len(np.unique(wrong[inside])) > 1


def test_a_query_alone() -> None:
    assert ranked_strip(plain(1).convert("L"), []).size == (64 + 2 * FRAME, HEIGHT + 2 * FRAME)

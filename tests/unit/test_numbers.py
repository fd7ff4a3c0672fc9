"""Numbers as people read them: one way for each kind."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from volprompt.numbers import KINDS, interval, number, p_value, with_interval

INFINITE, MISSING = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (number(0.91249, "score"), "0.912"),
        (number(-0.2, "score"), "−0.200"),
        (number(0.0123, "difference", signed=True), "+0.0123"),
        (number(-0.0123, "difference", signed=True), "−0.0123"),
        (number(-0.456, "effect", signed=True), "−0.46"),
        (number(-0.01234, "share"), "−1.2 %"),
        (number(0.8, "share"), "80.0 %"),
        (number(-0.0003, "share"), "0.0 %"),
        (number(INFINITE, "mm"), "∞"),
        (number(1.005, "seconds"), "1.0"),
        (number(93_735_472, "parameters"), "93.7 M"),
        (number(3_210.0, "gigabytes"), "3.2 GB"),
        (number(78_080, "count"), "78,080"),
        (number(np.int64(488), "count"), "488"),
        (number(3.0, "given"), "3"),
        (number(2.5, "given"), "2.5"),
        (number(0.365, "given"), "0.365"),
        (number(12_345.0, "given"), "12,345"),
        (interval(0.9, 0.92, "score"), "[0.900, 0.920]"),
        (interval(-0.02, 0.001, "difference", signed=True), "[−0.0200, +0.0010]"),
        (interval(1, 2.5, "given"), "[1, 2.5]"),
        (with_interval(0.91, 0.9, 0.92, "score"), "0.910 [0.900, 0.920]"),
        (with_interval(0.91, MISSING, MISSING, "score"), "0.910"),
        (p_value(0.0004), "< 0.001"),
        (p_value(0.0404), "0.040"),
    ],
)
def test_numbers(text: str, expected: str) -> None:
    assert text == expected


@pytest.mark.parametrize("missing", [None, MISSING, pd.NA])
def test_what_is_missing_is_one_dash(missing: object) -> None:
    texts = {number(missing, kind) for kind in KINDS}
    texts |= {interval(missing, missing, "score"), with_interval(missing, missing, missing, "score"), p_value(missing)}
    assert texts == {"–"}

"""The 95 % interval of a median over volumes, by the rule that holds in every table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from volprompt.tables.bootstrap import FEWEST, bootstrap_interval, has_repeated_subjects


class Interval(NamedTuple):
    """A 95 % interval of a median.

    low, high: its ends, NaN if there is none.
    kind: how it was made: `order statistics`, `bootstrap by group`, or `none`.
    groups: number of subjects that it rests on.
    """

    low: float
    high: float
    kind: str
    groups: int

    def columns(self, prefix: str = "") -> dict[str, Any]:
        """Return `low` and `high` under their names in a table."""
        return {f"{prefix}low": self.low, f"{prefix}high": self.high}


def interval_of_median(values: Sequence[float] | np.ndarray, subjects: Sequence[str]) -> Interval:
    """Return the interval of a median: exact if every volume is of another subject, else bootstrapped by subject.

    values: (volumes,), none of them NaN; subjects: of every volume. There is none for fewer than FEWEST subjects.
    """
    groups = len(set(subjects))
    if groups < FEWEST:
        return Interval(float("nan"), float("nan"), "none", groups)
    if has_repeated_subjects(subjects):
        return Interval(*bootstrap_interval(values, subjects), "bootstrap by group", groups)
    return Interval(*order_statistics(values), "order statistics", groups)


def order_statistics(values: Sequence[float] | np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Return the exact, distribution-free interval of a median: the order statistics that enclose it with `level`.

    values: none of them NaN; level: the least probability of enclosing the median. The number of values below the
    median is binomial with n and 1/2 (Conover, Practical Nonparametric Statistics, section 3.2), so a 95 % interval
    exists from n = 6 on; (NaN, NaN) for fewer.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    n = len(ordered)
    rank = int(stats.binom.ppf((1 - level) / 2, n, 0.5)) if n else 0
    if rank == 0:
        return float("nan"), float("nan")
    return float(ordered[rank - 1]), float(ordered[n - rank])

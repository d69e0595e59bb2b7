"""Medians, ranges and ratios: what a benchmark's runs amount to. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Measure:
    """One quantity over all runs, in the order of the runs."""

    name: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)


def ratios(above: Sequence[float], below: Sequence[float]) -> tuple[float, ...]:
    """The ratio of each pair. Raises ``ValueError`` where a run has no partner."""
    return tuple(a / b for a, b in zip(above, below, strict=True))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of ``values`` that is not below ``share`` (0 to 1) of them: nearest rank, no interpolation."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found for one target: the figure that counts, the same figure per pair, and what it is made of."""

    key: str
    figure: float
    per_pair: tuple[float, ...]
    measures: tuple[Measure, ...]
    notes: tuple[str, ...] = ()


def compared(key: str, above: Measure, below: Measure, *, notes: Sequence[str] = ()) -> Finding:
    """``above`` over ``below``: the ratio of the medians, and that of each pair."""
    return Finding(key, above.median / below.median, ratios(above.values, below.values), (above, below), tuple(notes))


def alone(key: str, measure: Measure, *others: Measure, notes: Sequence[str] = ()) -> Finding:
    """``measure`` itself."""
    return Finding(key, measure.median, measure.values, (measure, *others), tuple(notes))

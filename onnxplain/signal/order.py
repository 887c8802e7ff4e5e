"""The order of classifiers by the signal that they let in, and how sure it is."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SAMPLES, CONFIDENCE, TOLERANCE = 2000, 0.95, 0.01
"""How many bootstrap samples; what confidence counts as sure; how much accuracy a classifier may
lose and still be served."""
_CHUNK = 100  # bootstrap samples at a time: for large data, all of them would fill the memory


@dataclass(frozen=True)
class Order:
    """Which classifier's signal serves which, over C classifiers.

    "j serves i" means that i is as accurate on the reconstructions made for j as on those made for
    itself, up to the tolerance: what i needs is in what j lets in, i ⊑ j.

    Attributes:
        difference: [C, C], the accuracy of i (row) on the signal of j (column) minus that on its
            own signal.
        low, high: [C, C], the middle 95 % of that over the bootstrap.
        confidence: [C, C], the share of bootstrap samples in which j serves i.
        serves: bool [C, C], whether that is at least 95 %; true on the diagonal.
        undecided: bool [C, C], whether it is between 5 % and 95 %.
        groups: classifiers that serve each other, in rising order if there is one.
        above: pairs (a, b) of groups with a ⊏ b and none in between; empty if there is no order.
        stability: the share of bootstrap samples that give exactly this relation.
        verdict: the result as a sentence.
    """

    difference: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    confidence: NDArray[np.float64]
    serves: NDArray[np.bool_]
    undecided: NDArray[np.bool_]
    groups: list[list[int]]
    above: list[tuple[int, int]]
    stability: float
    verdict: str


def find_order(right: NDArray[np.bool_], seed: int = 0) -> Order:
    """The order that a study's answers imply.

    The pictures are resampled with replacement 2000 times, the same for all classifiers.

    Args:
        right: [C, C, N], whether classifier i was right about picture n in the signal of j.
        seed: for the bootstrap.
    """
    count, n = right.shape[0], right.shape[2]
    random = np.random.default_rng(seed)
    own = right[np.arange(count), np.arange(count)]
    paired = right.astype(np.float64) - own[:, None]
    difference = paired.mean(2)
    parts = []
    for _ in range(SAMPLES // _CHUNK):
        times = random.multinomial(n, np.full(n, 1 / n), size=_CHUNK).astype(np.float64)
        parts.append(paired.reshape(-1, n) @ times.T / n)
    drawn = np.concatenate(parts, 1).reshape(count, count, SAMPLES)
    served = drawn >= -TOLERANCE - 1e-12
    confidence = served.mean(2)
    serves = confidence >= CONFIDENCE
    undecided = (confidence > 1 - CONFIDENCE) & ~serves
    stability = float((served == serves[..., None]).all((0, 1)).mean())
    groups, above, verdict = _structure(serves, undecided)
    low, high = np.quantile(drawn, (0.025, 0.975), axis=2)
    return Order(
        difference, low, high, confidence, serves, undecided, groups, above, stability, verdict
    )


def _structure(
    serves: NDArray[np.bool_], undecided: NDArray[np.bool_]
) -> tuple[list[list[int]], list[tuple[int, int]], str]:
    """The groups, the steps from each to the next, and a sentence about them."""
    count = len(serves)
    alone = [[i] for i in range(count)]
    broken = [
        (i, k)
        for i, j, k in itertools.permutations(range(count), 3)
        if serves[i, j] and serves[j, k] and not serves[i, k]
    ]
    if any(not undecided[pair] for pair in broken):
        return alone, [], "none: the relation is not transitive"
    if broken:
        return alone, [], "none: the data cannot tell whether the relation is transitive"
    groups: list[list[int]] = []
    for i in range(count):
        same = next((g for g in groups if serves[i, g[0]] and serves[g[0], i]), None)
        if same is None:
            groups.append([i])
        else:
            same.append(i)
    # Whoever is served by more stands lower; if the relation is transitive, this order rises.
    groups.sort(key=lambda group: -int(serves[group[0]].sum()))
    below = [[bool(serves[a[0], b[0]]) and a is not b for b in groups] for a in groups]
    size = range(len(groups))
    above = [
        (a, b)
        for a in size
        for b in size
        if below[a][b] and not any(below[a][c] and below[c][b] for c in size)
    ]
    return groups, above, _verdict(groups, below, undecided)


def _verdict(groups: list[list[int]], below: list[list[bool]], undecided: NDArray[np.bool_]) -> str:
    open_pairs = int(undecided.sum())
    unsure = f"; of {open_pairs} ordered pairs the data cannot tell" if open_pairs else ""
    pairs = len(groups) * (len(groups) - 1) // 2
    related = sum(map(sum, below))
    if len(groups) == 1:
        return "none: every classifier's signal serves every other"
    if not related and all(len(group) == 1 for group in groups):
        return f"none: no classifier's signal serves another{unsure}"
    kind = "total" if related == pairs else "partial"
    return f"a {kind} order{unsure}"

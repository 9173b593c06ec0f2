r"""Classifier two-sample test: can a classifier tell generated from reference events?

A classifier trained on one part of both samples scores the events of the other.  The area under its ROC
curve is the chance that a generated event has the higher score, ties counting half,

.. math:: A = \sum_i w_i V_i, \qquad V_i = \frac1m \sum_j \left( 1[s_i > t_j] + \tfrac12 1[s_i = t_j] \right),

one half if the samples have one density (Lopez-Paz and Oquab, arXiv:1610.06545).  Its error follows from the
scatter of :math:`V_i` and of its counterpart for the reference events (DeLong et al., Biometrics 44 (1988)
837); it is that of the events scored, for the classifier as trained.

On held-out events of one density the scores say nothing of the labels, so permuting labels gives the exact
null distribution of A.  With several folds this no longer holds: if events i and j lie in different folds, i
helps to score j and j helps to score i.  For a score that is linear in the labels it was trained with,
:math:`s_i = \sum_j K_{ij} y_j` with symmetric K, both terms are equal, and the mean over folds has twice the
variance of permuted labels.  Deviations of the null from one half are therefore widened by :math:`\sqrt 2`
for more than one fold, which is a little too much for other classifiers.  A null that permutes all labels and
trains anew assumes nothing, but costs all trainings per draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import rankdata
from torch import Tensor, nn

from sbilib.diagnostics._checks import (
    Events,
    FloatArray,
    check_pair,
    check_seed,
    effective_weights,
    tail_share,
)
from sbilib.errors import DataError, ParameterError, TrainingError, check_choice, check_count

__all__ = ["ClassifierTest", "RocArea", "classifier_test", "roc_area"]

_LEAST_PER_PART = 20
_VALIDATION = 5  # one of so many training events decides when to stop
_N_TREES, _PATIENCE_TREES, _DEPTH, _N_BINS, _RATE, _RIDGE = 200, 20, 4, 64, 0.1, 5.0
_HIDDEN, _BATCH, _N_EPOCHS, _PATIENCE_EPOCHS, _LEARNING_RATE = (64, 64), 256, 60, 8, 3e-3


class RocArea(NamedTuple):
    """Area under a ROC curve."""

    value: float
    """Chance that a positive event has the higher score."""
    error: float
    """Its standard error."""


@dataclass(frozen=True)
class ClassifierTest:
    """Result of a classifier two-sample test."""

    kind: str
    """``"trees"`` or ``"network"``."""
    auc: float
    """Area under the ROC curve on held-out events, the mean over folds."""
    error: float
    """Its error for the classifiers as trained."""
    fold_auc: tuple[float, ...]
    """Area of each fold."""
    null: FloatArray
    """Areas if both samples had one density, ``(n_draws,)``."""
    retrained: bool
    """Whether the null comes from classifiers trained with permuted labels, or from their scores alone."""
    p_value: float
    """Share of ``null`` at or above the area."""
    generated_scores: FloatArray
    """Log odds of the generated events, ``(n,)``; NaN for those that only trained."""
    reference_scores: FloatArray
    """Log odds of the reference events, ``(m,)``; NaN for those that only trained."""

    @property
    def null_band(self) -> tuple[float, float]:
        """2.5% and 97.5% quantiles of ``null``."""
        low, high = np.quantile(self.null, (0.025, 0.975))
        return float(low), float(high)


class _Labeled(NamedTuple):
    """Events with their label, 1 if generated, and a weight."""

    x: FloatArray
    y: FloatArray
    weights: FloatArray

    def part(self, chosen: NDArray[np.bool_]) -> _Labeled:
        """The chosen events, weighted so that both labels weigh alike and the mean weight is one."""
        x, y, weights = self.x[chosen], self.y[chosen], self.weights[chosen]
        sums = np.where(y == 1, weights[y == 1].sum(), weights[y == 0].sum())
        return _Labeled(x, y, weights * len(y) / (2 * sums))


_Score = Callable[[FloatArray], FloatArray]


def roc_area(positive: Events, negative: Events, *, weights: Events | None = None) -> RocArea:
    """Area under the ROC curve of scores, and its error.

    Args:
        positive: scores of positive events, ``(n,)``.
        negative: scores of negative events, ``(m,)``.
        weights: of the positive events, ``(n,)``.

    Raises:
        DataError: if there are fewer than two scores of a kind, or one is not finite.

    Example:
        >>> roc_area([1.0, 2.0], [0.0, 1.0]).value
        0.875
    """
    both = [np.sort(np.asarray(each, dtype=np.float64), kind="stable") for each in (positive, negative)]
    if any(each.ndim != 1 or len(each) < 2 or not np.isfinite(each).all() for each in both):
        raise DataError(
            f"scores must be two or more finite numbers of each kind, got shapes {both[0].shape} and "
            f"{both[1].shape}; check the classifier"
        )
    scores = np.asarray(positive, dtype=np.float64)
    given = effective_weights(weights, len(scores))
    shares = given / given.sum()
    ours = _share_below(both[1], np.ones(len(both[1])), scores)
    order = np.argsort(scores, kind="stable")
    theirs = 1 - _share_below(both[0], shares[order], both[1])
    value = float(shares @ ours)
    variance = float(np.square(shares * (ours - value)).sum()) + float(theirs.var(ddof=1)) / len(theirs)
    return RocArea(value, math.sqrt(variance))


def classifier_test(
    generated: Events,
    reference: Events,
    *,
    seed: int,
    kind: str = "trees",
    names: Sequence[str] | None = None,
    weights: Events | None = None,
    n_folds: int = 1,
    n_permutations: int = 1000,
    n_retrained: int = 0,
) -> ClassifierTest:
    """Train a classifier to tell the samples apart, and test its area on held-out events.

    Weighted events cannot trade labels with others; the null of their area is a normal distribution with its
    error.

    Args:
        generated: events, ``(n, d)``.
        reference: events, ``(m, d)``, on which the generator was not trained.
        seed: of folds, classifiers and permutations.
        kind: ``"trees"`` boosts trees on binned features; ``"network"`` is a fully connected one.
        names: of the features, for messages.
        weights: of the generated events, ``(n,)``.
        n_folds: 1 trains on one half and tests on the other, with an exact null; k > 1 tests each of k parts
            with a classifier trained on all others.
        n_permutations: draws of the null for the scores found.
        n_retrained: draws of the null with classifiers trained anew; if positive, they replace the others.

    Raises:
        DataError: if the samples cannot be compared; the message names the feature.
        ParameterError: if the kind is unknown, numbers are too small, names do not fit, or weighted samples
            are to be retrained.

    Example:
        >>> rng = np.random.default_rng(1)
        >>> x, y = rng.normal(size=(2, 1000, 2))
        >>> result = classifier_test(x + [2.0, 0.0], y, seed=2)  # area Phi(sqrt 2) = 0.92
        >>> round(result.auc, 1), result.p_value < 0.01
        (0.9, True)
    """
    check_choice("kind", kind, _LEARNERS)
    check_count("n_folds", n_folds, low=1)
    check_count("n_permutations", n_permutations, low=1)
    least = _LEAST_PER_PART * max(2, n_folds)
    remedy = f"each part needs {_LEAST_PER_PART}, so pass more events or fewer folds"
    pair = check_pair(generated, reference, names=names, weights=weights, least=least, remedy=remedy)
    if check_count("n_retrained", n_retrained) and pair.weighted:
        raise ParameterError(
            "labels of weighted events cannot be permuted; pass n_retrained=0, or first draw events by weight"
        )
    n, m = len(pair.generated), len(pair.reference)
    events = _Labeled(
        np.concatenate((pair.generated, pair.reference)),
        np.repeat([1.0, 0.0], [n, m]),
        np.concatenate((pair.weights, np.ones(m))),
    )
    scores, folds = _held_out_scores(events, kind, n_folds, check_seed(seed, 0))
    areas = _fold_areas(events, scores, folds)
    auc = float(np.mean([area.value for area in areas]))
    error = math.sqrt(sum(area.error**2 for area in areas)) / len(areas)
    if n_retrained:
        null = _retrained_null(events, kind, n_folds, n_retrained, seed)
    elif pair.weighted:
        null = error * check_seed(seed, 1).normal(size=n_permutations)
    else:
        null = _permuted_null(events.y, scores, folds, n_permutations, check_seed(seed, 1))
    null = 0.5 + null * (math.sqrt(2) if n_folds > 1 and not n_retrained else 1.0)
    return ClassifierTest(
        kind=kind,
        auc=auc,
        error=error,
        fold_auc=tuple(area.value for area in areas),
        null=null,
        retrained=n_retrained > 0,
        p_value=float(tail_share(null, auc)),
        generated_scores=scores[:n],
        reference_scores=scores[n:],
    )


def _share_below(ordered: FloatArray, weights: FloatArray, values: FloatArray) -> FloatArray:
    """Share of the weight of sorted scores below each value, plus half of that at it."""
    sums = np.concatenate(([0.0], np.cumsum(weights)))
    low, high = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    return np.asarray((sums[low] + sums[high]) / (2 * sums[-1]), dtype=np.float64)


def _held_out_scores(
    events: _Labeled, kind: str, n_folds: int, generator: np.random.Generator
) -> tuple[FloatArray, NDArray[np.intp]]:
    """Score of each event by a classifier that has not seen it, and the fold it was tested in (or -1)."""
    n_parts, place = max(2, n_folds), np.empty(len(events.y), dtype=np.intp)
    for label in (0, 1):
        chosen = events.y == label
        place[chosen] = generator.permutation(int(chosen.sum()))
    parts, stops = place % n_parts, (place // n_parts) % _VALIDATION == 0
    scores = np.full(len(parts), np.nan)
    for fold in range(n_folds):
        train = parts != fold
        score = _LEARNERS[kind](events.part(train & ~stops), events.part(train & stops), generator)
        scores[~train] = score(events.x[~train])
    return scores, np.where(parts < n_folds, parts, -1)


def _fold_areas(events: _Labeled, scores: FloatArray, folds: NDArray[np.intp]) -> list[RocArea]:
    areas = []
    for fold in range(int(folds.max()) + 1):
        ours, theirs = ((folds == fold) & (events.y == label) for label in (1, 0))
        areas.append(roc_area(scores[ours], scores[theirs], weights=events.weights[ours]))
    return areas


def _permuted_null(
    y: FloatArray, scores: FloatArray, folds: NDArray[np.intp], n_draws: int, generator: np.random.Generator
) -> FloatArray:
    """Areas less one half for permuted labels of the scores found, ``(n_draws,)``."""
    null, n_folds = np.zeros(n_draws), int(folds.max()) + 1
    for fold in range(n_folds):
        ranks, n = rankdata(scores[folds == fold]), int(y[folds == fold].sum())
        means = np.array([generator.permutation(ranks)[:n].mean() for _ in range(n_draws)])
        null += (means - (len(ranks) + 1) / 2) / (len(ranks) - n)
    return null / n_folds


def _retrained_null(events: _Labeled, kind: str, n_folds: int, n_draws: int, seed: int) -> FloatArray:
    """Areas less one half of classifiers trained with permuted labels, ``(n_draws,)``."""
    null = []
    for draw in range(n_draws):
        generator = check_seed(seed, 2, draw)
        permuted = events._replace(y=generator.permutation(events.y))
        scores, folds = _held_out_scores(permuted, kind, n_folds, generator)
        null.append(np.mean([area.value for area in _fold_areas(permuted, scores, folds)]) - 0.5)
    return np.array(null)


def _fit_trees(train: _Labeled, valid: _Labeled, generator: np.random.Generator) -> _Score:
    """Boosted symmetric trees: at each level one question, a threshold on a feature, for all leaves."""
    levels = np.arange(1, _N_BINS) / _N_BINS
    edges = [np.unique(np.quantile(column, levels)) for column in train.x.T]
    bins, valid_bins = _binned(train.x, edges), _binned(valid.x, edges)
    logit, valid_logit = np.zeros(len(train.y)), np.zeros(len(valid.y))
    trees: list[tuple[list[tuple[int, int]], FloatArray]] = []
    best_loss, n_best = math.inf, 0
    while len(trees) < min(_N_TREES, n_best + _PATIENCE_TREES):
        chance = expit(logit)
        gradient = train.weights * (train.y - chance)
        curvature = train.weights * chance * (1 - chance)
        questions: list[tuple[int, int]] = []
        leaves = np.zeros(len(logit), dtype=np.intp)
        for _ in range(_DEPTH):
            questions.append(_best_question(bins, leaves, 2 ** len(questions), gradient, curvature))
            leaves = _leaves(bins, questions)
        sums = [np.bincount(leaves, each, minlength=2**_DEPTH) for each in (gradient, curvature)]
        trees.append((questions, _RATE * sums[0] / (sums[1] + _RIDGE)))
        logit += trees[-1][1][leaves]
        valid_logit += trees[-1][1][_leaves(valid_bins, questions)]
        loss = float(valid.weights @ (np.logaddexp(0, valid_logit) - valid.y * valid_logit))
        if loss < best_loss:
            best_loss, n_best = loss, len(trees)

    def score(x: FloatArray) -> FloatArray:
        binned = _binned(x, edges)
        terms: Iterator[FloatArray] = (values[_leaves(binned, asked)] for asked, values in trees[:n_best])
        return np.asarray(sum(terms, np.zeros(len(x))), dtype=np.float64)

    return score


def _binned(x: FloatArray, edges: list[FloatArray]) -> NDArray[np.intp]:
    return np.stack([np.searchsorted(edge, column) for edge, column in zip(edges, x.T, strict=True)])


def _leaves(bins: NDArray[np.intp], questions: list[tuple[int, int]]) -> NDArray[np.intp]:
    leaves = np.zeros(bins.shape[1], dtype=np.intp)
    for feature, last in questions:
        leaves = 2 * leaves + (bins[feature] > last)
    return leaves


def _best_question(
    bins: NDArray[np.intp],
    leaves: NDArray[np.intp],
    n_leaves: int,
    gradient: FloatArray,
    curvature: FloatArray,
) -> tuple[int, int]:
    """Feature and last bin of the lower side with the largest gain in likelihood over all leaves."""
    best, question = -math.inf, (0, 0)
    for feature, binned in enumerate(bins):
        cells = leaves * _N_BINS + binned
        shape = n_leaves, _N_BINS
        below = [
            np.bincount(cells, each, minlength=n_leaves * _N_BINS).reshape(shape).cumsum(axis=1)
            for each in (gradient, curvature)
        ]
        above = [each[:, -1:] - each for each in below]
        gain = sum(np.square(side[0]) / (side[1] + _RIDGE) for side in (below, above)).sum(axis=0)
        if gain.max() > best:
            best, question = float(gain.max()), (feature, int(gain.argmax()))
    return question


def _fit_network(train: _Labeled, valid: _Labeled, generator: np.random.Generator) -> _Score:
    """A fully connected network with early stopping."""
    mean, scale = train.x.mean(axis=0), train.x.std(axis=0)
    scale[scale == 0] = 1.0  # a feature may vary in the other part only

    def inputs(x: FloatArray) -> Tensor:
        return torch.from_numpy((x - mean) / scale).float()

    seed = int(generator.integers(2**62))
    shuffle = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise((train.x.shape[1], *_HIDDEN)):
            layers += [nn.Linear(n_in, n_out), nn.SiLU()]
        model = nn.Sequential(*layers, nn.Linear(_HIDDEN[-1], 1), nn.Flatten(0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE, weight_decay=1e-2)
    data, held = (
        (inputs(each.x), *(torch.from_numpy(values).float() for values in each[1:]))
        for each in (train, valid)
    )
    loss = nn.functional.binary_cross_entropy_with_logits
    best_loss, best_epoch, best = math.inf, 0, model.state_dict()
    for epoch in range(_N_EPOCHS):
        for rows in torch.split(torch.randperm(len(data[0]), generator=shuffle), _BATCH):
            x, y, weights = (each[rows] for each in data)
            optimizer.zero_grad(set_to_none=True)
            loss(model(x), y, weight=weights).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.no_grad():
            value = float(loss(model(held[0]), held[1], weight=held[2]))
        if value < best_loss:
            best = {name: each.clone() for name, each in model.state_dict().items()}
            best_loss, best_epoch = value, epoch
        elif not math.isfinite(value):
            raise TrainingError(
                f"the loss of the classifier became {value} in epoch {epoch}; look for extreme values in the "
                "features, or use kind='trees'"
            )
        elif epoch - best_epoch >= _PATIENCE_EPOCHS:
            break
    model.load_state_dict(best)

    @torch.no_grad()
    def score(x: FloatArray) -> FloatArray:
        return np.asarray(model(inputs(x)).double().numpy(), dtype=np.float64)

    return score


_LEARNERS: dict[str, Callable[[_Labeled, _Labeled, np.random.Generator], _Score]] = {
    "trees": _fit_trees,
    "network": _fit_network,
}

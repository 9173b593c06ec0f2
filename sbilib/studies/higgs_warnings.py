r"""Second opinions: does the disagreement of two pairs of models say that one of them is wrong?

The best fits of two pairs in the same toy differ by :math:`\Delta`.  In units of half the mean width of their
intervals,

.. math:: D = \frac{|\hat\theta_1 - \hat\theta_2|}{(w_1 + w_2) / 4} .

One pair is judged and the other gives the second opinion; an alarm is raised if :math:`D` is above a
threshold.  The judged pair is *wrong* at a true nuisance value if its intervals cover less than a limit
there, over toys at all signal ratios.  The score is :math:`D` of one toy, which is what an experiment has,
or the mean over toys, which a study of the models has.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sbilib.errors import DataError, ParameterError, check_choice, check_count, check_range
from sbilib.studies.higgs_agreement import RocCurve, warning_roc

__all__ = ["Opinions", "PairEstimates", "RocBand", "roc_band", "second_opinions", "wrong_after_agreement"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
_GRID = np.linspace(0.0, 1.0, 101)
_KEYS = ["recipe", "method", "seed"]


class PairEstimates(NamedTuple):
    """Best fits and intervals of one parameter in the same toys, for several pairs of models."""

    names: pd.DataFrame
    """``recipe``, ``method`` and ``seed`` of each pair."""
    nuisances: Floats
    """True nuisance values, shape ``(n_values,)``."""
    best: Floats
    """Best fits, shape ``(n_pairs, n_values, n_toys)``; toys at all signal ratios."""
    covers: Flags
    """Whether the interval holds the truth, same shape."""
    half_width: Floats
    """Half of the mean width of closed intervals, shape ``(n_pairs,)``."""

    @classmethod
    def of_table(cls, table: pd.DataFrame, parameter: str) -> PairEstimates:
        """From rows of toys of `CoveragePlan` or `HiggsModels`.

        Raises:
            ParameterError: for another parameter.
            DataError: if there are no toys, or not the same ones for all pairs.
        """
        check_choice("parameter", parameter, ("mu", "z"))
        toys = table[table["kind"] == "toy"].sort_values([*_KEYS, "z", "mu", "toy"], kind="stable")
        names = toys[_KEYS].drop_duplicates().reset_index(drop=True)
        values = np.sort(toys["z"].unique())
        shape = (len(names), len(values), -1)
        if len(names) == 0 or toys.groupby(_KEYS).size().nunique() != 1:
            raise DataError("every pair needs the same toys; make them with one CoveragePlan")
        truth = toys[parameter].to_numpy(float)
        lower, upper = (toys[f"{parameter}_{end}"].to_numpy(float) for end in ("lower", "upper"))
        width = np.where(np.isfinite(upper - lower), upper - lower, np.nan).reshape(len(names), -1)
        return cls(
            names,
            values,
            toys[f"{parameter}_hat"].to_numpy(float).reshape(shape),
            ((lower <= truth) & (truth <= upper)).reshape(shape),
            np.nanmean(width, axis=1) / 2,
        )

    def numbers(self, method: str, recipes: tuple[str, ...]) -> NDArray[np.int64]:
        """Which pairs are of a method and one of some recipes."""
        chosen = (self.names["method"] == method) & self.names["recipe"].isin(recipes)
        return np.flatnonzero(chosen.to_numpy())


class Opinions(NamedTuple):
    """Disagreement of judged pairs with second opinions."""

    judged: NDArray[np.int64]
    """Numbers of the judged pairs, shape ``(n_judged,)``."""
    others: NDArray[np.int64]
    """Numbers of the pairs that give the second opinion, shape ``(n_others,)``."""
    disagreement: Floats
    """D, shape ``(n_judged, n_others, n_values, n_toys)``; NaN where a pair would judge itself."""
    wrong: Flags
    """Whether the judged pair is wrong, shape ``(n_judged, n_values)``."""

    def scores(self, *, single_toys: bool) -> tuple[Floats, Flags]:
        """Scores and whether the judged pair is wrong, each ``(n_judged, n_others, n_cases)``."""
        score = self.disagreement if single_toys else self.disagreement.mean(axis=3, keepdims=True)
        wrong = np.broadcast_to(self.wrong[:, None, :, None], score.shape)
        shape = (*score.shape[:2], -1)
        return score.reshape(shape), wrong.reshape(shape)


class RocBand(NamedTuple):
    """An ROC with a band from drawing the models anew."""

    curve: RocCurve
    """The curve; its own error takes cases for independent and is too small."""
    false_alarms: Floats
    """Shares of false alarms at which the band is given."""
    lower: Floats
    """Lower end of the central 68% of the detected share."""
    upper: Floats
    """Upper end."""
    error: float
    """Standard deviation of the area over the draws."""
    n_wrong: int
    """Judged pairs and nuisance values that are wrong."""
    n_judged: int
    """Judged pairs and nuisance values in all."""


def second_opinions(
    estimates: PairEstimates,
    judged: NDArray[np.int64],
    others: NDArray[np.int64],
    *,
    lowest_coverage: float = 0.6,
    every: int = 1,
) -> Opinions:
    """Disagreement of each judged pair with each of the others in each toy.

    Args:
        estimates: of all pairs.
        judged: numbers of the judged pairs.
        others: numbers of the pairs that give the second opinion.
        lowest_coverage: a judged pair that covers less at a nuisance value is wrong there.
        every: take every so many-th toy only, for the disagreement; coverage is from all.

    Raises:
        ParameterError: if there is nobody to judge or to ask.
    """
    check_range("lowest_coverage", lowest_coverage, low=0.0, high=1.0)
    check_count("every", every, low=1)
    if len(judged) == 0 or len(others) == 0:
        raise ParameterError("second opinions need pairs to judge and others to ask; got none")
    best = estimates.best[:, :, ::every]
    unit = (estimates.half_width[judged][:, None] + estimates.half_width[others][None]) / 2
    gap = np.abs(best[judged][:, None] - best[others][None]) / unit[:, :, None, None]
    gap[judged[:, None] == others[None]] = np.nan
    wrong = estimates.covers[judged].mean(axis=2) < lowest_coverage
    return Opinions(judged, others, gap, wrong)


def roc_band(opinions: Opinions, *, single_toys: bool, seed: int, n_draws: int = 100) -> RocBand | None:
    """ROC of the alarm, with a band from models drawn anew with replacement, of both kinds at once.

    Args:
        opinions: disagreements.
        single_toys: score single toys instead of means over toys.
        seed: seed of the draws.
        n_draws: how many.

    Returns:
        The curve with its band; None if none of the cases with a finite score is wrong, or all are.
    """
    score, wrong = opinions.scores(single_toys=single_toys)
    if not _both_kinds(score, wrong):
        return None
    curve = _roc(score, wrong)
    random, detected, areas = np.random.default_rng(seed), [], []
    for _ in range(n_draws):
        rows = random.integers(0, score.shape[0], score.shape[0])
        columns = random.integers(0, score.shape[1], score.shape[1])
        chosen = np.ix_(rows, columns)
        part, flags = score[chosen], wrong[chosen]
        if not _both_kinds(part, flags):
            continue
        drawn = _roc(part, flags)
        detected.append(np.interp(_GRID, drawn.false_alarms, drawn.detected))
        areas.append(drawn.area)
    if len(areas) < 2:
        return None
    lower, upper = np.quantile(np.stack(detected), (0.16, 0.84), axis=0)
    counts = int(opinions.wrong.sum()), opinions.wrong.size
    return RocBand(curve, _GRID, lower, upper, float(np.std(areas)), *counts)


def _both_kinds(score: np.ndarray, wrong: np.ndarray) -> bool:
    """Whether there are wrong and right cases among those with a finite score."""
    flags = wrong[np.isfinite(score)]
    return bool(flags.any() and not flags.all())


def wrong_after_agreement(opinions: Opinions, *, n_groups: int = 4) -> pd.DataFrame:
    """How often the judged pair is wrong, in groups of increasing disagreement in single toys.

    Returns:
        A row per group of equally many toys, with the ``lowest`` and ``highest`` disagreement and ``wrong``,
        the share of toys whose judged pair is wrong at their nuisance value.
    """
    check_count("n_groups", n_groups, low=1)
    score, wrong = opinions.scores(single_toys=True)
    sound = np.isfinite(score)
    order = np.argsort(score[sound], kind="stable")
    scores, flags = score[sound][order], wrong[sound][order]
    parts = zip(np.array_split(scores, n_groups), np.array_split(flags, n_groups), strict=True)
    rows = [
        {"lowest": some[0], "highest": some[-1], "wrong": flag.mean()} for some, flag in parts if len(some)
    ]
    return pd.DataFrame(rows, columns=["lowest", "highest", "wrong"])


def _roc(score: Floats, wrong: Flags) -> RocCurve:
    sound = np.isfinite(score)
    return warning_roc(pd.Series(score[sound]), pd.Series(wrong[sound]))

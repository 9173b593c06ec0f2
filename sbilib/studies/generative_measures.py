r"""Every comparison of a sample with reference events, as rows of one table, and back.

The rows of a sample are of these kinds: ``"divergence"`` (feature, measure), ``"correlation"`` (pair of
features, Pearson or Spearman) with ``"correlations"`` (the largest of each), ``"tail"`` (feature, level),
``"classifier"`` (trees and network), ``"sliced"``, ``"impossible"`` (inequalities that events must fulfill)
and ``"histogram"`` (feature, bin).  The columns are those of `sbilib.diagnostics`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from sbilib.diagnostics import (
    DIVERGENCES,
    FeatureDivergences,
    classifier_test,
    compare_correlations,
    compare_features,
    compare_tails,
    sliced_wasserstein,
)
from sbilib.errors import DataError, check_count
from sbilib.models.preprocessing_base import Floor, TransformConfig
from sbilib.studies.bsm_bounds import EVENT_FLOORS

__all__ = [
    "IMPOSSIBLE",
    "MeasureSettings",
    "feature_divergences",
    "headline",
    "impossible_events",
    "measure_sample",
]

_CORRELATIONS = ("pearson", "spearman")
_LEAST_FOR_TAILS = 10

IMPOSSIBLE: Mapping[str, Mapping[str, Floor]] = {
    "jets out of order": {name: EVENT_FLOORS[name] for name in EVENT_FLOORS if name.startswith("jet")},
    "masses too small": {name: EVENT_FLOORS[name] for name in EVENT_FLOORS if name.startswith("m_")},
}
"""Sets of inequalities by name: features and their floors."""


@dataclass(frozen=True, kw_only=True)
class MeasureSettings:
    """Sizes of the comparisons.

    Args:
        n_bins: bins of each feature with equal shares of the reference.
        n_splits: pairs of reference samples in a baseline.
        n_bootstrap: bootstraps of each error.
        n_directions: directions of the sliced distance.
        n_permutations: draws of each null distribution.
        n_shown: equal bins of each histogram.

    Raises:
        ParameterError: for numbers that are too small.
    """

    n_bins: int = 50
    n_splits: int = 400
    n_bootstrap: int = 40
    n_directions: int = 30
    n_permutations: int = 200
    n_shown: int = 40

    def __post_init__(self) -> None:
        for name in ("n_splits", "n_directions", "n_permutations", "n_shown"):
            check_count(name, getattr(self, name), low=1)
        for name in ("n_bins", "n_bootstrap"):
            check_count(name, getattr(self, name), low=2)


def measure_sample(
    generated: Tensor,
    reference: Tensor,
    spare: Tensor,
    names: tuple[str, ...],
    settings: MeasureSettings,
    *,
    seed: int,
) -> pd.DataFrame:
    """Compare a sample with reference events in every way of the module.

    Args:
        generated: events, ``(n, features)``.
        reference: events that no training has seen, ``(m, features)``.
        spare: further simulated events for the baselines, ``(l, features)``.
        names: of the features.
        settings: sizes of the comparisons.
        seed: of everything random.

    Returns:
        Rows as in the module's description.

    Raises:
        DataError: if samples cannot be compared; the message names the feature.
    """
    features = compare_features(
        generated, reference, seed=seed, names=names, spare=spare, n_bins=settings.n_bins,
        n_splits=settings.n_splits, n_bootstrap=settings.n_bootstrap,
    )  # fmt: skip
    divergences = features.table().reset_index().assign(kind="divergence", disjoint=features.disjoint)
    divergences["n_bins"] = np.repeat(features.n_bins, len(DIVERGENCES))
    parts = [
        divergences,
        *_correlation_rows(generated, reference, names, settings, seed),
        _classifier_rows(generated, reference, names, settings, seed),
        _sliced_rows(generated, reference, names, settings, seed),
        pd.DataFrame([impossible_events(generated, names)]).assign(kind="impossible"),
        _histogram_rows(generated, reference, names, settings.n_shown),
    ]
    least = min(len(generated), len(reference))
    levels = [
        level for level in (0.001, 0.01, 0.99, 0.999) if least * min(level, 1 - level) >= _LEAST_FOR_TAILS
    ]
    if levels:
        tails = compare_tails(generated, reference, names=names, levels=levels)
        parts.append(tails.table().reset_index().assign(kind="tail"))
    return pd.concat(parts, ignore_index=True)


def impossible_events(events: Tensor, names: tuple[str, ...]) -> dict[str, float]:
    """Share of events that break an inequality of each set of `IMPOSSIBLE`.

    Example:
        >>> import torch
        >>> names = ("m_jj", "m_jjj", "m_lv", "m_jlv", "m_bb", "m_wbb", "m_wwbb")
        >>> event = torch.tensor([[80.0, 170.0, 80.0, 175.0, 120.0, 300.0, 420.0]])
        >>> impossible_events(torch.cat([event, event[:, [0, 0, 2, 3, 4, 4, 6]]]), names)
        {'masses too small': 0.5}
    """
    values = events.double()
    shares = {}
    for label, floors in IMPOSSIBLE.items():
        parts = {part for groups in floors.values() for group in groups for part in group}
        if not set(floors) | parts <= set(names):
            continue
        order = TransformConfig(
            names=names, bounds=((None, None),) * len(names), floors=tuple(floors.items())
        )
        broken = (order.above_floors(values) < 0)[:, [names.index(name) for name in floors]].any(dim=1)
        shares[label] = float(broken.double().mean())
    return shares


def feature_divergences(table: pd.DataFrame, unit: str) -> FeatureDivergences:
    """The divergences of one unit, as `sbilib.diagnostics.compare_features` gave them.

    Raises:
        DataError: if the table has none of that unit.
    """
    rows = _rows(table, unit, "divergence")
    names = tuple(dict.fromkeys(rows["feature"]))
    fields = ("value", "error", "baseline", "baseline_low", "baseline_high", "p_value")
    found = {name: rows[name].to_numpy(float).reshape(len(names), len(DIVERGENCES)) for name in fields}
    n_bins = rows["n_bins"].to_numpy(int)[:: len(DIVERGENCES)]
    return FeatureDivergences(
        names=names, **found, n_bins=tuple(n_bins.tolist()), disjoint=bool(rows["disjoint"].iloc[0])
    )


def headline(table: pd.DataFrame, unit: str) -> dict[str, float | str]:
    """The verdict of each comparison on one unit.

    Args:
        table: rows of finished units.
        unit: name of one.

    Returns:
        ``kl_worst`` (largest ratio of KL over its baseline) with its ``kl_feature``, ``kl_p`` (smallest
        p-value of a feature, times their number), likewise ``wasserstein_worst``, ``wasserstein_feature``
        and ``wasserstein_p``; for Pearson's correlations ``correlation`` (largest modulus of a difference),
        ``correlation_by_chance`` and ``correlation_p``, and ``rank_correlation`` and so on for Spearman's;
        for trees and network ``trees``, ``trees_error``, ``trees_low``, ``trees_high``, ``trees_p`` and so
        on; ``sliced`` (distance over the mean of its null) and ``sliced_p``; ``tail_p`` (smallest p-value,
        times their number) with ``tail_feature``, NaN for samples too small to have tails.

    Raises:
        DataError: if the table has no such unit.
    """
    result: dict[str, float | str] = {}
    features = feature_divergences(table, unit)
    for measure in ("kl", "wasserstein"):
        column = features.column(measure)
        ratio = features.ratio[:, column]
        smallest = len(ratio) * float(features.p_value[:, column].min())
        result[f"{measure}_worst"] = float(ratio.max())
        result[f"{measure}_feature"] = features.names[int(ratio.argmax())]
        result[f"{measure}_p"] = min(1.0, smallest)
    for kind, label in zip(_CORRELATIONS, ("correlation", "rank_correlation"), strict=True):
        rows = _rows(table, unit, "correlations")
        row = rows[rows["method"] == kind].iloc[0]
        result[label], result[f"{label}_p"] = float(row["value"]), float(row["p_value"])
        result[f"{label}_by_chance"] = float(row["high"])
    for _, row in _rows(table, unit, "classifier").iterrows():
        result[row["method"]] = float(row["value"])
        result |= {f"{row['method']}_{name}": float(row[name]) for name in ("error", "low", "high")}
        result[f"{row['method']}_p"] = float(row["p_value"])
    row = _rows(table, unit, "sliced").iloc[0]
    result["sliced"], result["sliced_p"] = float(row["value"] / row["baseline"]), float(row["p_value"])
    tails = table[(table["unit"] == unit) & (table["kind"] == "tail")]
    result["tail_p"], result["tail_feature"] = float("nan"), ""
    if len(tails):
        result["tail_p"] = min(1.0, len(tails) * max(0.0, float(tails["p_value"].min())))
        result["tail_feature"] = str(tails["feature"].to_numpy()[tails["p_value"].to_numpy().argmin()])
    return result


def _rows(table: pd.DataFrame, unit: str, kind: str) -> pd.DataFrame:
    rows = table[(table["unit"] == unit) & (table["kind"] == kind)]
    if rows.empty:
        known = ", ".join(dict.fromkeys(table["unit"]))
        raise DataError(f"the table has no rows of kind {kind!r} of unit {unit!r}; its units are {known}")
    return rows


def _correlation_rows(
    generated: Tensor, reference: Tensor, names: tuple[str, ...], settings: MeasureSettings, seed: int
) -> list[pd.DataFrame]:
    pairs, largest = [], []
    for kind in _CORRELATIONS:
        found = compare_correlations(
            generated, reference, seed=seed, kind=kind, names=names, n_bootstrap=settings.n_bootstrap
        )
        pairs.append(found.table().reset_index().assign(kind="correlation", method=kind))
        largest.append(
            {
                "kind": "correlations",
                "method": kind,
                "value": found.largest,
                "error": found.largest_error,
                "high": found.largest_by_chance,
                "p_value": found.p_value,
                "first": found.largest_pair[0],
                "second": found.largest_pair[1],
            }
        )
    return [*pairs, pd.DataFrame(largest)]


def _classifier_rows(
    generated: Tensor, reference: Tensor, names: tuple[str, ...], settings: MeasureSettings, seed: int
) -> pd.DataFrame:
    rows = []
    for kind in ("trees", "network"):
        found = classifier_test(
            generated, reference, seed=seed, kind=kind, names=names, n_permutations=settings.n_permutations
        )
        low, high = found.null_band
        facts = {"value": found.auc, "error": found.error, "low": low, "high": high, "p_value": found.p_value}
        rows.append({"kind": "classifier", "method": kind, **facts})
    return pd.DataFrame(rows)


def _sliced_rows(
    generated: Tensor, reference: Tensor, names: tuple[str, ...], settings: MeasureSettings, seed: int
) -> pd.DataFrame:
    found = sliced_wasserstein(
        generated, reference, seed=seed, names=names, n_directions=settings.n_directions,
        n_permutations=settings.n_permutations, n_bootstrap=settings.n_bootstrap,
    )  # fmt: skip
    low, high = found.null_band
    facts = {"value": found.distance, "error": found.error, "low": low, "high": high}
    facts |= {"baseline": float(found.null.mean()), "p_value": found.p_value}
    return pd.DataFrame([{"kind": "sliced", **facts}])


def _histogram_rows(
    generated: Tensor, reference: Tensor, names: tuple[str, ...], n_shown: int
) -> pd.DataFrame:
    """Counts in equal bins of the central 99.8% of the reference; the totals count all events."""
    parts = []
    for name, ours, theirs in zip(names, generated.T.numpy(), reference.T.numpy(), strict=True):
        edges = _edges(theirs, n_shown)
        counts = {"generated": np.histogram(ours, edges)[0], "reference": np.histogram(theirs, edges)[0]}
        part = pd.DataFrame({"low": edges[:-1], "high": edges[1:], **counts}).astype(float)
        parts.append(part.assign(feature=name, n_generated=float(len(ours)), n_reference=float(len(theirs))))
    return pd.concat(parts, ignore_index=True).assign(kind="histogram")


def _edges(values: NDArray[np.float32], n_shown: int) -> NDArray[np.float64]:
    low, high = np.quantile(values.astype(np.float64), (0.001, 0.999))
    return np.linspace(low, high, n_shown + 1)

"""Numbers about the events of the Higgs case: cut flow, rates, and means beside those of a reference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from torch import Tensor

from sbilib.errors import DataError
from sbilib.problems.base import COMPONENTS
from sbilib.problems.higgs import HiggsTauTau
from sbilib.simulation.files import Manifest

__all__ = [
    "REFERENCE_EVENTS",
    "REFERENCE_MEANS",
    "beside_reference",
    "combined_differences",
    "cut_flow_table",
    "mean_differences",
    "pass_rates",
    "relative_slope",
    "relative_yields",
    "worst_features",
]

REFERENCE_EVENTS = {"signal": 320, "background": 577}
"""Events of the reference sample with a lepton above 20 GeV and a tau above 26 GeV."""

REFERENCE_MEANS: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "signal": {
        "DER_mass_vis": (82.84, 1.03),
        "DER_pt_ratio_lep_had": (0.847, 0.030),
        "PRI_lep_pt": (38.74, 1.05),
        "PRI_had_pt": (52.90, 1.34),
        "PRI_met": (35.73, 1.92),
        "DER_mass_transverse_met_lep": (22.13, 1.26),
        "DER_pt_h": (67.09, 3.81),
        "DER_deltar_had_lep": (2.539, 0.039),
        "PRI_n_jets": (1.359, 0.074),
    },
    "background": {
        "DER_mass_vis": (69.79, 0.68),
        "DER_pt_ratio_lep_had": (0.810, 0.018),
        "PRI_lep_pt": (30.61, 0.70),
        "PRI_had_pt": (40.39, 0.55),
        "PRI_met": (18.26, 0.68),
        "DER_mass_transverse_met_lep": (17.96, 0.65),
        "DER_pt_h": (31.02, 1.72),
        "DER_deltar_had_lep": (2.801, 0.024),
        "PRI_n_jets": (0.536, 0.037),
    },
}
"""Mean and its standard error of features in the first thousand events of the public file of the FAIR
Universe challenge (arXiv:2410.02867), with the thresholds above; GeV and rad."""


def cut_flow_table(manifest: Manifest) -> pd.DataFrame:
    """Events left after each requirement, and their share of the produced ones.

    Args:
        manifest: of a folder that ``sbilib simulate higgs`` made.

    Returns:
        A row per requirement; columns ``(component, "events")`` and ``(component, "share")``.

    Raises:
        DataError: if the manifest has no cut flow, as files of other origin have not.
    """
    flows: Any = manifest.settings.get("cut_flow")
    if not flows or not all(flows.get(component) for component in COMPONENTS):
        raise DataError(
            "the manifest has no cut flow of both components; use events that `sbilib simulate higgs` made"
        )
    columns: dict[tuple[str, str], pd.Series[Any]] = {}
    for component in COMPONENTS:
        events = pd.Series(flows[component])
        columns[component, "events"] = events
        columns[component, "share"] = events / events.iloc[0]
    return pd.DataFrame(columns).rename_axis("requirement")


def beside_reference(problem: HiggsTauTau) -> pd.DataFrame:
    """Means of features at scale 1 beside those of the reference sample.

    Args:
        problem: where events come from; its features and threshold do not matter.

    Returns:
        A row per component and feature; columns ``ours``, ``reference``, ``error`` (of the reference; ours is
        far smaller), and ``difference`` in units of the combined error.
    """
    rows = []
    for component in COMPONENTS:
        means = REFERENCE_MEANS[component]
        events = replace(problem, features=tuple(means)).all_events(component)
        weights = events.weights / events.weights.sum()
        for number, (name, (reference, error)) in enumerate(means.items()):
            values = events.events[:, number]
            mean = float((weights * values).sum())
            spread = float((weights * (values - mean) ** 2).sum()) * float((weights**2).sum())
            row = {"component": component, "feature": name, "ours": mean, "reference": reference}
            rows.append(
                row | {"error": error, "difference": (mean - reference) / math.hypot(error, spread**0.5)}
            )
    return pd.DataFrame(rows).set_index(["component", "feature"])


def relative_yields(problem: HiggsTauTau, scales: Tensor) -> pd.DataFrame:
    """Expected events at each tau energy scale relative to scale 1: counted, and as a smooth function.

    Args:
        problem: with the realistic threshold.
        scales: tau energy scales ``(m,)``.

    Returns:
        A row per component and scale; columns ``counted``, ``smooth``, ``error``.
    """
    tables = []
    for component in COMPONENTS:
        smooth = problem.efficiency(component, scales)
        counted = [problem.count(component, float(z)) / problem.count(component) for z in scales]
        columns = {"scale": scales.numpy(), "counted": counted, "smooth": smooth.value.numpy()}
        tables.append(pd.DataFrame({"component": component, **columns, "error": smooth.error.numpy()}))
    return pd.concat(tables).set_index(["component", "scale"])


def mean_differences(table: pd.DataFrame, stage: str, features: list[str]) -> pd.DataFrame:
    """Mean of each feature by the fast route minus that by the plain one, with its standard error.

    Args:
        table: from `sbilib.studies.higgs_routes.compare_routes`.
        stage: one of its stages.
        features: names of features.

    Returns:
        A row per component and feature; columns ``plain``, ``fast``, ``difference``, ``error``, and
        ``p-value``, that of the test of the distribution.
    """
    part = table[(table.stage == stage) & table.feature.isin(features)]
    error = (part.std_plain**2 / part.n_plain + part.std_fast**2 / part.n_fast) ** 0.5
    columns = {"component": part.component, "feature": part.feature, "plain": part.mean_plain}
    columns |= {"fast": part.mean_fast, "difference": part.mean_fast - part.mean_plain, "error": error}
    columns["p-value"] = part.p_value
    return pd.DataFrame(columns).set_index(["component", "feature"])


def worst_features(first: pd.DataFrame, repeated: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The test with the smallest p-value of each component, and the same test with new events.

    Args:
        first: from `sbilib.studies.higgs_routes.compare_routes`.
        repeated: a table of the same kind of each component, from new events.

    Returns:
        A row per component and look, ``"first"`` and ``"repeated"``; columns ``stage``, ``feature`` and those
        of `mean_differences`.

    Raises:
        DataError: if the test was not repeated.
    """
    rows = {}
    for component, new in repeated.items():
        worst = first[first.component == component].sort_values("p_value").iloc[0]
        for look, table in (("first", first), ("repeated", new)):
            mine = table[table.component == component]
            means = mean_differences(mine, worst.stage, [worst.feature])
            if len(means) != 1:
                raise DataError(
                    f"{worst.feature} of the {component} was not tested again at the stage {worst.stage!r}; "
                    "make the comparison with new events anew"
                )
            row = {"stage": worst.stage, "feature": worst.feature}
            rows[component, look] = row | means.iloc[0].to_dict()
    return pd.DataFrame(rows.values(), index=pd.MultiIndex.from_tuples(rows, names=["component", "look"]))


def combined_differences(tables: Sequence[pd.DataFrame], stage: str) -> pd.DataFrame:
    """Means by the fast route minus those by the plain one, over components and independent comparisons.

    Args:
        tables: from `sbilib.studies.higgs_routes.compare_routes`, of different events.
        stage: one of its stages.

    Returns:
        A row per feature, the one that differs most first; columns ``plain`` (mean), ``difference`` (mean
        weighted by inverse variance), ``error``, and ``pull``, the difference in standard errors.
    """
    means = pd.concat([mean_differences(table, stage, sorted(set(table.feature))) for table in tables])
    weight = 1.0 / means.error**2
    sums = means.mul(weight, axis=0).assign(weight=weight).groupby(level="feature").sum()
    found = pd.DataFrame({name: sums[name] / sums.weight for name in ("plain", "difference")})
    found["error"] = sums.weight**-0.5
    found["pull"] = found.difference / found.error
    return found.sort_values("pull", key=abs, ascending=False)


def pass_rates(manifest: Mapping[str, Any]) -> pd.DataFrame:
    """Share of produced tau pairs that pass the preselection, by route.

    Args:
        manifest: of a comparison of the routes.

    Returns:
        A row per component compared; columns ``plain``, ``fast``, and ``difference`` in standard errors.
    """
    rows = {}
    runs = manifest["runs"]
    for component in (name for name in COMPONENTS if name in runs["plain"]):
        shares, variance = {}, 0.0
        for route in ("plain", "fast"):
            run = runs[route][component]
            share = run["n_selected"] / run["n_produced"]
            shares[route] = share
            variance += share * (1.0 - share) / run["n_produced"]
        rows[component] = {**shares, "difference": (shares["fast"] - shares["plain"]) / variance**0.5}
    return pd.DataFrame(rows).T.rename_axis("component")


def relative_slope(values: Tensor, threshold: float) -> float:
    r"""Slope of :math:`\log\epsilon(z)` at 1, :math:`t\,f(t)/\int_t^\infty f`, from values near a threshold.

    Args:
        values: transverse momenta of the tau, ``(n,)``, complete down to 0.9 of the threshold.
        threshold: t in GeV.

    Returns:
        The slope, with the density f at t counted within 4% of it.

    Example:
        For an exponential spectrum of 20 GeV the slope at 26 GeV is 1.3:

        >>> import torch
        >>> values = -20 * torch.rand(200_000, generator=torch.Generator().manual_seed(1)).log()
        >>> round(relative_slope(values, 26.0), 1)
        1.3
    """
    near = 0.04 * threshold
    density = ((values - threshold).abs() < near).sum() / (2 * near)
    return float(threshold * density / (values > threshold).sum())

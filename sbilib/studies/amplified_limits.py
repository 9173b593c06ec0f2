r"""Upper limits on a signal over generated background, all of them in one batch.

Limits on the signal strength are where :math:`CL_s = 0.05`, for every number of generated events,
luminosity and relative background uncertainty :math:`\beta` (Gavranovič and Kerševan, source 004, Fig. 4
and 5; 30 x 4 x 3 limits for each source of background).  Models of one structure that differ in their
templates are one batch of :func:`sbilib.histfactory.upper_limit`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyhf
import torch
from torch import Tensor

from sbilib.errors import ParameterError, check_count
from sbilib.histfactory import (
    Channel,
    HistoSys,
    Modifier,
    NormFactor,
    ParameterSettings,
    Sample,
    ShapeSys,
    StatError,
    Workspace,
    fit,
    fixed_poi_fit,
    poi_uncertainty,
    upper_limit,
)
from sbilib.studies.amplified_search import CHANNEL, SearchSettings, SearchTemplates, search_templates
from sbilib.studies.amplified_templates import BinnedSample
from sbilib.studies.model_error import ShapeModes

__all__ = [
    "PyhfComparison",
    "compare_with_pyhf",
    "limit_differences",
    "limit_table",
    "logarithmic_counts",
    "pyhf_workspace",
    "single_search",
]

_LEVEL = 0.05
_BANDS = ("minus_2", "minus_1", "expected", "plus_1", "plus_2")


def logarithmic_counts(low: int = 10_000, high: int = 1_000_000, n: int = 30) -> list[int]:
    """Numbers of events in logarithmic steps, both ends included (source 004: 30 from 10^4 to 10^6).

    Raises:
        ParameterError: if the numbers do not increase or steps are smaller than an event.

    Example:
        >>> logarithmic_counts(10, 1000, 3)
        [10, 100, 1000]
    """
    check_count("n", n, low=2)
    check_count("low", low, low=1)
    check_count("high", high, low=low + 1)
    counts: list[int] = np.geomspace(low, high, n).round().astype(int).tolist()
    if len(set(counts)) < n:
        raise ParameterError(f"{n} different numbers do not fit between {low} and {high}; ask for fewer")
    return counts


def limit_table(
    backgrounds: Mapping[str, BinnedSample],
    reference: BinnedSample,
    signal: BinnedSample,
    luminosities: Sequence[float],
    *,
    betas: Sequence[float] = (0.05, 0.10, 0.20),
    settings: SearchSettings | None = None,
    modes: Mapping[str, ShapeModes] | None = None,
    strength: float = 1.0,
    level: float = _LEVEL,
) -> pd.DataFrame:
    """Upper limits for all backgrounds, numbers of events, luminosities and uncertainties.

    Args:
        backgrounds: samples by name, for instance ``"generated"`` and ``"simulated"``; each a histogram or a
            batch of them such as :func:`~sbilib.studies.amplified_templates.bin_prefixes` makes.
        reference: simulated background that makes the data.
        signal: simulated signal.
        luminosities: in /fb.
        betas: relative uncertainties of each bin of the background, all positive or all zero.
        settings: of the search.
        modes: error of the generative model for those backgrounds that have one, by name.
        strength: of the signal in the data, as published one; zero for the usual expected exclusion.
        level: CLs at the limit.

    Returns:
        A row for each limit: ``background``, ``n_events`` (its total before the selection), ``luminosity``,
        ``beta``, ``observed``, the expected limits ``minus_2``, ``minus_1``, ``expected``, ``plus_1``,
        ``plus_2``, and ``converged``.  A limit beyond the bounds of the strength is infinite.

    Raises:
        ParameterError: if modes have a name that no background has.
        DataError: as :func:`~sbilib.studies.amplified_search.search_templates`.

    Example:
        >>> from sbilib.studies.amplified_templates import Binning, bin_events, bin_prefixes
        >>> binning = Binning("score", (0.5, 0.75, 1.0))
        >>> events = np.random.default_rng(1).uniform(size=100_000)
        >>> sizes = bin_prefixes(events, binning, [10_000, 100_000])
        >>> signal = bin_events([0.6, 0.9, 0.9, 0.9], binning)
        >>> reference = bin_events(events, binning)
        >>> found = limit_table({"generated": sizes}, reference, signal, [10.0, 100.0], betas=[0.05])
        >>> found[["n_events", "luminosity"]].to_numpy().tolist()
        [[10000.0, 10.0], [10000.0, 100.0], [100000.0, 10.0], [100000.0, 100.0]]
        >>> bool((found.expected.diff().iloc[[1, 3]] < 0).all())
        True
    """
    modes = modes or {}
    if not set(modes) <= set(backgrounds):
        raise ParameterError(
            f"modes are for {sorted(modes)}, backgrounds are {sorted(backgrounds)}; match them"
        )
    tables = []
    for name, background in backgrounds.items():
        templates = search_templates(
            background, reference, signal, luminosities, settings, modes=modes.get(name)
        )
        batch = templates.background.dim() - 1
        beta = torch.tensor(list(betas), dtype=torch.float64).view(-1, *[1] * batch, 1)
        model = templates.model(beta)
        found = upper_limit(templates.data(model, strength=strength), model, level=level)
        shape = (len(betas), *templates.background.shape[:-1])
        grids = np.meshgrid(
            betas, background.totals.reshape(-1), np.asarray(luminosities, dtype=float), indexing="ij"
        )
        columns: dict[str, object] = {
            key: grid.ravel() for key, grid in zip(("beta", "n_events", "luminosity"), grids, strict=True)
        }
        columns["observed"] = found.observed.expand(shape).reshape(-1).numpy()
        bands = found.expected.expand(*shape, 5).reshape(-1, 5).numpy()
        columns |= {band: bands[:, i] for i, band in enumerate(_BANDS)}
        columns["converged"] = found.converged.expand(shape).reshape(-1).numpy()
        tables.append(pd.DataFrame(columns).assign(background=name))
    return pd.concat(tables, ignore_index=True)


def limit_differences(table: pd.DataFrame, background: str, baseline: str) -> pd.DataFrame:
    r"""Difference of limits between two backgrounds, :math:`\Delta\mu_{UL}` (source 004, Fig. 5).

    Args:
        table: of :func:`limit_table`.
        background: name of the one.
        baseline: name of the other, with the same numbers of events or with a single one.

    Returns:
        The rows of the background with the columns ``difference`` (baseline minus background, observed) and
        ``expected_difference``.

    Raises:
        ParameterError: if a name is missing or the baseline has no limit to compare with.
    """
    keys = ["luminosity", "beta"]
    ours, theirs = (table[table.background == name] for name in (background, baseline))
    if ours.empty or theirs.empty:
        raise ParameterError(
            f"the table has {sorted(set(table.background))}, asked: {background}, {baseline}"
        )
    if theirs.n_events.nunique() > 1:
        keys.append("n_events")
    joined = ours.merge(theirs[[*keys, "observed", "expected"]], on=keys, suffixes=("", "_of_baseline"))
    if len(joined) != len(ours):
        raise ParameterError(
            f"{baseline!r} has limits for {len(joined)} of {len(ours)} rows of {background!r}; make both "
            "with the same numbers of events, luminosities and betas"
        )
    return joined.assign(
        difference=joined.observed_of_baseline - joined.observed,
        expected_difference=joined.expected_of_baseline - joined.expected,
    )


class PyhfComparison(NamedTuple):
    """The same search by this library and by pyhf."""

    table: pd.DataFrame
    """A row for each ``member`` and ``quantity`` with ``ours``, ``pyhf`` and ``difference``."""
    largest: float
    """Largest absolute relative difference."""


def compare_with_pyhf(
    templates: SearchTemplates,
    members: Sequence[tuple[int, ...]],
    *,
    beta: float = 0.10,
    strength: float = 1.0,
) -> PyhfComparison:
    """Fitted strength, observed and median expected upper limit of some members of a batch by pyhf too.

    The optimizer of pyhf without gradients stops early where widths differ by orders of magnitude, so its
    fits start at our optima; its own likelihood decides where they end.  Its best strength is the vertex of a
    parabola through its profile likelihood at ours and a fiftieth of a standard deviation to both sides, and
    its limit is where the logarithm of its CLs, a thousandth to both sides of ours, crosses that of 0.05.
    With modes, 10^6 generated events and 10^6 expected ones it still ends above our minimum, by 10^-4 of the
    likelihood; compare smaller samples.

    Args:
        templates: of :func:`~sbilib.studies.amplified_search.search_templates`.
        members: places in the batch, each with a number for every batch dimension, luminosity last.
        beta: relative uncertainty of each bin of the background.
        strength: in the Asimov data.
    """
    rows = []
    for member in members:
        single = single_search(templates, member)
        model = single.model(beta)
        data = single.data(model, strength=strength)
        limits = upper_limit(data, model)
        best = fit(data, model)
        ours = [best.poi.item(), limits.observed.item(), limits.expected[2].item()]
        starts = [fixed_poi_fit(value, data, model).parameters.tolist() for value in ours]
        step = 0.02 * float(poi_uncertainty(best.parameters, model, data=data))
        theirs = _by_pyhf(pyhf_workspace(single, beta, strength), ours, starts, step)
        rows += [
            {"member": member, "quantity": name, "ours": mine, "pyhf": other}
            for name, mine, other in zip(("strength", "observed", "expected"), ours, theirs, strict=True)
        ]
    table = pd.DataFrame(rows)
    table["difference"] = table.ours - table.pyhf
    return PyhfComparison(table, float((table.difference / table.pyhf).abs().max()))


def single_search(templates: SearchTemplates, member: tuple[int, ...]) -> SearchTemplates:
    """One member of a batch of searches, without batch dimensions.

    Args:
        templates: of :func:`~sbilib.studies.amplified_search.search_templates`.
        member: a number for every batch dimension, luminosity last.
    """

    def of(values: Tensor) -> Tensor:
        return values.expand(templates.background.shape)[member]

    return SearchTemplates(
        templates.signal[member[-1]],
        templates.reference[member[-1]],
        of(templates.background),
        of(templates.statistical),
        tuple(map(of, templates.modes)),
        templates.strength_bounds,
    )


def _by_pyhf(
    workspace: pyhf.Workspace, near: Sequence[float], starts: Sequence[list[float]], step: float
) -> list[float]:
    """Strength, observed limit and median expected limit by pyhf."""
    model = workspace.model(measurement_name="search")
    data = workspace.data(model)
    before = pyhf.get_backend()
    try:
        pyhf.set_backend("numpy", pyhf.optimize.scipy_optimizer(tolerance=1e-12, maxiter=20_000))
        best = _vertex(data, model, near[0], starts[0], step)
        limits = [_crossing(data, model, near[kind + 1], starts[kind + 1], kind) for kind in (0, 1)]
    finally:
        pyhf.set_backend(*before)
    return [best, *limits]


def _vertex(data: Sequence[float], model: pyhf.Model, near: float, start: list[float], step: float) -> float:
    """Lowest point of a parabola through pyhf's profile likelihood at three strengths."""
    left, middle, right = (
        float(
            pyhf.infer.mle.fixed_poi_fit(
                near + place * step, data, model, init_pars=start, return_fitted_val=True
            )[1]
        )
        for place in (-1, 0, 1)
    )
    return near + 0.5 * step * (left - right) / (left - 2 * middle + right)


def _crossing(data: Sequence[float], model: pyhf.Model, near: float, start: list[float], kind: int) -> float:
    """Where pyhf's CLs (kind 0 observed, 1 median expected) is 0.05, from two values nearby."""
    values = np.array([0.999, 1.001]) * near
    heights = [
        np.log(
            pyhf.infer.hypotest(
                value, data, model, init_pars=start, test_stat="qtilde", return_expected=True
            )[kind]
        )
        for value in values.tolist()
    ]
    slope = (heights[1] - heights[0]) / (values[1] - values[0])
    return float(values[0] + (np.log(_LEVEL) - heights[0]) / slope)


def pyhf_workspace(single: SearchTemplates, beta: float, strength: float) -> pyhf.Workspace:
    """The search as pyhf's JSON, written without the model that is to be checked.

    Args:
        single: templates without batch dimensions, see :func:`single_search`.
        beta: relative uncertainty of each bin of the background.
        strength: in the Asimov data.
    """
    modifiers: list[Modifier] = [
        StatError("statistics", single.statistical),
        ShapeSys("beta", beta * single.background),
        *(
            HistoSys(f"mode_{k}", single.background - shift, single.background + shift)
            for k, shift in enumerate(single.modes)
        ),
    ]
    channel = Channel(
        CHANNEL,
        [
            Sample("background", single.background, modifiers),
            Sample("signal", single.signal, [NormFactor("mu")]),
        ],
    )
    written = Workspace.from_channels(
        [channel],
        {CHANNEL: single.reference + strength * single.signal},
        settings=[ParameterSettings("mu", bounds=[single.strength_bounds])],
        measurement="search",
    )
    return pyhf.Workspace(written.to_dict())

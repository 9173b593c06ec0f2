"""Figures of a search with generated background and of what generated events are worth.

>>> import pandas as pd
>>> table = pd.DataFrame({"luminosity": [10.0, 100.0], "strength": [1.1, 1.0], "error": [0.5, 0.2]})
>>> len(plot_strengths([StrengthPanel("score", {"generated": table})]).axes)
1
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import ArrayLike, NDArray

from sbilib.errors import DataError, ParameterError
from sbilib.plotting.coverage import NOMINAL_LEVEL
from sbilib.plotting.legends import legend_above
from sbilib.plotting.style import (
    BACKGROUND_COLOR,
    NEUTRAL_COLOR,
    SERIES_COLORS,
    SIGNAL_COLOR,
    TRUTH_COLOR,
    figure_size,
    style_context,
)

__all__ = [
    "SearchPanel",
    "StrengthPanel",
    "plot_amplification",
    "plot_limit_differences",
    "plot_limits",
    "plot_search_templates",
    "plot_strength_coverage",
    "plot_strengths",
]

_LUMINOSITY = r"luminosity [fb$^{-1}$]"
_GENERATED = "generated events"
_LINES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "v", "D", "X")


class SearchPanel(NamedTuple):
    """Expected events and data of one observable."""

    title: str
    """Title of the panel."""
    x_label: str
    """Name and unit of the observable."""
    edges: ArrayLike
    """Edges of the bins, ``(n_bins + 1,)``."""
    background: ArrayLike
    """Expected generated background, ``(n_bins,)``."""
    uncertainty: ArrayLike
    """Standard deviation of that, ``(n_bins,)``."""
    signal: ArrayLike
    """Expected signal at the strength of the data, ``(n_bins,)``."""
    data: ArrayLike
    """Data, for instance Asimov data of the simulation, ``(n_bins,)``."""


class StrengthPanel(NamedTuple):
    """Fitted signal strengths in one observable."""

    title: str
    """Title of the panel."""
    series: Mapping[str, pd.DataFrame]
    """By name: columns ``luminosity``, ``strength`` and ``error``."""


class AmplificationResult(Protocol):
    """What :func:`plot_amplification` needs of a result."""

    @property
    def n_train(self) -> float:
        """Training events."""

    @property
    def factor(self) -> float:
        """The amplification."""

    @property
    def interval(self) -> tuple[float, float]:
        """It a standard deviation to both sides."""


def _look(number: int) -> dict[str, Any]:
    return {
        "color": SERIES_COLORS[number % len(SERIES_COLORS)],
        "linestyle": _LINES[number % len(_LINES)],
        "marker": _MARKERS[number % len(_MARKERS)],
    }


def _count(value: float) -> str:
    """A number of events for legends: 10^4, 3.2 10^5."""
    power = int(np.floor(np.log10(value)))
    factor = f"{value / 10**power:.2g}"
    return f"$10^{{{power}}}$" if factor == "1" else rf"${factor}\times10^{{{power}}}$"


def _needs(what: str, given: Sequence[Any] | Mapping[str, Any]) -> None:
    if not given:
        raise ParameterError(f"{what}, got none; pass results")


def plot_search_templates(panels: Sequence[SearchPanel]) -> Figure:
    """Stacks of background and signal with the data, and below the data over the sum (source 004, Fig. 2).

    Args:
        panels: from left to right. The hatched band is the uncertainty of the background.

    Returns:
        The figure, unknown to pyplot.

    Raises:
        ParameterError: if there is no panel.
        DataError: if a histogram does not fit its edges.
    """
    _needs("plot_search_templates needs a panel", panels)
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.62), layout="constrained")
        axes = figure.subplots(2, len(panels), squeeze=False, sharex="col", height_ratios=(3, 1))
        for number, panel in enumerate(panels):
            _draw_stack(axes[0, number], axes[1, number], panel)
        axes[0, 0].set_ylabel("expected events")
        axes[1, 0].set_ylabel("data / sum")
        legend_above(figure, axes[0].tolist(), columns=4)
    return figure


def _histograms(panel: SearchPanel) -> tuple[NDArray[np.float64], ...]:
    edges = np.asarray(panel.edges, dtype=float)
    fields = ("background", "uncertainty", "signal", "data")
    values = [np.asarray(getattr(panel, field), dtype=float) for field in fields]
    for field, each in zip(fields, values, strict=True):
        if each.shape != (len(edges) - 1,):
            raise DataError(
                f"{field} of panel {panel.title!r} needs {len(edges) - 1} bins, got shape {each.shape}; "
                "select one luminosity and sample"
            )
    return edges, *values


def _draw_stack(axis: Axes, ratio: Axes, panel: SearchPanel) -> None:
    edges, background, spread, signal, data = _histograms(panel)
    centers = (edges[1:] + edges[:-1]) / 2
    total = background + signal
    axis.stairs(background, edges, fill=True, color=BACKGROUND_COLOR, label="generated background")
    axis.stairs(total, edges, baseline=background, fill=True, color=SIGNAL_COLOR, label="signal on top")
    axis.stairs(signal, edges, color=SIGNAL_COLOR, linewidth=1.4, label="signal alone")
    points: dict[str, Any] = {
        "color": TRUTH_COLOR,
        "linestyle": "none",
        "marker": "o",
        "markersize": 3,
        "capsize": 0,
    }
    axis.errorbar(centers, data, np.sqrt(data), label="simulated data", **points)
    axis.set(title=panel.title, yscale="log")
    band: dict[str, Any] = {"facecolor": "none", "edgecolor": NEUTRAL_COLOR, "hatch": "////", "linewidth": 0}
    ratio.stairs(1 + spread / total, edges, baseline=1 - spread / total, fill=True, **band)
    ratio.axhline(1.0, color=NEUTRAL_COLOR, linewidth=0.8)
    ratio.errorbar(centers, data / total, np.sqrt(data) / total, **points)
    ratio.set(xlabel=panel.x_label, xlim=(edges[0], edges[-1]))


def plot_strengths(panels: Sequence[StrengthPanel], *, truth: float = 1.0) -> Figure:
    """Fitted signal strength against luminosity with bands of one standard deviation (source 004, Fig. 3).

    Args:
        panels: from left to right.
        truth: signal strength in the data.

    Returns:
        The figure, unknown to pyplot.

    Raises:
        ParameterError: if there is no panel.
    """
    _needs("plot_strengths needs a panel", panels)
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.5), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axis, panel in zip(axes, panels, strict=True):
            axis.axhline(truth, color=TRUTH_COLOR, linewidth=0.8, linestyle=":", label="true value")
            for number, (name, table) in enumerate(panel.series.items()):
                x, middle, error = (
                    table[column].to_numpy() for column in ("luminosity", "strength", "error")
                )
                look = _look(number)
                axis.plot(x, middle, label=name, **look)
                axis.fill_between(
                    x, middle - error, middle + error, color=look["color"], alpha=0.2, linewidth=0
                )
            axis.set(title=panel.title, xscale="log", xlabel=_LUMINOSITY)
        axes[0].set_ylabel(r"signal strength $\mu$")
        legend_above(figure, axes.tolist(), columns=4)
    return figure


def plot_limits(table: pd.DataFrame, *, beta: float, column: str = "observed") -> Figure:
    """Upper limits against luminosity and against the number of generated events (source 004, Fig. 4).

    Args:
        table: of :func:`sbilib.studies.amplified_limits.limit_table`, of one background.
        beta: relative background uncertainty to show.
        column: ``"observed"`` or ``"expected"``.

    Returns:
        The figure, unknown to pyplot: few numbers of events on the left, all luminosities on the right.

    Raises:
        ParameterError: if the table has no such rows, or more than one background.
    """
    rows = table[np.isclose(table.beta, beta)]
    if rows.empty or rows.background.nunique() > 1:
        raise ParameterError(
            f"plot_limits needs rows of beta {beta:g} and one background, got {len(rows)} of "
            f"{sorted(set(rows.background))}; select one"
        )
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.5), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        counts = np.unique(rows.n_events)
        shown = counts[np.unique(np.linspace(0, len(counts) - 1, 4).round().astype(int))]
        for number, count in enumerate(shown):
            chosen = rows[rows.n_events == count].sort_values("luminosity")
            left.plot(chosen.luminosity, chosen[column], label=_count(float(count)), **_look(number))
        for number, (luminosity, chosen) in enumerate(rows.groupby("luminosity")):
            ordered = chosen.sort_values("n_events")
            look = _look(number) | {"marker": ""}
            right.plot(ordered.n_events, ordered[column], label=f"{luminosity:g} /fb", **look)
        left.set(xscale="log", xlabel=_LUMINOSITY, ylabel=rf"{column} upper limit on $\mu$")
        right.set(xscale="log", xlabel=_GENERATED)
        left.legend(title=_GENERATED)
        right.legend(title="luminosity")
    return figure


def plot_limit_differences(
    panels: Mapping[str, pd.DataFrame], *, column: str = "difference", luminosity: float | None = None
) -> Figure:
    """Difference of limits against the number of generated events, for each beta (source 004, Fig. 5).

    Args:
        panels: results of :func:`sbilib.studies.amplified_limits.limit_differences` by title.
        column: ``"difference"`` or ``"expected_difference"``.
        luminosity: to show, by default the largest.

    Returns:
        The figure, unknown to pyplot.

    Raises:
        ParameterError: if there is no panel or a panel has no rows of the luminosity.
    """
    _needs("plot_limit_differences needs a panel", panels)
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.5), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axis, (title, table) in zip(axes, panels.items(), strict=True):
            wanted = float(table.luminosity.max()) if luminosity is None else luminosity
            rows = table[np.isclose(table.luminosity, wanted)]
            if rows.empty:
                raise ParameterError(
                    f"panel {title!r} has no rows at {wanted:g} /fb; choose another luminosity"
                )
            axis.axhline(0.0, color=NEUTRAL_COLOR, linewidth=0.8)
            for number, (beta, chosen) in enumerate(rows.groupby("beta")):
                ordered = chosen.sort_values("n_events")
                look = _look(number) | {"marker": ""}
                label = rf"$\beta$ = {100 * float(str(beta)):g}%"
                axis.plot(ordered.n_events, ordered[column], label=label, **look)
            axis.set(title=f"{title}, {wanted:g} /fb", xscale="log", xlabel=_GENERATED)
        axes[0].set_ylabel(r"$\Delta\mu_{UL}$")
        legend_above(figure, axes.tolist(), columns=4)
    return figure


def plot_strength_coverage(
    tables: Mapping[str, pd.DataFrame], *, goal: tuple[float, float] = (0.66, 0.71)
) -> Figure:
    """Coverage of the interval of the signal strength against luminosity.

    Args:
        tables: results of :func:`sbilib.studies.amplified_coverage.strength_coverage` by name, for instance
            with and without the error of the model.
        goal: shaded.

    Returns:
        The figure, unknown to pyplot.

    Raises:
        ParameterError: if there is no table.
    """
    _needs("plot_strength_coverage needs a table", tables)
    with style_context():
        figure = Figure(figsize=figure_size(0.75, aspect=0.7), layout="constrained")
        axis = figure.subplots()
        axis.axhspan(*goal, color=NEUTRAL_COLOR, alpha=0.25, linewidth=0, label="goal")
        axis.axhline(NOMINAL_LEVEL, color=NEUTRAL_COLOR, linewidth=0.8, linestyle=":", label="68.3%")
        for number, (name, table) in enumerate(tables.items()):
            axis.errorbar(
                table.luminosity, table.coverage, table.error, label=name, capsize=2, **_look(number)
            )
        axis.set(xscale="log", xlabel=_LUMINOSITY, ylabel=r"coverage of $\mu$", ylim=(0, 1))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{100 * tick:.0f}%"))
        legend_above(figure, [axis], columns=4)
    return figure


def plot_amplification(
    panels: Mapping[str, Mapping[str, Sequence[AmplificationResult]]],
) -> Figure:
    """Amplification factor against the number of training events; above one generated events pay.

    Args:
        panels: by title, for instance of an observable or region, results of
            :func:`sbilib.studies.amplification.amplification` by name of the model. An arrow stands for a
            lower bound, where the distance is not measurably different from zero.

    Returns:
        The figure, unknown to pyplot.

    Raises:
        ParameterError: if there is no panel.
    """
    _needs("plot_amplification needs a panel", panels)
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.5), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axis, (title, series) in zip(axes, panels.items(), strict=True):
            axis.axhline(1.0, color=TRUTH_COLOR, linewidth=0.8, linestyle=":", label="simulated events")
            for number, (name, results) in enumerate(series.items()):
                _draw_factors(axis, name, results, number)
            axis.set(title=title, xscale="log", yscale="log", xlabel="training events")
        axes[0].set_ylabel("amplification $G$")
        legend_above(figure, axes.tolist(), columns=4)
    return figure


def _draw_factors(axis: Axes, name: str, results: Sequence[AmplificationResult], number: int) -> None:
    x = np.array([each.n_train for each in results])
    low, high = np.array([each.interval for each in results], dtype=float).T
    factor = np.array([each.factor for each in results], dtype=float)
    bound = ~np.isfinite(high)
    middle = np.where(bound, low, factor)
    errors = np.stack([middle - low, np.where(bound, 0.5 * low, high - middle)])
    axis.errorbar(x, middle, errors, lolims=bound, label=name, capsize=2, **_look(number))

"""Figures of studies repeated over random seeds: bands during training, and a point for every network.

>>> panel = seed_panel([0, 1], {"cls": [[0.5, 0.4], [0.2, 0.3]]}, "CLs", {"cls": SeedStyle("CLs", "#0072B2")})
>>> [float(height) for height in panel.curves[0].y]
[0.45, 0.25]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import ArrayLike

from sbilib.errors import ParameterError
from sbilib.plotting.curves import Band, Curve, CurvePanel
from sbilib.plotting.style import (
    BACKGROUND_COLOR,
    CLASSIFIER_COLOR,
    NEUTRAL_COLOR,
    SERIES_COLORS,
    SIGNAL_COLOR,
    figure_size,
    style_context,
)

__all__ = [
    "NEOS_STYLES",
    "SeedPoints",
    "SeedStyle",
    "plot_benchmark",
    "plot_blobs",
    "plot_seed_points",
    "seed_panel",
]


class SeedStyle(NamedTuple):
    """Look of all networks of one training."""

    label: str
    """Name in legends and on axes."""
    color: str
    """Hexadecimal color."""
    linestyle: str = "-"
    """Matplotlib line style."""
    marker: str = "o"
    """Matplotlib marker."""


NEOS_STYLES: Mapping[str, SeedStyle] = {
    "bce": SeedStyle("BCE", CLASSIFIER_COLOR, "-.", "^"),
    "bce_augmented": SeedStyle("BCE, augmented", SERIES_COLORS[2], "--", "D"),
    "cls": SeedStyle("neos (CLs)", SERIES_COLORS[1], "-", "o"),
    "sigma_mu": SeedStyle(r"INFERNO ($\sigma_\mu$)", SERIES_COLORS[0], ":", "s"),
    "log_cls": SeedStyle(r"neos ($\ln$ CLs)", SERIES_COLORS[4], "-", "v"),
}
"""Names and curves of the losses of the first study of neos."""


class SeedPoints(NamedTuple):
    """One panel of points."""

    label: str
    """Name and unit of the vertical axis."""
    values: Mapping[str, Sequence[float]]
    """Values of all networks, by the names of the styles."""
    log: bool = False
    """Logarithmic axis."""
    lines: Mapping[str, float] = {}
    """Heights of dashed lines, by their name in the legend."""


def seed_panel(
    epochs: ArrayLike,
    recorded: Mapping[str, ArrayLike],
    label: str,
    styles: Mapping[str, SeedStyle],
    *,
    limit: float | None = None,
    log: bool = True,
    legend: str = "best",
    y_limits: tuple[float, float] | None = None,
) -> CurvePanel:
    """A metric during training: median over the seeds, and a band from the lowest to the highest.

    Args:
        epochs: epoch of each record, ``(n_records,)``.
        recorded: the metric ``(n_records, n_seeds)`` of each training, by names of ``styles``.
        label: of the vertical axis.
        styles: look of each training.
        limit: height of a dotted line, for instance what no training can pass.
        log: logarithmic vertical axis.
        legend: place of the legend, empty for none.
        y_limits: range of the vertical axis.

    Raises:
        ParameterError: for a training without a style.
    """
    curves, bands = [], []
    for name, values in recorded.items():
        look, array = _style(styles, name), np.asarray(values, dtype=float)
        curves.append(Curve(look.label, epochs, np.median(array, axis=1), look.color, look.linestyle))
        bands.append(Band("", epochs, array.min(axis=1), array.max(axis=1), look.color, 0.15))
    last = float(np.max(np.asarray(epochs, dtype=float)))
    return CurvePanel(
        "",
        "epoch",
        label,
        curves,
        bands,
        horizontal=[] if limit is None else [limit],
        log="y" if log else "",
        y_limits=y_limits,
        x_ticks=np.arange(0, last + 1, max(1, round(last / 5))).tolist(),  # no fractions of an epoch
        legend=legend,
    )


def plot_blobs(samples: Mapping[str, ArrayLike]) -> Figure:
    """Events of the four samples in the plane.

    Args:
        samples: ``(n, 2)`` in units of the common width, by the names signal, background, up and down.
    """
    looks = {
        "background": ("background", BACKGROUND_COLOR, "s"),
        "up": ("background, up", NEUTRAL_COLOR, "^"),
        "down": ("background, down", "#CC79A7", "v"),
        "signal": ("signal", SIGNAL_COLOR, "o"),
    }
    with style_context():
        figure = Figure(figsize=figure_size(0.75, aspect=0.8))
        axis = figure.subplots()
        for name, (label, color, marker) in looks.items():
            points = np.asarray(samples[name], dtype=float)
            axis.plot(
                *points.T, marker, color=color, markersize=2.5, alpha=0.55, markeredgewidth=0, label=label
            )
        axis.set(xlabel="$x$ [width of a blob]", ylabel="$y$ [width of a blob]", aspect="equal")
        axis.legend(markerscale=3, loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


def plot_seed_points(
    panels: Sequence[SeedPoints], styles: Mapping[str, SeedStyle], *, height: float = 0.45
) -> Figure:
    """Every network as a point, a column for each training; bars mark the medians.

    Args:
        panels: what is shown side by side.
        styles: look of each training.
        height: of the figure over the width of the text.

    Raises:
        ParameterError: if there is no panel, or a training without a style.
    """
    if not panels:
        raise ParameterError("plot_seed_points needs a panel, got none")
    with style_context():
        figure = Figure(figsize=figure_size(aspect=height))
        for axis, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            for place, (name, values) in enumerate(panel.values.items()):
                look, heights = _style(styles, name), np.asarray(values, dtype=float)
                spread = np.linspace(-0.2, 0.2, len(heights)) if len(heights) > 1 else np.zeros(1)
                axis.plot(place + spread, heights, look.marker, color=look.color, markersize=4, alpha=0.8)
                axis.hlines(np.median(heights), place - 0.32, place + 0.32, color=look.color, linewidth=1.6)
            for shade, (name, level) in enumerate(panel.lines.items()):
                axis.axhline(
                    level, color=NEUTRAL_COLOR, linestyle=("--", ":")[shade % 2], linewidth=1.0, label=name
                )
            if panel.log:
                axis.set_yscale("log")
            labels = [styles[name].label for name in panel.values]
            axis.set_xticks(range(len(labels)), labels, rotation=30, ha="right")
            axis.set_ylabel(panel.label)
            if panel.lines:
                axis.legend()
    return figure


def plot_benchmark(table: pd.DataFrame, limits: pd.Series, published: pd.DataFrame) -> Figure:
    """Excess of every network over the limit of its case, beside published values.

    Args:
        table: columns ``case``, ``measured``, ``initialization`` and ``sigma``; a network counts where it is
            measured in its own case, with the mean of its test sets.
        limits: least possible sigma by case.
        published: sigma by method and case; the rows ``INFERNO`` and ``optimal classifier`` are drawn.
    """
    own = table[table.case == table.measured].groupby(["case", "initialization"]).sigma.mean()
    cases = list(limits.index)
    places = np.arange(len(cases))
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.5))
        axis = figure.subplots()
        for place, case in enumerate(cases):
            excess = 100 * (np.sort(own[case].to_numpy()) / limits[case] - 1)
            axis.plot(
                place + np.linspace(-0.15, 0.15, len(excess)) * (len(excess) > 1),
                excess,
                "o",
                color=SERIES_COLORS[1],
                markersize=4,
                label="" if place else "here, one point a network",
            )
        looks = (("INFERNO", "s", SERIES_COLORS[0]), ("optimal classifier", "X", CLASSIFIER_COLOR))
        for name, marker, color in looks:
            excess = 100 * (published.loc[name, cases].to_numpy() / limits[cases].to_numpy() - 1)
            axis.plot(places, excess, marker, color=color, markersize=6, label=f"{name}, published")
        axis.set_yscale("log")
        ticks = (1, 2, 3, 5, 10, 20, 50)
        axis.set_yticks(ticks, [str(tick) for tick in ticks])
        axis.yaxis.set_minor_locator(NullLocator())
        axis.set_xticks(places, cases)
        axis.set(xlabel="case", ylabel=r"$\sigma(s)$ above the limit [%]")
        axis.legend(loc="upper left")
    return figure


def _style(styles: Mapping[str, SeedStyle], name: str) -> SeedStyle:
    if name not in styles:
        raise ParameterError(f"no style for {name!r}; choose from {', '.join(styles)}")
    return styles[name]

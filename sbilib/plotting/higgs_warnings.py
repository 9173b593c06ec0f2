"""Figures of second opinions: what the disagreement of two methods says about their intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.figure import Figure

from sbilib.plotting.legends import legend_above
from sbilib.plotting.style import METHOD_STYLES, NEUTRAL_COLOR, SERIES_COLORS, figure_size, style_context

if TYPE_CHECKING:
    from sbilib.studies.higgs_warnings import RocBand

__all__ = ["plot_disagreement_and_coverage", "plot_warnings"]

_LINES = ("-", "--", "-.", ":")
_PARAMETERS = {"mu": r"signal ratio $\mu$", "z": r"energy scale $z$"}


def plot_warnings(panels: Mapping[str, Mapping[str, RocBand]]) -> Figure:
    """ROC curves of alarms with their bands, a panel a parameter.

    Args:
        panels: by title, curves by name in the legend; at most four in a panel.
    """
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.56))
        axes = figure.subplots(1, max(1, len(panels)), sharey=True, squeeze=False)[0]
        for axis, (title, curves) in zip(axes, panels.items(), strict=False):
            for (name, band), line, color in zip(curves.items(), _LINES, SERIES_COLORS, strict=False):
                axis.fill_between(
                    band.false_alarms, band.lower, band.upper, color=color, alpha=0.15, linewidth=0
                )
                axis.plot(
                    band.curve.false_alarms, band.curve.detected, color=color, linestyle=line, label=name
                )
            axis.plot([0, 1], [0, 1], color=NEUTRAL_COLOR, linewidth=0.8, linestyle=":", label="chance")
            axis.set(title=title, xlabel="share of right models with an alarm", xlim=(0, 1), ylim=(0, 1.01))
        axes[0].set_ylabel("share of wrong models with an alarm")
        legend_above(figure, list(axes), columns=3)
    return figure


def plot_disagreement_and_coverage(
    tables: Mapping[str, pd.DataFrame], *, lowest_coverage: float = 0.6
) -> Figure:
    """Coverage of judged pairs against their mean disagreement with the other method, a panel a parameter.

    Args:
        tables: by parameter, rows with ``method``, ``disagreement`` and ``coverage``, a row for each judged
            pair and nuisance value.
        lowest_coverage: line below which a pair is wrong.
    """
    with style_context():
        figure = Figure(figsize=figure_size(aspect=0.5))
        axes = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
        for axis, (parameter, table) in zip(axes, tables.items(), strict=True):
            for method in ("flow", "classifier"):
                part, style = table[table["method"] == method], METHOD_STYLES[method]
                look = {"color": style.color, "marker": style.marker, "label": style.label, "alpha": 0.7}
                axis.plot(part["disagreement"], part["coverage"], linestyle="", markersize=4.0, **look)
            axis.axhline(
                lowest_coverage, color=NEUTRAL_COLOR, linestyle="--", linewidth=1.0, label="wrong below"
            )
            axis.set(title=_PARAMETERS[parameter], xlabel=r"mean disagreement $D$ with the other method")
            axis.set_xlim(left=0.0)
        axes[0].set_ylabel("coverage at one true $z$")
        legend_above(figure, list(axes), columns=3)
    return figure

"""Figures about the ends of the trained range of a nuisance parameter."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from torch import Tensor

from sbilib.plotting.style import METHOD_STYLES, NEUTRAL_COLOR, TRUTH_COLOR, figure_size, style_context

__all__ = ["plot_against_nuisance"]


def plot_against_nuisance(
    angles: Tensor,
    panels: Mapping[str, Sequence[tuple[str, Tensor]]],
    *,
    ylabel: str,
    trained: Mapping[str, tuple[float, float]],
    scale: float = 1.0,
) -> Figure:
    """Curves against the true nuisance parameter, one panel a training range or method.

    Args:
        angles: angles in rad, shape ``(n,)``.
        panels: by title, curves as pairs of a method (``"flow"``, ``"classifier"``) and values ``(n,)``.
        ylabel: what the values are, with unit.
        trained: trained range in rad by title, marked by vertical lines.
        scale: factor on the values.

    Returns:
        The figure, unknown to pyplot; angles are in units of pi rad.
    """
    with style_context():
        n_columns = min(2, len(panels))
        n_rows = -(-len(panels) // n_columns)
        figure = Figure(figsize=figure_size(aspect=0.36 * n_rows))
        grid = figure.subplots(n_rows, n_columns, sharey=True, sharex=True, squeeze=False)
        for axis in grid.ravel()[len(panels) :]:
            axis.set_visible(False)
        for axis, (title, curves) in zip(grid.ravel(), panels.items(), strict=False):
            axis.axhline(0.0, color=TRUTH_COLOR, linewidth=1.0)
            for method, values in curves:
                style = METHOD_STYLES[method]
                axis.plot(
                    angles / math.pi,
                    scale * values,
                    color=style.color,
                    linestyle=style.linestyle,
                    linewidth=1.2,
                    marker=style.marker,
                    markersize=3,
                )
            for edge in trained[title]:
                if angles.min() - 0.1 < edge < angles.max() + 0.1:
                    axis.axvline(edge / math.pi, color=NEUTRAL_COLOR, linestyle=":", linewidth=1.2)
            axis.set_title(title)
        for axis in grid.ravel()[max(0, len(panels) - n_columns) : len(panels)]:
            axis.set_xlabel(r"nuisance parameter $z/\pi$")
            axis.tick_params(labelbottom=True)
        figure.supylabel(ylabel, fontsize=10)
    return figure

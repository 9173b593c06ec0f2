"""One legend for all panels of a figure."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["legend_above"]


def legend_above(figure: Figure, axes: Sequence[Axes], *, columns: int) -> None:
    """Name each label of the panels once, above them.

    Args:
        figure: with a constrained layout, which makes room.
        axes: its panels.
        columns: of the legend at most.
    """
    entries = {
        label: handle
        for axis in axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        list(entries.values()), list(entries), loc="outside upper center", ncols=min(len(entries), columns)
    )

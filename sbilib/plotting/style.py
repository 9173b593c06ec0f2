"""The one look of every figure: colors, line styles, sizes and fonts.

The colors are five of those of Okabe and Ito, chosen so that every pair stays apart for readers with any
common color vision; each method also has its own line style, so a figure survives a black-and-white
printer.  The background is opaque white, because the book can be read in light and in dark mode.

>>> METHOD_STYLES["flow"].color
'#0072B2'
>>> figure_size(0.5, aspect=1.0)
(3.5, 3.5)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

import matplotlib as mpl
from cycler import cycler
from IPython.core.getipython import get_ipython

from sbilib.errors import check_range

__all__ = [
    "BACKGROUND_COLOR",
    "CLASSIFIER_COLOR",
    "FIGURE_DPI",
    "FIGURE_WIDTH",
    "FLOW_COLOR",
    "METHOD_STYLES",
    "NEUTRAL_COLOR",
    "SERIES_COLORS",
    "SIGNAL_COLOR",
    "STYLE",
    "TRUTH_COLOR",
    "MethodStyle",
    "figure_size",
    "style_context",
    "use_style",
]

SIGNAL_COLOR = "#D55E00"
"""Vermilion: signal events and densities."""
BACKGROUND_COLOR = "#56B4E9"
"""Sky blue: background events and densities."""
TRUTH_COLOR = "#000000"
"""Black: exact densities, likelihoods and true parameter values."""
FLOW_COLOR = "#0072B2"
"""Blue: everything a normalizing flow has learned."""
CLASSIFIER_COLOR = "#009E73"
"""Bluish green: everything a classifier has learned."""
NEUTRAL_COLOR = "#6E6E6E"
"""Gray: guides, published values and reference lines."""
SERIES_COLORS = ("#882255", "#332288", "#999933", "#CC6677", "#AA4499", "#44AA99")
"""Wine, indigo, olive, rose, purple, teal: things compared that are none of the above, such as optimizers or
losses (the muted palette of Paul Tol, told apart with any color vision together with line styles)."""

FIGURE_WIDTH = 7.0
"""Width of the text column in inches."""
FIGURE_DPI = 110
"""Dots per inch: sharp enough for the screen, small enough to keep outputs in version control."""


class MethodStyle(NamedTuple):
    """How one method is drawn on every page."""

    color: str
    """Hexadecimal color."""
    linestyle: str
    """Matplotlib line style."""
    marker: str
    """Matplotlib marker."""
    label: str
    """Name in legends."""


METHOD_STYLES: Mapping[str, MethodStyle] = MappingProxyType(
    {
        "truth": MethodStyle(TRUTH_COLOR, "-", "o", "exact"),
        "flow": MethodStyle(FLOW_COLOR, "--", "s", "flow"),
        "classifier": MethodStyle(CLASSIFIER_COLOR, "-.", "^", "classifier"),
    }
)
"""Color, line style, marker and legend name of each method, by method name."""

STYLE: Mapping[Any, Any] = MappingProxyType(
    {
        "axes.axisbelow": True,
        "axes.grid": False,
        "axes.labelsize": 10,
        "axes.linewidth": 0.8,
        "axes.prop_cycle": cycler(
            color=[FLOW_COLOR, CLASSIFIER_COLOR, SIGNAL_COLOR, BACKGROUND_COLOR, NEUTRAL_COLOR, TRUTH_COLOR]
        ),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 10,
        "figure.constrained_layout.use": True,
        "figure.dpi": FIGURE_DPI,
        "figure.facecolor": "white",
        "figure.figsize": (FIGURE_WIDTH, 4.3),
        "font.family": "DejaVu Sans",
        "font.size": 9.5,
        "image.cmap": "cividis",
        "legend.fontsize": 9,
        "legend.frameon": False,
        "lines.linewidth": 1.6,
        "lines.markersize": 4.5,
        "mathtext.fontset": "dejavusans",
        "savefig.dpi": FIGURE_DPI,
        "savefig.facecolor": "white",
        "savefig.transparent": False,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
    }
)
"""Matplotlib settings of the book."""


def use_style() -> None:
    """Apply the style of the book to all figures made from now on.

    In a notebook this also makes a figure show as an image where it is the value of a cell, whether or
    not pyplot made it.
    """
    shell = get_ipython()
    if shell is not None and hasattr(shell, "kernel"):
        shell.run_line_magic("matplotlib", "inline")
    mpl.rcParams.update(STYLE)


@contextmanager
def style_context() -> Iterator[None]:
    """Apply the style of the book inside a ``with`` block and restore the old settings after it.

    >>> before = mpl.rcParams["lines.linewidth"]
    >>> with style_context():
    ...     mpl.rcParams["lines.linewidth"]
    1.6
    >>> mpl.rcParams["lines.linewidth"] == before
    True
    """
    with mpl.rc_context(dict(STYLE)):
        yield


def figure_size(width: float = 1.0, *, aspect: float = 0.62) -> tuple[float, float]:
    r"""Size of a figure in inches, :math:`(w\,W, a\,w\,W)` with the text width :math:`W` of 7 inches.

    Args:
        width: fraction :math:`w` of the text width, in (0, 1.5].
        aspect: height over width :math:`a`, in (0, 3].

    Returns:
        Width and height in inches.

    Raises:
        ParameterError: if a fraction lies outside its range.

    >>> figure_size()
    (7.0, 4.34)
    """
    check_range("width", width, low=0.0, high=1.5, include_low=False)
    check_range("aspect", aspect, low=0.0, high=3.0, include_low=False)
    return (round(width * FIGURE_WIDTH, 3), round(width * FIGURE_WIDTH * aspect, 3))

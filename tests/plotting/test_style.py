"""The style of the figures: opaque, apart for every color vision, within the text column."""

import itertools

import matplotlib as mpl
import matplotlib.colors as mcolors
import matplotlib.pyplot as plt
import numpy as np
import pytest

from sbilib.errors import ParameterError
from sbilib.plotting import style

COLORS = {
    "signal": style.SIGNAL_COLOR,
    "background": style.BACKGROUND_COLOR,
    "truth": style.TRUTH_COLOR,
    "flow": style.FLOW_COLOR,
    "classifier": style.CLASSIFIER_COLOR,
}

# Machado, Oliveira and Fernandes 2009, severity 1, in linear RGB.
COLOR_VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}


def linear_rgb(color: str) -> np.ndarray:
    value = np.array(mcolors.to_rgb(color))
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    xyz = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    ) @ np.clip(rgb, 0, 1)
    t = xyz / np.array([0.95047, 1.0, 1.08883])
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", COLOR_VISION)
def test_every_pair_of_colors_is_told_apart(vision):
    """A CIE76 distance above 20 is seen at a glance."""
    seen = {name: lab(COLOR_VISION[vision] @ linear_rgb(color)) for name, color in COLORS.items()}
    for first, second in itertools.combinations(seen, 2):
        assert np.linalg.norm(seen[first] - seen[second]) > 20, (vision, first, second)


def test_methods_differ_without_color():
    styles = style.METHOD_STYLES.values()
    assert len({s.linestyle for s in styles}) == len({s.marker for s in styles}) == len(styles)


def test_saved_figure_is_opaque_white(tmp_path):
    with style.style_context():
        figure, axes = plt.subplots(figsize=style.figure_size(0.3))
        axes.plot([0, 1])
        path = tmp_path / "figure.png"
        figure.savefig(path)
        plt.close(figure)
    pixels = plt.imread(path)
    assert np.allclose(pixels[0, 0, :3], 1.0)
    assert pixels.shape[2] == 3 or np.allclose(pixels[..., 3], 1.0)
    assert pixels.shape[1] == pytest.approx(0.3 * style.FIGURE_WIDTH * style.FIGURE_DPI, abs=1)


def test_use_style_changes_the_global_settings():
    with mpl.rc_context():
        style.use_style()
        assert mpl.rcParams["figure.facecolor"] == "white"
        assert mpl.rcParams["figure.dpi"] == style.FIGURE_DPI


@pytest.mark.parametrize("width", [0.0, -1.0, 2.0, float("nan")])
def test_impossible_width_is_refused(width):
    with pytest.raises(ParameterError, match="width"):
        style.figure_size(width)

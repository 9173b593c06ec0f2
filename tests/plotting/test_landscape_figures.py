"""Maps and stacked yields show what they are given."""

from __future__ import annotations

import numpy as np
import pytest

from sbilib.errors import DataError, ParameterError
from sbilib.plotting import LossMap, StackedYield, plot_landscapes, plot_stacked_yields

X, Y = np.linspace(-2, 2, 9), np.linspace(-1, 1, 5)
VALUES = X + 10 * Y[:, None]


def draw(*maps: LossMap, **options: object):
    return plot_landscapes(maps, X, Y, x_label="u", y_label="d", **options)  # type: ignore[arg-type]


def test_a_map_has_its_values_its_target_and_its_paths():
    path = np.array([[1.0, 0.5], [0.0, 0.25]])
    axis = draw(LossMap("loss", VALUES, [path]), target=(0.0, 0.0)).axes[0]
    (mesh,) = axis.collections
    assert np.asarray(mesh.get_array()) == pytest.approx(VALUES)
    line, end, target = axis.lines
    assert line.get_xydata() == pytest.approx(path)
    assert end.get_xydata() == pytest.approx(path[-1:])
    assert target.get_xydata() == pytest.approx(np.zeros((1, 2)))
    assert (axis.get_title(), axis.get_xlabel(), axis.get_ylabel()) == ("loss", "u", "d")


def test_every_map_has_its_own_color_scale():
    figure = draw(LossMap("a", VALUES), LossMap("b", 2 * VALUES), columns=3)
    limits = [axis.collections[0].get_clim() for axis in figure.axes[:2]]
    assert limits == [(-12.0, 12.0), (-24.0, 24.0)]
    assert len(figure.axes) == 4


def test_a_transposed_map_a_flat_path_and_no_map_are_refused():
    with pytest.raises(DataError, match=r"shape \(5, 9\), got \(9, 5\)"):
        draw(LossMap("loss", VALUES.T))
    with pytest.raises(DataError, match=r"shape \(n, 2\)"):
        draw(LossMap("loss", VALUES, [np.zeros(3)]))
    with pytest.raises(ParameterError, match="needs a map"):
        draw()


def test_signal_stands_on_background_and_the_box_is_centered_on_it():
    axis = plot_stacked_yields([StackedYield("a", 5.0, 40.0, 2.0), StackedYield("b", 7.0, 30.0, 4.0)]).axes[0]
    background, signal, box = axis.containers
    assert [bar.get_height() for bar in background] == [40.0, 30.0]
    assert [(bar.get_y(), bar.get_height()) for bar in signal] == [(40.0, 5.0), (30.0, 7.0)]
    assert [(bar.get_y(), bar.get_height()) for bar in box] == [(38.0, 4.0), (26.0, 8.0)]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["a", "b"]
    with pytest.raises(ParameterError, match="needs a bar"):
        plot_stacked_yields([])

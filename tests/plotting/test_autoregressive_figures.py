"""Patterns of matrices and maps of densities show what they are given."""

from __future__ import annotations

import numpy as np
import pytest

from sbilib.errors import DataError, ParameterError
from sbilib.plotting.autoregressive import Matrix, plot_density_maps, plot_matrices

X, Y = np.linspace(-2, 2, 9), np.linspace(-1, 1, 5)
VALUES = np.exp(-0.5 * (X**2 + 9 * Y[:, None] ** 2))


def draw(**maps: np.ndarray):
    return plot_density_maps(maps, X, Y, x_label="p", y_label="E", decades=1.0)


def test_a_matrix_is_dark_exactly_where_it_is_not_zero_with_the_first_row_on_top():
    values = np.array([[0.0, 0.0, -2.0], [1e-9, 0.0, 3.0]])
    axis = plot_matrices([Matrix("mask", values, "input", "unit")]).axes[0]
    (mesh,) = axis.collections
    assert np.asarray(mesh.get_array()).reshape(2, 3).tolist() == (values != 0).tolist()
    assert axis.get_ylim() == (2.5, 0.5)
    assert axis.get_xlim() == (0.5, 3.5)
    assert (axis.get_title(), axis.get_xlabel(), axis.get_ylabel()) == ("mask", "input", "unit")


def test_the_colors_of_zero_and_of_one_differ():
    (mesh,) = plot_matrices([Matrix("", np.eye(2), "", "")]).axes[0].collections
    colors = mesh.to_rgba(np.array([0.0, 1.0]))
    assert np.abs(colors[0, :3] - colors[1, :3]).min() > 0.5


def test_no_matrix_and_a_vector_are_refused():
    with pytest.raises(ParameterError, match="needs a matrix"):
        plot_matrices([])
    with pytest.raises(DataError, match=r"'row' must have shape \(rows, columns\), got \(3,\)"):
        plot_matrices([Matrix("row", np.ones(3), "", "")])


def test_all_maps_share_the_scale_of_the_first_and_small_densities_its_lowest_color():
    figure = draw(exact=VALUES, model=3 * VALUES)
    meshes = [axis.collections[0] for axis in figure.axes[:2]]
    assert [mesh.get_clim() for mesh in meshes] == [pytest.approx((0.1, 1.0))] * 2
    assert np.asarray(meshes[0].get_array()).reshape(5, 9) == pytest.approx(VALUES.clip(0.1))
    assert np.asarray(meshes[1].get_array()).reshape(5, 9) == pytest.approx((3 * VALUES).clip(0.1))
    assert [axis.get_title() for axis in figure.axes[:2]] == ["exact", "model"]
    assert figure.axes[-1].get_ylabel() == "density"


def test_spare_panels_are_hidden_and_labels_stand_at_the_edges():
    figure = draw(a=VALUES, b=VALUES, c=VALUES, d=VALUES)
    assert [axis.get_visible() for axis in figure.axes] == [True] * 4 + [False] * 2 + [True]
    assert [axis.get_ylabel() for axis in figure.axes[:4]] == ["E", "", "", "E"]
    assert [axis.get_xlabel() for axis in figure.axes[:4]] == ["", "p", "p", "p"]


def test_a_transposed_or_empty_map_is_refused():
    with pytest.raises(DataError, match=r"'exact' needs values of shape \(5, 9\), got \(9, 5\)"):
        draw(exact=VALUES.T)
    with pytest.raises(DataError, match="positive density"):
        draw(exact=0 * VALUES)
    with pytest.raises(ParameterError, match="needs a map"):
        draw()
    with pytest.raises(ParameterError, match="decades"):
        plot_density_maps({"a": VALUES}, X, Y, x_label="", y_label="", decades=0.0)

"""Figures of built-in symmetry show every result once."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from sbilib.plotting import METHOD_STYLES, DataPanel, plot_frame, plot_overlap_against_data


def panel(method: str = "flow") -> DataPanel:
    rows = [
        {"knowledge": knowledge, "n_events": n, "mean": mean, "error": error}
        for knowledge, mean, error in (("generic", 0.5, math.nan), ("symmetric", 0.98, 0.01))
        for n in (1000, 10_000)
    ]
    limits = {"limit, frame": {1000: 0.8, 10_000: 0.9}, "limit, symmetric": {1000: 0.9, 10_000: 0.99}}
    return DataPanel("title", method, pd.DataFrame(rows), limits)


def test_every_kind_of_knowledge_and_every_limit_has_its_name_once():
    figure = plot_overlap_against_data([[panel(), panel()], [panel("classifier")] * 2], goal=0.98)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(names) == sorted(
        ["limit, frame", "limit, symmetric", "overlap 0.98", "generic", "symmetric"]
    )
    assert len(figure.axes) == 4


def test_what_is_missing_is_drawn_in_the_color_of_the_method():
    axis = plot_overlap_against_data([[panel("classifier")]]).axes[0]
    drawn = {c.get_label(): c.lines[0] for c in axis.containers}
    assert drawn["generic"].get_ydata() == pytest.approx([0.5, 0.5])
    assert drawn["symmetric"].get_ydata() == pytest.approx([0.02, 0.02])
    assert {line.get_color() for line in drawn.values()} == {METHOD_STYLES["classifier"].color}


def test_an_error_as_large_as_what_is_missing_stays_on_the_logarithmic_axis():
    wide = panel()
    wide.summary.loc[wide.summary["knowledge"] == "symmetric", "error"] = 0.05
    axis = plot_overlap_against_data([[wide]]).axes[0]
    segments = [s for c in axis.containers for bar in c.lines[2] for s in bar.get_segments()]
    assert np.concatenate(segments)[:, 1].min() > 0


def test_the_same_events_are_drawn_in_both_frames():
    x = torch.arange(8.0).reshape(4, 2)
    figure = plot_frame({"z = 0": (x, x + 1), "z = 1": (x, x)}, {"z = 0": (x, x), "z = 1": (x, x)})
    assert [len(axis.collections) for axis in figure.axes] == [4, 4]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["signal, z = 0", "background, z = 0", "signal, z = 1", "background, z = 1"]

"""Models for the tests of fits and hypothesis tests, each beside the same model in pyhf."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyhf
import torch
from torch import Tensor

from sbilib.histfactory import (
    Channel,
    Model,
    NormFactor,
    NormSys,
    Sample,
    ShapeSys,
    StatError,
    correlated_background,
    uncorrelated_background,
)


class Pair(NamedTuple):
    """A model, the same in pyhf, and data with auxiliary data."""

    model: Model
    oracle: Any
    data: Tensor


def observed(model: Model, counts: list[float] | Tensor) -> Tensor:
    main = torch.as_tensor(counts, dtype=torch.float64)
    return torch.cat([main, model.auxiliary_data.expand(*main.shape[:-1], -1)], dim=-1)


def simple(counts: tuple[float, float]) -> Pair:
    """The two-bin model of pyhf's documentation."""
    templates = [12.0, 11.0], [50.0, 52.0], [3.0, 7.0]
    model = uncorrelated_background(*templates)
    oracle = pyhf.simplemodels.uncorrelated_background(*templates)
    return Pair(model, oracle, observed(model, list(counts)))


def correlated(counts: tuple[float, ...]) -> Pair:
    templates = [2.0, 6.0, 10.0], [60.0, 50.0, 40.0], [66.0, 53.0, 39.0], [55.0, 47.0, 42.0]
    model = correlated_background(*templates)
    oracle = pyhf.simplemodels.correlated_background(*templates)
    return Pair(model, oracle, observed(model, list(counts)))


def peak(n_bins: int, seed: int = 0) -> Pair:
    """A peak over a falling background with shapesys, staterror and normsys."""
    rng = np.random.default_rng(seed)
    x = (np.arange(n_bins) + 0.5) / n_bins
    signal = 30 * np.exp(-0.5 * ((x - 0.5) / 0.15) ** 2) / n_bins + 0.1
    background = 2000 * np.exp(-2 * x) / n_bins
    numbers = {
        "signal": signal.tolist(),
        "background": background.tolist(),
        "shape": (0.05 * background).tolist(),
        "stat_signal": (0.1 * signal).tolist(),
        "stat_background": (0.02 * background).tolist(),
    }
    model = Model(
        [
            Channel(
                "SR",
                [
                    Sample(
                        "signal",
                        numbers["signal"],
                        [NormFactor("mu"), StatError("stat", numbers["stat_signal"])],
                    ),
                    Sample(
                        "background",
                        numbers["background"],
                        [
                            ShapeSys("shape", numbers["shape"]),
                            StatError("stat", numbers["stat_background"]),
                            NormSys("norm", 0.95, 1.06),
                        ],
                    ),
                ],
            )
        ]
    )
    signal_modifiers = [
        {"name": "mu", "type": "normfactor", "data": None},
        {"name": "stat", "type": "staterror", "data": numbers["stat_signal"]},
    ]
    background_modifiers = [
        {"name": "shape", "type": "shapesys", "data": numbers["shape"]},
        {"name": "stat", "type": "staterror", "data": numbers["stat_background"]},
        {"name": "norm", "type": "normsys", "data": {"lo": 0.95, "hi": 1.06}},
    ]
    samples = [
        {"name": "signal", "data": numbers["signal"], "modifiers": signal_modifiers},
        {"name": "background", "data": numbers["background"], "modifiers": background_modifiers},
    ]
    oracle = pyhf.Model(
        {"channels": [{"name": "SR", "samples": samples}]},
        poi_name="mu",
        modifier_settings={"normsys": {"interpcode": "code4"}, "histosys": {"interpcode": "code4p"}},
    )
    return Pair(model, oracle, observed(model, rng.poisson(background + signal).astype(float).tolist()))

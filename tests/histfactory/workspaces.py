"""Random valid workspaces for property-based tests, and helpers that compare with pyhf."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyhf
import torch

from sbilib.histfactory import Model, Workspace

Spec = dict[str, Any]


def _numbers(
    rng: np.random.Generator, low: float, high: float, n: int, *, zeros: bool = False
) -> list[float]:
    values = rng.uniform(low, high, n)
    if zeros:
        values[rng.random(n) < 0.15] = 0.0
    return [float(value) for value in values]


def _modifiers(
    rng: np.random.Generator, channel: str, sample: str, yields: list[float], kinds: set[str]
) -> list[Spec]:
    n = len(yields)
    found: list[Spec] = []

    def add(kind: str, name: str, data: Any) -> None:
        if kind in kinds and rng.random() < 0.7:
            found.append({"name": name, "type": kind, "data": data})

    add("normfactor", "mu" if sample == "signal" else f"norm_{sample}", None)
    for name in ("alpha", f"alpha_{channel}"):
        add("normsys", name, {"lo": float(rng.uniform(0.7, 1.1)), "hi": float(rng.uniform(0.9, 1.4))})
        variations = [
            [float(y * f) for y, f in zip(yields, rng.uniform(0.93, 1.07, n), strict=True)] for _ in "ab"
        ]
        add("histosys", name, {"lo_data": variations[0], "hi_data": variations[1]})
    add("lumi", "lumi", None)
    add("shapesys", f"shape_{channel}_{sample}", _numbers(rng, 0.5, 5.0, n, zeros=True))
    if sample != "signal":
        add("shapefactor", f"free_{channel}", None)
    if "staterror" in kinds:
        errors = _numbers(rng, 0.1, 4.0, n, zeros=True)
        # The alphabetical order of these names is not that of the channels, which a wrong order would show.
        name = {"CR": "stat_z", "SR": "stat_a", "VR": "stat_m"}[channel]
        found.append({"name": name, "type": "staterror", "data": errors})
    return found


@st.composite
def workspaces(draw: st.DrawFn) -> Spec:
    """A workspace of one to three channels with a random choice of modifiers."""
    seed = draw(st.integers(0, 2**32 - 1))
    kinds = draw(
        st.sets(
            st.sampled_from(
                ["normsys", "histosys", "lumi", "shapesys", "staterror", "shapefactor", "normfactor"]
            )
        )
    )
    n_channels, n_bins = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    rng = np.random.default_rng(seed)
    channels, observations = [], []
    names = rng.permutation(["SR", "CR", "VR"])[:n_channels].tolist()
    for name in names:
        samples = []
        for sample in rng.permutation(["signal", "ttbar", "other"])[: rng.integers(1, 4)].tolist():
            yields = _numbers(rng, 5.0, 60.0, n_bins, zeros=True)
            samples.append(
                {"name": sample, "data": yields, "modifiers": _modifiers(rng, name, sample, yields, kinds)}
            )
        always = {"name": "scale", "type": "normfactor", "data": None}
        base = {"name": "fixed", "data": _numbers(rng, 5.0, 20.0, n_bins), "modifiers": [always]}
        channels.append({"name": name, "samples": [*samples, base]})
        observations.append({"name": name, "data": [float(rng.poisson(40)) for _ in range(n_bins)]})
    lumi = {"name": "lumi", "auxdata": [1.1], "sigmas": [0.05], "inits": [1.1], "bounds": [[0.5, 1.5]]}
    config = {"poi": "scale", "parameters": [lumi] if "lumi" in kinds else []}
    return {
        "channels": channels,
        "observations": observations,
        "measurements": [{"name": "search", "config": config}],
        "version": "1.0.0",
    }


def pyhf_codes(normsys: str, histosys: str) -> Spec:
    """Return pyhf's spelling of the interpolation codes."""
    return {"normsys": {"interpcode": f"code{normsys}"}, "histosys": {"interpcode": f"code{histosys}"}}


def both(spec: Spec, normsys: str = "4", histosys: str = "4p") -> tuple[Model, Any]:
    """Return our model and pyhf's of a workspace."""
    ours = Workspace(spec).model(normsys_code=normsys, histosys_code=histosys)
    theirs = pyhf.Workspace(spec).model(modifier_settings=pyhf_codes(normsys, histosys))
    return ours, theirs


def random_theta(model: Model, seed: int) -> torch.Tensor:
    """Draw parameters around their start values, wide enough to reach both sides of |alpha| = 1."""
    generator = torch.Generator().manual_seed(seed)
    shift = torch.rand(model.n_parameters, generator=generator, dtype=torch.float64) * 2 - 1
    scale = torch.where(model.initial == 0, 1.8, 0.4)
    return model.initial + scale * shift

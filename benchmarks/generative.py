"""Generative models without context: training and sampling against nflows, and zuko where it is installed.

Run ``python -m benchmarks.generative`` (``--quick`` for fewer rounds and events, ``--size gavranovic`` for
the published sizes).  Every rival has the features, transforms, hidden units, blocks, bins or Gaussians of
ours.  The models of nflows hold the same weights and compute the same function, which is checked first.
Those of zuko differ in detail, as in :mod:`benchmarks.flow`.  nflows cannot draw from its mixture without a
context: the passes of its network that it would make, one for each feature, are timed instead.  Prints tables
and writes ``benchmarks/results/generative.json`` (``generative-gavranovic.json`` for the published sizes).
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._timing import compare, environment, print_table, write_json
from sbilib.models import (
    AffineFlowConfig,
    GenerativeModel,
    MaskedAutoregressiveFlow,
    MixtureAutoregressive,
    MixtureConfig,
    RealNVP,
    SplineAutoregressiveFlow,
    SplineCouplingFlow,
    SplineFlowConfig,
)
from sbilib.models.generative import DensityFlow
from sbilib.models.generative_nflows import nflows_model

FEATURES = 18
STEP_EVENTS = 1024
BASELINE = "nflows"
SIZES = ("modern", "gavranovic")


def models(size: str) -> dict[str, GenerativeModel]:
    """Our models of a named size."""
    affine, spline = getattr(AffineFlowConfig, size)(FEATURES), getattr(SplineFlowConfig, size)(FEATURES)
    return {
        "MADEMOG": MixtureAutoregressive(getattr(MixtureConfig, size)(FEATURES)),
        "MAF": MaskedAutoregressiveFlow(affine),
        "NSF-AR": SplineAutoregressiveFlow(spline),
        "RealNVP": RealNVP(affine),
        "NSF coupling": SplineCouplingFlow(spline),
    }


def zuko_model(name: str, model: GenerativeModel) -> nn.Module | None:
    """The closest model that zuko offers, or None if it has none or is not installed."""
    if find_spec("zuko") is None or name == "MADEMOG":
        return None
    import zuko

    config: Any = model.config
    options: dict[str, Any] = {
        "features": FEATURES,
        "transforms": config.n_transforms,
        "hidden_features": [config.hidden] * (1 + config.n_blocks),
        "residual": True,
    }
    if isinstance(config, SplineFlowConfig):
        bins = config.n_bins
        options["univariate"] = partial(zuko.transforms.MonotonicRQSTransform, bound=config.tail_bound)
        options["shapes"] = [(bins,), (bins,), (bins - 1,)]
    if name in ("RealNVP", "NSF coupling"):
        options["passes"] = 2
    flow: nn.Module = zuko.flows.MAF(**options)
    return flow


def training_step(
    model: nn.Module, log_prob: Callable[[Tensor], Tensor], *, fused: bool
) -> Callable[[], None]:
    """One step of Adam on the mean negative log density of a fixed batch."""
    x = torch.randn(STEP_EVENTS, FEATURES)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, fused=fused)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        (-log_prob(x).mean()).backward()
        optimizer.step()

    return step


def nflows_drawing(ours: GenerativeModel, theirs: Any, events: int) -> Callable[[], object]:
    """How nflows draws events."""
    if isinstance(ours, DensityFlow):
        return lambda: theirs.sample(events)
    x = torch.zeros(events, FEATURES)
    return lambda: [theirs(x) for _ in range(FEATURES)]


def tasks(name: str, ours: GenerativeModel, events: int) -> dict[str, dict[str, Callable[[], object]]]:
    """A training step and the drawing of events, of every implementation of one model."""
    theirs, peer = nflows_model(ours), zuko_model(name, ours)
    generator = torch.Generator().manual_seed(0)
    steps: dict[str, Callable[[], object]] = {
        BASELINE: training_step(theirs, theirs.log_prob, fused=False),
        "ours": training_step(ours, ours.log_prob, fused=True),
    }
    draws: dict[str, Callable[[], object]] = {
        BASELINE: nflows_drawing(ours, theirs, events),
        "ours": lambda: ours.sample(events, generator),
    }
    if peer is not None:
        steps["zuko"] = training_step(peer, lambda x: peer().log_prob(x), fused=False)
        draws["zuko"] = lambda: peer().sample((events,))
    return {"training": steps, "sampling": draws}


@torch.no_grad()
def largest_difference(ours: GenerativeModel) -> float:
    """Largest relative difference of log_prob between a copy of ours and nflows, both in float64."""
    copy = type(ours)(ours.config).double()
    for parameter in copy.parameters():
        parameter.add_(0.01 * torch.randn_like(parameter))
    x = 2 * torch.randn(256, FEATURES, dtype=torch.float64)
    mine, other = copy.log_prob(x), nflows_model(copy).log_prob(x)
    return float(((mine - other).abs() / (1 + other.abs())).max())


def measure(name: str, ours: GenerativeModel, events: int, rounds: int) -> list[dict[str, Any]]:
    """Time both tasks with all implementations of one model."""
    rows = []
    for task, methods in tasks(name, ours, events).items():
        number = STEP_EVENTS if task == "training" else events
        with torch.set_grad_enabled(task == "training"):
            times = compare(methods, rounds=rounds, warm_up=1)
        for method in methods:
            middle, low, high = times.speedup(method, BASELINE)
            rows.append(
                {
                    "model": name,
                    "task": task,
                    "method": method,
                    "events_per_second": number / times.median(method),
                    "speedup": middle,
                    "speedup_quartiles": [low, high],
                }
            )
    return rows


def show(size: str, rows: list[dict[str, Any]]) -> None:
    """Print one table for each task."""
    columns = ["model", "method", "events/s", "times faster than nflows (quartiles)"]
    for task in ("training", "sampling"):
        cells = []
        for row in rows:
            if row["task"] == task:
                low, high = row["speedup_quartiles"]
                speedup = f"{row['speedup']:.2f}  ({low:.2f}-{high:.2f})"
                cells.append([row["model"], row["method"], f"{row['events_per_second']:.0f}", speedup])
        print_table(f"{task}, {size} size, {FEATURES} features", columns, cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds and events")
    parser.add_argument("--size", choices=SIZES, default="modern", help="size of all models")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    warnings.filterwarnings("ignore", message="Inputs to the softmax are not scaled down")
    small = options.quick or options.size == "gavranovic"
    rounds, events = (3, 256) if small else (7, 1024)
    rows, differences = [], {}
    for name, ours in models(options.size).items():
        differences[name] = largest_difference(ours)
        rows += measure(name, ours, events, rounds)
    show(options.size, rows)
    print(f"largest relative difference of log_prob from nflows: {max(differences.values()):.1e}")
    content = {
        "size": options.size,
        "sampled_events": events,
        "rows": rows,
        "largest_float64_difference": differences,
        "quick": options.quick,
    }
    name = "generative" if options.size == "modern" else f"generative-{options.size}"
    print(f"{environment()}\nwrote {write_json(name, content)}")


if __name__ == "__main__":
    main()

"""The published flow: training step, log_prob and sampling against plain nflows and zuko.

Run ``python -m benchmarks.flow`` (``--quick`` for fewer rounds).  Every flow has the published shape: two
features, one context, 4 autoregressive spline layers, 64 hidden units, 2 residual blocks, 10 bins, tail bound
7.  Ours and nflows compute the same function of the same parameters, which is checked first.  zuko's differs
in detail: its blocks lack the activation in front and see the context only through the first layer, and its
spline limits its parameters in another way.  The floor is the number of multiplications and additions that
the matrix products of the published flow need, over the measured rate of a product of these sizes.  Prints
tables and writes ``benchmarks/results/flow.json``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import zuko
from torch import Tensor, nn

from benchmarks._timing import compare, environment, print_table, write_json
from sbilib.models import ConditionalFlow, FlowConfig
from sbilib.models.flow import CHUNK
from sbilib.models.nflows_reference import build_nflows, from_nflows_state_dict

STEP_EVENTS = 512
EVALUATED_EVENTS = 16384
BASELINE = "nflows"
FLOOR = "arithmetic floor"
CONFIG = FlowConfig.sluijter()


def multiply_adds(config: FlowConfig) -> int:
    """Multiply-adds of all matrix products that one event needs in one evaluation."""
    parameters = (config.features - 1) * (3 * config.n_bins - 1)
    inputs = config.features - 1 + (1 + config.n_blocks) * config.context_features
    units = inputs + 2 * config.n_blocks * config.hidden + parameters
    return config.n_transforms * config.hidden * units


def matrix_product(events: int) -> tuple[Callable[[], object], int]:
    """A product (hidden, hidden) x (hidden, events) and the operations it takes."""
    weight, units = torch.randn(CONFIG.hidden, CONFIG.hidden), torch.randn(CONFIG.hidden, events)
    out = torch.empty_like(units)
    return lambda: torch.mm(weight, units, out=out), 2 * CONFIG.hidden**2 * events


def zuko_flow() -> nn.Module:
    """The closest flow that zuko offers."""
    return zuko.flows.MAF(
        features=CONFIG.features,
        context=CONFIG.context_features,
        transforms=CONFIG.n_transforms,
        randperm=True,
        univariate=partial(zuko.transforms.MonotonicRQSTransform, bound=CONFIG.tail_bound),
        shapes=[(CONFIG.n_bins,), (CONFIG.n_bins,), (CONFIG.n_bins - 1,)],
        hidden_features=[CONFIG.hidden] * CONFIG.n_blocks,
        residual=True,
    )


def training_step(flow: nn.Module, log_prob: Callable[..., Tensor], *, fused: bool) -> Callable[[], None]:
    """One step of Adam on the mean negative log density of a fixed batch."""
    x, z = torch.randn(STEP_EVENTS, 2), torch.rand(STEP_EVENTS, 1)
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-5, fused=fused)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        (-log_prob(x, z).mean()).backward()
        optimizer.step()

    return step


def first_call(method: Callable[[], object]) -> float:
    """Seconds of the first call, which compiles."""
    start = time.perf_counter()
    method()
    return time.perf_counter() - start


def compiled(config: FlowConfig) -> ConditionalFlow:
    """Our flow, compiled in place at its first call."""
    flow = ConditionalFlow(config)
    flow.compile(dynamic=False)
    return flow


def step_methods(nflows: nn.Module) -> dict[str, Callable[[], None]]:
    """A training step of every flow."""
    plain, peer = build_nflows(CONFIG), zuko_flow()
    ours, modern = ConditionalFlow(CONFIG), ConditionalFlow(FlowConfig.modern())
    ours_compiled, modern_compiled = compiled(CONFIG), compiled(FlowConfig.modern())
    return {
        BASELINE: training_step(plain, plain.log_prob, fused=False),
        "nflows, fused Adam": training_step(nflows, nflows.log_prob, fused=True),
        "zuko": training_step(peer, lambda x, z: peer(z).log_prob(x), fused=False),
        "ours": training_step(ours, ours.log_prob, fused=True),
        "ours, compiled": training_step(ours_compiled, ours_compiled.log_prob, fused=True),
        "modern()": training_step(modern, modern.log_prob, fused=True),
        "modern(), compiled": training_step(modern_compiled, modern_compiled.log_prob, fused=True),
    }


def evaluation_methods(nflows: nn.Module) -> dict[str, dict[str, Callable[[], object]]]:
    """log_prob and sampling of every flow on a large batch, without gradients."""
    x, z = torch.randn(EVALUATED_EVENTS, 2), torch.rand(EVALUATED_EVENTS, 1)
    ours, ours_compiled = from_nflows_state_dict(CONFIG, nflows.state_dict()), compiled(CONFIG)
    modern, peer = ConditionalFlow(FlowConfig.modern()), zuko_flow()
    generator = torch.Generator().manual_seed(0)
    return {
        "log_prob": {
            BASELINE: lambda: nflows.log_prob(x, z),
            "zuko": lambda: peer(z).log_prob(x),
            "ours": lambda: ours.log_prob(x, z),
            "ours, compiled": lambda: ours_compiled.log_prob(x, z),
            "modern()": lambda: modern.log_prob(x, z),
        },
        "sampling": {
            BASELINE: lambda: nflows.sample(1, z),
            "zuko": lambda: peer(z).sample(),
            "ours": lambda: ours.sample(z, generator),
            "modern()": lambda: modern.sample(z, generator),
        },
    }


def largest_difference(nflows: nn.Module) -> float:
    """Largest difference of log_prob between ours and nflows in float64, inside and outside the tails."""
    theirs = build_nflows(CONFIG).double()
    theirs.load_state_dict(nflows.state_dict())
    ours = from_nflows_state_dict(CONFIG, theirs.state_dict())
    x, z = 4 * torch.randn(EVALUATED_EVENTS, 2).double(), torch.rand(EVALUATED_EVENTS, 1).double()
    with torch.no_grad():
        return (ours.log_prob(x, z) - theirs.log_prob(x, z)).abs().max().item()


def measure(
    task: str, events: int, methods: dict[str, Callable[[], object]], operations: int, rounds: int
) -> list[dict[str, Any]]:
    """Time one task with all methods, print its table and return its rows.

    Args:
        task: its name.
        events: events of one call.
        methods: what to time.
        operations: what the matrix products of one event need.
        rounds: how often every method has its turn.
    """
    # Products of the size that our flow meets are timed in the same rounds.
    product, product_operations = matrix_product(min(events, CHUNK))
    times = compare({**methods, FLOOR: product}, rounds=rounds)
    rate = product_operations / times.median(FLOOR)
    floor = operations * events / rate
    rows = []
    for method in methods:
        middle, low, high = times.speedup(method, BASELINE)
        rows.append(
            {
                "task": task,
                "method": method,
                "seconds": times.median(method),
                "events_per_second": events / times.median(method),
                "speedup": middle,
                "speedup_quartiles": [low, high],
                "over_floor": times.median(method) / floor,
            }
        )
    cells = [
        [
            row["method"],
            f"{1e3 * row['seconds']:.2f}",
            f"{row['events_per_second'] / 1e3:.0f}",
            f"{row['speedup']:.2f}  ({row['speedup_quartiles'][0]:.2f}-{row['speedup_quartiles'][1]:.2f})",
            f"{row['over_floor']:.1f}",
        ]
        for row in rows
    ]
    cells.append([FLOOR, f"{1e3 * floor:.2f}", f"{events / floor / 1e3:.0f}", "", "1.0"])
    rows.append({"task": task, "method": FLOOR, "seconds": floor, "matrix_rate": rate})
    columns = ["method", "ms", "1000 events/s", "times faster than nflows (quartiles)", "over the floor"]
    print_table(f"{task}, {events} events", columns, cells)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, for a look in about a minute")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.compiler.config.force_disable_caches = True  # compile times are those of a first run
    torch.manual_seed(0)
    rounds = 5 if options.quick else 40
    nflows = build_nflows(CONFIG)
    difference = largest_difference(nflows)
    print(f"largest difference of log_prob from nflows in float64: {difference:.1e}")

    steps, evaluations = step_methods(nflows), evaluation_methods(nflows)
    compile_seconds = {
        f"training step of {name}": first_call(steps[name])
        for name in ("ours, compiled", "modern(), compiled")
    }
    with torch.no_grad():
        compile_seconds["log_prob of ours, compiled"] = first_call(evaluations["log_prob"]["ours, compiled"])

    operations = 2 * multiply_adds(CONFIG)
    # A step needs the products forward, and twice as many backward: for the inputs and for the weights.
    rows = measure("training step", STEP_EVENTS, steps, 3 * operations, rounds)
    with torch.no_grad():
        for task, methods in evaluations.items():
            rows += measure(task, EVALUATED_EVENTS, methods, operations, max(3, rounds // 2))
    print_table(
        "compile time (once a batch size)",
        ["graph", "seconds"],
        [[name, f"{seconds:.1f}"] for name, seconds in compile_seconds.items()],
    )
    content = {
        "rows": rows,
        "compile_seconds": compile_seconds,
        "operations_per_event": operations,
        "largest_float64_difference": difference,
        "quick": options.quick,
    }
    print(f"{environment()}\nwrote {write_json('flow', content)}")


if __name__ == "__main__":
    main()

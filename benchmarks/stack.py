"""Stacked training against one model after the other: member-steps per second.

Run ``python -m benchmarks.stack`` (``--quick`` for fewer rounds, ``--device cuda`` on a GPU).  A member-step
is one optimizer step of one model, its batch drawn from a training set on the device.  The loop of single
models runs the library's ordinary training; both it and the stacks run eager and compiled, and the better of
the two loops is the baseline.  The floor is the number of multiplications and additions in the matrix
products of a step, three times those of an evaluation, over the rate of batched products of the same sizes,
measured in the same rounds.  Prints tables and writes ``benchmarks/results/stack.json``.

A second table counts what a step asks of a GPU: kernels to launch, and operations.  A single small model
leaves a GPU waiting for launches; a stack needs hardly more launches than one model, so the loop takes
``M L t`` and the stack the larger of ``L t`` and the arithmetic, with ``L`` launches of ``t`` seconds each.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks._timing import compare, environment, print_table, write_json
from benchmarks.flow import first_call, multiply_adds
from sbilib.models import FlowConfig, stack_models
from sbilib.problems import GaussianToy
from sbilib.studies.members import Member, PairData, prepare_member
from sbilib.studies.recipes import Recipe, get_recipe
from sbilib.training import StackedBatches
from sbilib.training.loop import _Run
from sbilib.training.stack import _StackRun

MEMBERS = (2, 4, 8)
LAUNCH_SECONDS = 5e-6  # a usual time between two kernel launches from PyTorch
GPU_RATE = 2e13  # operations per second of batched float32 products this small on a large GPU, cautiously
TOY = GaussianToy.large_distance()


def members_of(recipe: Recipe, n: int, device: torch.device) -> list[Member]:
    """Fresh models with training sets of their own."""
    data = [PairData.draw(TOY, recipe, seed=seed, device=device) for seed in range(n)]
    return [
        prepare_member(TOY, recipe, "signal", own, seed=seed, device=device) for seed, own in enumerate(data)
    ]


def single_step(recipe: Recipe, device: torch.device, *, compiled: bool) -> Callable[[], None]:
    """One optimizer step of one ordinary model."""
    config = replace(recipe.training, compile=compiled, n_steps=10**6, validate_every=10**6)
    member = members_of(recipe, 1, device)[0]
    run = _Run(member.model, member.loss, config, device)
    return lambda: run.step(member.batches.batch(config.batch_size, run.state.step))


def stack_step(recipe: Recipe, n: int, device: torch.device, *, compiled: bool) -> Callable[[], None]:
    """One optimizer step of a stack of ``n``."""
    config = replace(recipe.training, compile=compiled, n_steps=10**5, validate_every=10**5)
    members = members_of(recipe, n, device)
    stack = stack_models([member.model for member in members])
    run = _StackRun(stack, members[0].loss, config, [config.learning_rate] * n)
    batches = StackedBatches([member.batches for member in members])
    return lambda: run.advance(batches.batch(config.batch_size, run.step))


def operations(recipe: Recipe) -> int:
    """Operations of the matrix products of one member-step: forward, and twice as many backward."""
    model, batch = recipe.model, recipe.training.batch_size
    if isinstance(model, FlowConfig):
        return 3 * 2 * multiply_adds(model) * batch
    inputs = model.n_features + (model.n_context if model.nuisance_degree == 0 else 0)
    widths = (inputs, *model.hidden, model.nuisance_degree + 1)
    return 3 * 2 * batch * sum(a * b for a, b in pairwise(widths))


def product(recipe: Recipe, n: int, device: torch.device) -> tuple[Callable[[], Tensor], int]:
    """A batched product of the size of a hidden layer, and its operations."""
    model = recipe.model
    width = model.hidden if isinstance(model, FlowConfig) else model.hidden[0]
    weight = torch.randn(n, width, width, device=device)
    units = torch.randn(n, width, recipe.training.batch_size, device=device)
    out = torch.empty_like(units)
    return lambda: torch.bmm(weight, units, out=out), 2 * n * width**2 * recipe.training.batch_size


def synchronized(method: Callable[[], object], device: torch.device) -> Callable[[], None]:
    """The call, and waiting for the device."""

    def call() -> None:
        method()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return call


class CountKernels(TorchDispatchMode):
    """Counts operations that do arithmetic or move data; views are free."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        first = next((a for a in args if isinstance(a, Tensor)), None)
        is_view = isinstance(result, Tensor) and first is not None and result._is_view()
        self.calls += not is_view
        return result


def kernels(step: Callable[[], None]) -> int:
    """Kernels that one eager step launches."""
    step()
    with CountKernels() as counter:
        step()
    return counter.calls


def measure(
    name: str, recipe: Recipe, members: tuple[int, ...], rounds: int, device: torch.device
) -> dict[str, Any]:
    """Time one architecture, print its table, return its rows."""
    methods: dict[str, Callable[[], None]] = {}
    sizes: dict[str, int] = {}
    compile_seconds = {}
    for compiled in (False, True):
        kind = "compiled" if compiled else "eager"
        methods[f"loop, {kind}"], sizes[f"loop, {kind}"] = single_step(recipe, device, compiled=compiled), 1
        for n in members:
            label = f"stack of {n}, {kind}"
            methods[label], sizes[label] = stack_step(recipe, n, device, compiled=compiled), n
            if compiled:
                compile_seconds[label] = first_call(methods[label])
    floor, floor_operations = product(recipe, max(members), device)
    methods["product"] = floor  # type: ignore[assignment]
    times = compare({k: synchronized(m, device) for k, m in methods.items()}, rounds=rounds)
    baseline = min(("loop, eager", "loop, compiled"), key=times.median)
    rate = floor_operations / times.median("product")
    floor_seconds = operations(recipe) / rate
    rows = []
    for label, n in sizes.items():
        middle, low, high = times.speedup(label, baseline)
        rows.append(
            {
                "method": label,
                "members": n,
                "member_steps_per_second": n / times.median(label),
                "speedup": n * middle,
                "speedup_quartiles": [n * low, n * high],
                "over_floor": times.median(label) / n / floor_seconds,
            }
        )
    cells = [
        [
            row["method"],
            f"{row['member_steps_per_second']:.0f}",
            f"{row['speedup']:.2f}  ({row['speedup_quartiles'][0]:.2f}-{row['speedup_quartiles'][1]:.2f})",
            f"{row['over_floor']:.1f}",
        ]
        for row in rows
    ]
    cells.append(["arithmetic floor", f"{1 / floor_seconds:.0f}", "", "1.0"])
    columns = ["method", "member-steps/s", f"over {baseline} (quartiles)", "times the floor"]
    print_table(f"{name}, batches of {recipe.training.batch_size}", columns, cells)
    return {"rows": rows, "baseline": baseline, "rate": rate, "compile_seconds": compile_seconds}


def launches(name: str, recipe: Recipe, n: int) -> dict[str, Any]:
    """What one eager step asks of a GPU, and what follows for ``n`` members."""
    cpu = torch.device("cpu")
    one, many = (
        kernels(step)
        for step in (
            single_step(recipe, cpu, compiled=False),
            stack_step(recipe, 4, cpu, compiled=False),
        )
    )
    work = operations(recipe)
    loop = max(one * LAUNCH_SECONDS, work / GPU_RATE)
    # Drawing the rows of each member takes no kernel of its own; only joining them does.
    stacked = max(many * LAUNCH_SECONDS, n * work / GPU_RATE) / n
    return {
        "model": name,
        "kernels_single": one,
        "kernels_stack": many,
        "operations": work,
        "members": n,
        "expected_gain": loop / stacked,
    }


RECIPES = {
    "published classifier": ("classifier", "sluijter"),
    "published flow": ("flow", "sluijter"),
    "modern classifier": ("classifier", "modern"),
    "modern flow": ("flow", "modern"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds and stacks")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    members = (4,) if options.quick else MEMBERS if device.type == "cpu" else (*MEMBERS, 60, 120)
    rounds = 3 if options.quick else 8
    recipes = {}
    for name, (method, recipe_name) in RECIPES.items():
        recipes[name] = replace(get_recipe(method, recipe_name, case="large"), n_events=40_000)
    tables = {
        name: measure(name, recipe, members, rounds, device)
        for name, recipe in recipes.items()
        if not options.quick or name.startswith("published")
    }
    counts = [launches(name, recipe, 120) for name, recipe in recipes.items()]
    print_table(
        "what a step asks of a GPU",
        ["model", "kernels, single", "kernels, stack", "operations", "expected gain at 120 members"],
        [
            [
                row["model"],
                str(row["kernels_single"]),
                str(row["kernels_stack"]),
                f"{row['operations']:.2g}",
                f"{row['expected_gain']:.0f}",
            ]
            for row in counts
        ],
        caption=f"{LAUNCH_SECONDS:g} s a launch, {GPU_RATE:g} operations/s; an estimate, not a measurement",
    )
    content = {
        "device": str(device),
        "tables": tables,
        "launches": counts,
        "launch_seconds": LAUNCH_SECONDS,
        "gpu_rate": GPU_RATE,
        "quick": options.quick,
    }
    print(f"{environment()}\nwrote {write_json('stack', content)}")


if __name__ == "__main__":
    main()

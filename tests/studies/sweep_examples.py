"""A small sweep with models that cost nothing, and a program that runs it and is killed again and again.

The models are numbers that follow from seed, learning rate and method.  Their training takes steps, keeps a
checkpoint after each, and goes on from there, as a real one does.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow.parquet  # noqa: F401  (so that no process must import it anew)
import torch

from sbilib.problems import TestSet
from sbilib.studies.metrics import METRICS
from sbilib.studies.sweep import Sweep
from sbilib.studies.sweep_files import code_of_sweeps, work_folder, write_result
from sbilib.studies.sweep_run import SweepRunner, gather

SWEEP = Sweep(
    name="demo",
    learning_rates=(1e-3, 1e-2),
    seeds=(1, 2, 3),
    n_steps=6,
    n_events=10,
    test_repeats=1,
    n_bootstrap=2,
    set_size=10,
    n_test_events=20,
    n_ratios=10,
    n_nuisances=10,
    pairs_per_chunk=4,
    device="cpu",
)
"""24 pairs and 6 models of the exact likelihood in 10 chunks."""


def number(*facts: object) -> float:
    """A number in [0, 1) that follows from ``facts``."""
    return int.from_bytes(hashlib.sha256(repr(facts).encode()).digest()[:6], "big") / 2**48


class FakeFit:
    """Takes the place of ``fit_pairs``.

    Args:
        pause: seconds of each step.
        memory: pairs that fit; with more at once the device is out of memory.
        diverging: learning rate at which models diverge.
    """

    def __init__(self, pause: float = 0.0, memory: int = 99, diverging: float = -1.0) -> None:
        self.pause, self.memory, self.diverging = pause, memory, diverging
        self.steps, self.stacks = 0, []

    def __call__(
        self,
        problem: Any,
        recipe: Any,
        *,
        seeds: Sequence[int],
        learning_rates: Sequence[float],
        device: str,
        progress: bool,
        checkpoint_folder: Path,
        members_at_once: int,
    ) -> list[Any]:
        assert 2 * len(seeds) == 2 * len(learning_rates) == members_at_once
        if len(seeds) > self.memory:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.stacks.append(len(seeds))
        path = checkpoint_folder / "stack.json"
        made = json.loads(path.read_text())["step"] if path.exists() else 0
        for step in range(made, recipe.training.n_steps):
            time.sleep(self.pause)
            self.steps += 1
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".new").write_text(json.dumps({"step": step + 1}))
            os.replace(path.with_suffix(".new"), path)
        return [
            self._pair(problem.radius, recipe.method, *model)
            for model in zip(seeds, learning_rates, strict=True)
        ]

    def _pair(self, radius: float, method: str, seed: int, rate: float) -> Any:
        value = number(radius, method, seed, rate)
        losses = torch.full((6,), value, dtype=torch.float64)
        training = SimpleNamespace(training_loss=losses, validation_loss=2 * losses)
        return SimpleNamespace(
            densities=SimpleNamespace(value=value, signal=None, background=None),
            training={"signal": training, "background": training},
            seconds=time.perf_counter(),
            diverged=rate == self.diverging,
        )


def fake_evaluate(densities: Any, test_sets: Sequence[TestSet], *, seed: int, **_: Any) -> pd.DataFrame:
    """Takes the place of ``evaluate_pair``."""
    value = getattr(densities, "value", 1.0)
    return pd.DataFrame(
        [
            {"test_set": k, "mu": test_set.signal_ratio, "z": test_set.nuisance}
            | {name: value * number(name, float(test_set.events.sum()), seed) for name in METRICS}
            for k, test_set in enumerate(test_sets)
        ]
    )


def runner(sweep: Sweep = SWEEP, **options: Any) -> SweepRunner:
    """A runner of the small sweep with models that cost nothing."""
    return SweepRunner(sweep, **{"fit": FakeFit(), "evaluate": fake_evaluate, **options})


def run_and_gather(results: Path) -> None:
    """What ``sbilib sweep run`` does."""
    runner(fit=FakeFit(pause=1e-3)).run()
    write_result(results, gather(SWEEP))


def _in_a_process(function: Callable[[], None]) -> int:
    """Start ``function`` in a process of its own and return its number.

    The process that calls this must not compute anything itself: threads do not survive a fork.
    """
    child = os.fork()
    if child == 0:
        function()
        os._exit(0)
    return child


def kill_again_and_again(results: Path, n_kills: int, seed: int) -> None:
    """Run the sweep in a process of its own and kill it without warning at random moments.

    A sweep that comes to its end before it was killed often enough is followed by another one, from nothing.
    Prints how many finished chunks each kill left behind, and a digest of each final table.
    """
    fit, chance = FakeFit(pause=1e-3), random.Random(seed)
    code_of_sweeps()  # read once here, not by every process anew
    started = time.perf_counter()
    os.waitpid(_in_a_process(runner(folder=results.with_name("undisturbed"), fit=fit).run), 0)
    longest = 0.3 * (time.perf_counter() - started)
    left: list[int] = []
    tables: list[str] = []
    while len(left) < n_kills or not (results / "manifest.json").exists():
        child = _in_a_process(lambda: run_and_gather(results))
        if len(left) < n_kills:
            time.sleep(chance.uniform(0.0, longest))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            left.append(len(list(work_folder(SWEEP).glob("chunk-*.json"))))
        elif os.WEXITSTATUS(status) != 0:
            break
        if (results / "manifest.json").exists():
            tables.append(hashlib.sha256((results / "table.parquet").read_bytes()).hexdigest())
            if len(left) < n_kills:
                shutil.rmtree(results)
                shutil.rmtree(work_folder(SWEEP))
    print(json.dumps({"left": left, "tables": tables, "files": sorted(os.listdir(results))}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    kill_again_and_again(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

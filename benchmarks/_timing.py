"""Side-by-side timing: repeat all methods in turn, compare them round by round, print and keep the result.

Methods that run one after the other within each round meet the same state of the machine, so the ratio of
two methods in one round is steadier than either time. Medians and quartiles of those ratios are reported.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from sbilib.runs.provenance import processor_name

__all__ = ["Comparison", "compare", "environment", "print_table", "write_json"]

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Comparison:
    """Seconds of each method in each round."""

    seconds: dict[str, list[float]]
    """Seconds per call, by method, one entry a round."""

    def median(self, method: str) -> float:
        """Median seconds of one call."""
        return statistics.median(self.seconds[method])

    def speedup(self, method: str, baseline: str) -> tuple[float, float, float]:
        """How many times faster than ``baseline``: median, lower and upper quartile over the rounds."""
        pairs = zip(self.seconds[baseline], self.seconds[method], strict=True)
        ratios = [slow / fast for slow, fast in pairs]
        if len(ratios) == 1:
            return ratios[0], ratios[0], ratios[0]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return middle, low, high


def compare(
    methods: Mapping[str, Callable[[], object]], *, rounds: int, round_seconds: float = 0.1, warm_up: int = 2
) -> Comparison:
    """Time methods in turn.

    Args:
        methods: what to call, by name.
        rounds: how often every method has its turn.
        round_seconds: about how long one turn lasts; a fast method is called several times in it.
        warm_up: calls of each method before the first round.
    """
    calls = {}
    for name, method in methods.items():
        for _ in range(warm_up):
            method()
        calls[name] = max(1, round(round_seconds / _time(method, 1)))
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(rounds):
        for name, method in methods.items():
            seconds[name].append(_time(method, calls[name]))
    return Comparison(seconds)


def _time(method: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        method()
    return (time.perf_counter() - start) / calls


def environment() -> dict[str, Any]:
    """What the times depend on besides the code."""
    return {
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> None:
    """Print a table whose first column is left-aligned text and whose others are numbers."""
    table = Table(title=title, caption=caption or None, title_justify="left", caption_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    for row in rows:
        table.add_row(*row)
    Console(width=110).print(table)


def write_json(name: str, content: Mapping[str, Any]) -> Path:
    """Write ``content`` and the environment to ``benchmarks/results/<name>.json`` and return the path."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    text = json.dumps({"environment": environment(), **content}, indent=2)
    path.write_text(text + "\n", encoding="utf-8")
    return path

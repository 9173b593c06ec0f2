"""Rows as `CoveragePlan` makes them, with shifts of the best fits that a test chooses."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd

MUS, ZS = (0.1, 0.2, 0.3), (0.93, 1.0, 1.07)
HALF = {"mu": 0.04, "z": 0.007}
COUNTS = {"modern": 3, "sluijter": 4, "alternating": 2, "context": 2}


def toy_rows(
    recipe: str, method: str, seed: int, shift: float, *, n_toys: int = 40, noise: float = 0.2
) -> pd.DataFrame:
    """Toys whose best fits share their statistics with all other pairs and are shifted by ``shift``."""
    parts = []
    own = np.random.default_rng([seed, len(recipe), len(method)])
    for number, (mu, z) in enumerate(itertools.product(MUS, ZS)):
        shared = np.random.default_rng(number)
        rows: dict[str, object] = {}
        for name, truth in (("mu", mu), ("z", z)):
            pull = shared.normal(size=n_toys) + shift + noise * own.normal(size=n_toys)
            best, half = truth + HALF[name] * pull, HALF[name] * (1 + noise**2) ** 0.5
            rows |= {f"{name}_hat": best, f"{name}_lower": best - half, f"{name}_upper": best + half}
        parts.append(pd.DataFrame(rows).assign(mu=mu, z=z, toy=range(n_toys), k=120.0))
    return pd.concat(parts).assign(kind="toy", recipe=recipe, method=method, seed=seed)


def pair_rows(recipe: str, method: str, seed: int, shift: float, **options: float) -> pd.DataFrame:
    """Toys, one row of facts and bootstrap sets of one pair."""
    swaps = float(seed % 4) if (recipe, method) == ("sluijter", "flow") else float("nan")
    facts: dict[str, object] = {"diverged": False, "learning_rate": 1e-4, "training_seconds": 10.0}
    for component, base in (("signal", 4.7), ("background", 4.0)):
        loss = base + (0.05 if swaps == 0 else 0.01) if method == "flow" else float("nan")
        facts |= {f"{component} swaps": swaps, f"{component} loss": base, f"{component} held-out loss": loss}
    sets = []
    for number, (mu, z) in enumerate(itertools.product(MUS, ZS)):
        row: dict[str, object] = {"test_set": number, "mu": mu, "z": z}
        for name, width in HALF.items():
            row |= {f"{name} coverage": 0.64, f"{name} coverage, crossing": 0.65 - 0.1 * abs(shift)}
            row |= {f"{name} mean width": 2 * width, f"{name} mean width, crossing": 2 * width}
        sets.append(row)
    same = {"recipe": recipe, "method": method, "seed": seed}
    return pd.concat(
        [
            pd.DataFrame([facts]).assign(kind="training", **same),
            toy_rows(recipe, method, seed, shift, **options),  # type: ignore[arg-type]
            pd.DataFrame(sets).assign(kind="bootstrap", **same),
        ]
    )


def summary_rows(recipe: str, method: str, coverage: Mapping[str, float], width: float) -> pd.DataFrame:
    """The summary of an ensemble or of the template fit; half-widths are ``width`` times those of pairs."""
    rows = [
        {
            "mu": mu,
            "z": z,
            "parameter": name,
            "coverage": coverage[name],
            "error": 0.006,
            "reservoir_error": 0.003,
            "width": 2 * width * HALF[name],
            "width_error": 0.002 * HALF[name],
            "pull": 0.05,
            "open": 0.0,
            "k": 120.0,
            "n_toys": 5000,
        }
        for mu, z, name in itertools.product(MUS, ZS, HALF)
    ]
    return pd.DataFrame(rows).assign(kind="summary", recipe=recipe, method=method, seed=0)


def full_table() -> pd.DataFrame:
    """A table with all recipes: of published pairs those with seed 4 are blind and far off."""
    parts = []
    for recipe, count in COUNTS.items():
        for method in ("flow", "classifier") if recipe in ("modern", "sluijter") else ("flow",):
            for seed in range(1, count + 1):
                shift = 1.2 if (recipe, seed) == ("sluijter", 4) else 0.1
                parts.append(pair_rows(recipe, method, seed, shift if method == "flow" else -shift))
    for method in ("flow", "classifier"):
        for kind in ("mean_density", "mean_log_ratio"):
            parts.append(summary_rows(kind, method, {"mu": 0.68, "z": 0.67}, 1.0))
            parts.append(toy_rows(kind, method, 0, 0.0))
    parts.append(summary_rows("template fit", "template fit", {"mu": 0.69, "z": 0.60}, 1.2))
    parts.append(toy_rows("template fit", "template fit", 0, 0.0))
    return pd.concat(parts, ignore_index=True)

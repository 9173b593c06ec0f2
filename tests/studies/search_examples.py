"""Events of a toy search whose densities are known exactly, and tables of histograms drawn from them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from sbilib.models import TransformConfig
from sbilib.simulation.bsm_schema import BSM_CONTINUOUS
from sbilib.studies.bsm_bounds import EVENT_FLOORS, event_bounds

SHIFT = 1.5
"""Signal differs from background by this many widths in the logarithm of m_bb, and in nothing else."""
_ETA = torch.tensor([name.endswith("_eta") for name in BSM_CONTINUOUS])
MASS = BSM_CONTINUOUS.index("m_bb")
_ORDER = TransformConfig(
    names=BSM_CONTINUOUS,
    bounds=tuple(event_bounds()[name] for name in BSM_CONTINUOUS),
    floors=tuple(EVENT_FLOORS.items()),
)


class ToySearch:
    """Magnitudes are log-normal above 15 GeV, or above their floors, and pseudorapidities flat.

    All of them are independent.
    """

    def __init__(self, n_events: int) -> None:
        self.n_events = n_events
        self.digest = f"toy {n_events}"

    def events(self, component: str, split: str, features: Iterable[str] = BSM_CONTINUOUS) -> Tensor:
        names = ["signal", "background", "train", "validation", "reference"]
        generator = torch.Generator().manual_seed(10 * names.index(component) + names.index(split))
        normal = torch.randn(self.n_events, len(BSM_CONTINUOUS), generator=generator)
        if component == "signal":
            normal[:, MASS] += SHIFT
        magnitudes = 15 + 45 * (0.5 * normal).exp()
        flat = 2.4 * (2 * torch.special.ndtr(normal) - 1)
        chosen = [BSM_CONTINUOUS.index(name) for name in features]
        return _ORDER.onto_floors(torch.where(_ETA, flat, magnitudes), torch.float32)[:, chosen]

    @staticmethod
    def exact_score(events: Tensor) -> Tensor:
        """The score of equal numbers of signal and background."""
        normal = 2 * ((events[:, MASS] - 15) / 45).log()
        return torch.sigmoid(SHIFT * normal - 0.5 * SHIFT**2)


N_BINS = 25
BACKGROUND = 0.3 * np.exp(-np.arange(N_BINS) / 8) / np.exp(-np.arange(N_BINS) / 8).sum()
"""Parts of all background events in the bins."""
SIGNAL = 0.6 * np.exp(-(((np.arange(N_BINS) - 15) / 4) ** 2)) + 1e-3


def row(kind: str, fractions: np.ndarray, n_events: float, **facts: object) -> list[dict[str, object]]:
    """Rows of both observables with the same histogram."""
    counts = fractions * n_events
    common = {
        "kind": kind,
        "n_events": int(n_events),
        "total": float(n_events),
        "counts": counts.tolist(),
        "squares": counts.tolist(),
        "recipe": "",
        "n_train": 0,
        "number": 0,
        "member": "",
        "auc": 0.8,
    }
    return [{**common, "observable": name, **facts} for name in ("score", "m_bb")]


def drawn(fractions: np.ndarray, n_events: int, random: np.random.Generator) -> np.ndarray:
    """Parts of a simulated sample of this size."""
    full = np.append(fractions, 1 - fractions.sum())
    return random.multinomial(n_events, full)[:-1] / n_events


def search_table(
    n_train: int, n_sets: int, n_boots: int, random: np.random.Generator, *, n_events: float = 1e8
) -> pd.DataFrame:
    """A "model" that repeats the histogram of its training events, with bootstraps of it."""
    rows = row("reference", BACKGROUND, 1e9) + row("signal", SIGNAL / SIGNAL.sum(), 1e9)
    for number in range(n_sets):
        facts = {"recipe": "small", "n_train": n_train, "number": number}
        parts = drawn(BACKGROUND, n_train, random)
        rows += row("training", parts, n_train, member="nominal", **facts)
        for kind in ("generated", "reweighted"):
            rows += row(kind, parts, n_events, member="nominal", **facts)
        for boot in range(n_boots):
            again = drawn(parts, n_train, random)
            rows += row("generated", again, n_events, member=f"boot{boot:02d}", **facts)
    return pd.DataFrame(rows)

"""Where the events of the Higgs case come from: our own files, tables in memory, and files of the challenges.

Every source gives, for each component and split, a table of primary quantities and, if events differ in it,
their weights.  Loaders for the files of the challenges are in `sbilib.problems.higgs_loaders`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from sbilib.errors import DataError, ParameterError, check_choice
from sbilib.problems.base import COMPONENTS
from sbilib.simulation.files import MANIFEST, SPLITS, Manifest, read_manifest, read_split
from sbilib.simulation.schema import Rows, check_primary, column

__all__ = [
    "EventFolder",
    "EventTable",
    "EventTables",
    "HiggsData",
    "cached_data_folder",
    "data_folder",
    "default_data",
    "split_events",
]

DATA_NAME = "higgs-tau-tau"
"""Name of the data set below ``data/`` of the repository and in the cache."""

SPLIT_FRACTIONS = {"train": 0.7, "validation": 0.05} | {f"test-{number}": 0.05 for number in range(1, 6)}
"""How :func:`split_events` divides events that come without splits."""


@dataclass(frozen=True, eq=False)
class EventTable:
    """Events of one component and split, kept in order of falling pt of the tau.

    Args:
        primary: events ``(n, 16)`` in the order of `sbilib.simulation.schema.PRIMARY`, GeV and rad.
        weights: weight of each event ``(n,)``, or None if all are alike.

    Raises:
        DataError: for values no event has, no events at all, or weights that are negative, not finite, all
            zero, or of another number.  A negative weight has no meaning as a chance to be drawn: leave such
            events out, or reweight them first.
    """

    primary: Tensor
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        check_primary("the table of events", self.primary.cpu().numpy())
        if len(self.primary) == 0:
            raise DataError("the table of events is empty; at least one event is needed")
        if self.weights is not None:
            self._check_weights(self.weights)
        order = self.primary[:, column("PRI_had_pt")].argsort(descending=True, stable=True)
        object.__setattr__(self, "primary", self.primary[order])
        if self.weights is not None:
            object.__setattr__(self, "weights", self.weights[order])

    def _check_weights(self, weights: Tensor) -> None:
        if tuple(weights.shape) != (len(self.primary),) or not bool(weights.isfinite().all()):
            raise DataError(
                f"weights must be {len(self.primary)} finite numbers, one per event, got shape "
                f"{tuple(weights.shape)}; correct them"
            )
        negative = int((weights < 0).sum())
        if negative or not bool((weights > 0).any()):
            raise DataError(
                f"weights must not be negative and not all zero, {negative} of {len(weights)} are negative: "
                "events are drawn in proportion to them; remove these events or reweight them"
            )

    def __len__(self) -> int:
        return len(self.primary)

    def to(self, device: torch.device) -> EventTable:
        """The same table on another device."""
        if device == self.primary.device:
            return self
        weights = None if self.weights is None else self.weights.to(device)
        return EventTable(self.primary.to(device), weights)

    def n_above(self, threshold: Tensor) -> Tensor:
        """How many events have a tau above each ``threshold`` (m,); they come first; int64 ``(m,)``."""
        return torch.searchsorted(self._minus_tau_pt, -threshold.double().to(self.primary.device))

    def sum_of_weights(self, n_events: Tensor, *, power: int = 1) -> Tensor:
        """Sum over the first ``n_events`` (m,) events of weight to ``power`` 1 or 2; float64 ``(m,)``."""
        if self.weights is None:
            return n_events.double()
        sums = self._cumulative[power - 1]
        return torch.where(n_events > 0, sums[(n_events - 1).clamp(min=0)], 0.0)

    def draw(self, n_events: Tensor, generator: Generator) -> Tensor:
        """One index per entry of ``n_events`` (m,), among as many first events, in proportion to weight."""
        unit = torch.rand(len(n_events), generator=generator, dtype=torch.float64, device=generator.device)
        if self.weights is None:
            index = (unit * n_events).long()
        else:
            # The first sum beyond the target, so that an event of weight zero is never drawn.
            target = unit * self.sum_of_weights(n_events)
            index = torch.searchsorted(self._cumulative[0], target, right=True)
        return torch.minimum(index, n_events - 1)

    @cached_property
    def _minus_tau_pt(self) -> Tensor:
        return -self.primary[:, column("PRI_had_pt")].double().contiguous()

    @cached_property
    def _cumulative(self) -> Tensor:
        weights = torch.ones(1) if self.weights is None else self.weights.double()
        return torch.stack((weights.cumsum(0), weights.square().cumsum(0)))


class HiggsData(Protocol):
    """A source of events of the Higgs case."""

    @property
    def tau_threshold(self) -> float:
        """Every event with a harder tau than this, in GeV, at scale 1 is there; softer ones are not."""
        ...

    @property
    def digest(self) -> str:
        """Hexadecimal digits that stand for all events; other events give others."""
        ...

    def table(self, component: str, split: str) -> EventTable:
        """Events of a component in a split."""
        ...


@dataclass(frozen=True)
class EventFolder:
    """Events in a folder of files that `sbilib.simulation.files` wrote; a table is read when first needed.

    Args:
        path: the folder; it must hold a manifest.

    Raises:
        DataError: if the manifest, or later a table, is missing or wrong.
    """

    path: Path = field(repr=False)
    manifest: Manifest = field(init=False, repr=False, compare=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        manifest = read_manifest(self.path)
        object.__setattr__(self, "manifest", manifest)
        object.__setattr__(self, "digest", manifest.digest)

    @property
    def tau_threshold(self) -> float:
        """Stored threshold of the tau, in GeV."""
        return self.manifest.tau_threshold

    def table(self, component: str, split: str) -> EventTable:
        """Events of a component in a split, read once and kept."""
        check_choice("component", component, COMPONENTS)
        check_choice("split", split, SPLITS)
        return _read_table(self.path, self.manifest.digest, component, split)


@lru_cache(maxsize=2 * len(SPLITS))
def _read_table(folder: Path, digest: str, component: str, split: str) -> EventTable:
    """One table of a folder; the digest keeps that of another data set at the same place from being used."""
    return EventTable(torch.from_numpy(read_split(folder, read_manifest(folder), component, split)))


@dataclass(frozen=True, eq=False, repr=False)
class EventTables:
    """Events in memory.

    Args:
        tables: for each component, for each split that exists, its events.
        tau_threshold: every event with a harder tau than this, in GeV, is there; by default the softest tau.
        source: where they come from, for messages.

    Raises:
        ParameterError: for unknown components or splits.

    Example:
        >>> event = torch.tensor([[30.0, 0, 0, 40.0, 0, 1.0] + 6 * [-25.0] + [0, 0, 10.0, 1.0]])
        >>> data = EventTables({name: {"train": EventTable(event)} for name in COMPONENTS})
        >>> data.tau_threshold, len(data.table("signal", "train"))
        (40.0, 1)
    """

    tables: Mapping[str, Mapping[str, EventTable]]
    tau_threshold: float = 0.0
    source: str = "memory"
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        if set(self.tables) != set(COMPONENTS):
            raise ParameterError(f"tables must have the keys {COMPONENTS}, got {tuple(self.tables)}")
        content = hashlib.sha256()
        softest = []
        for component in COMPONENTS:
            for split in sorted(self.tables[component]):
                table = self.tables[component][check_choice("split", split, SPLITS)]
                softest.append(table.primary[:, column("PRI_had_pt")].min().item())
                content.update(f"{component} {split}".encode())
                for values in (table.primary, table.weights):
                    content.update(b"" if values is None else values.cpu().contiguous().numpy().tobytes())
        if not softest:
            raise ParameterError("tables must hold at least one split; give the events of one")
        if self.tau_threshold == 0.0:
            object.__setattr__(self, "tau_threshold", min(softest))
        object.__setattr__(self, "digest", content.hexdigest())

    def __repr__(self) -> str:
        return f"EventTables(digest='{self.digest}')"

    def table(self, component: str, split: str) -> EventTable:
        """Events of a component in a split.

        Raises:
            DataError: if this source has no such split.
        """
        check_choice("component", component, COMPONENTS)
        check_choice("split", split, SPLITS)
        try:
            return self.tables[component][split]
        except KeyError:
            raise DataError(
                f"the {component} events from {self.source} have no split {split!r}, only "
                f"{sorted(self.tables[component])}; choose one of these or divide them with split_events"
            ) from None


def split_events(
    primary: Rows,
    weights: NDArray[np.float64] | None = None,
    *,
    seed: int,
    fractions: Mapping[str, float] | None = None,
) -> dict[str, EventTable]:
    """Divide events at random into disjoint splits.

    Args:
        primary: events ``(n, 16)``.
        weights: weight of each event ``(n,)``, or None.
        seed: seed of the shuffle; the same seed gives the same splits.
        fractions: fraction of the events for each split, together at most one; names among `SPLITS`.
            By default 70% for training and 5% for validation and for each test set.

    Returns:
        The splits, each with at least one event and, if its weights differ, the weights as they were.

    Raises:
        DataError: if there are too few events for a split.
        ParameterError: for an unknown split, a fraction that is not positive, or too large a sum.
    """
    fractions = SPLIT_FRACTIONS if fractions is None else fractions
    for name, fraction in fractions.items():
        check_choice("split", name, SPLITS)
        if not fraction > 0:
            raise ParameterError(
                f"the fraction of split {name!r} must be positive, got {fraction!r}; leave it out"
            )
    if not 0 < sum(fractions.values()) <= 1 + 1e-9:
        raise ParameterError(
            f"fractions must add up to at most 1, got {sum(fractions.values()):g}; lower them"
        )
    order = np.random.default_rng(seed).permutation(len(primary))
    edges = np.round(np.cumsum([0.0, *fractions.values()]) * len(primary)).astype(int)
    tables = {}
    for name, first, last in zip(fractions, edges[:-1], edges[1:], strict=True):
        if first == last:
            raise DataError(
                f"{len(primary)} events are too few for split {name!r}; give more or leave it out"
            )
        index = order[first:last]
        part = None if weights is None or np.ptp(weights[index]) == 0 else torch.from_numpy(weights[index])
        events = torch.from_numpy(np.ascontiguousarray(primary[index], dtype=np.float32))
        tables[name] = EventTable(events, part)
    return tables


def data_folder() -> Path:
    """The folder with the events that `HiggsTauTau` uses when no others are given.

    It is ``$SBILIB_DATA/higgs-tau-tau`` if that variable is set; else the sample in the repository
    (``data/higgs-tau-tau`` at or above the current folder, or where this package was installed from); else
    the user's cache, :func:`cached_data_folder`.

    Raises:
        DataError: if none of them holds a finished data set.
    """
    candidates = _candidates()
    for folder in candidates:
        if (folder / MANIFEST).is_file():
            return folder.resolve()
    raise DataError(
        f"no events of the Higgs case found (looked for {MANIFEST} in {', '.join(map(str, candidates))}); "
        "work in a clone of the repository, which has a sample in data/higgs-tau-tau, or make events with "
        "`pip install 'sbilib[simulate]'` and `sbilib simulate higgs`, or set SBILIB_DATA"
    )


def cached_data_folder() -> Path:
    """Where ``sbilib simulate higgs`` keeps events: ``$SBILIB_DATA``, or ``sbilib`` in the user's cache."""
    chosen = os.environ.get("SBILIB_DATA")
    cache = os.environ.get("XDG_CACHE_HOME")
    base = Path(chosen) if chosen else (Path(cache) if cache else Path.home() / ".cache") / "sbilib"
    return base / DATA_NAME


def _candidates() -> list[Path]:
    if os.environ.get("SBILIB_DATA"):
        return [cached_data_folder()]
    here = Path.cwd().resolve()
    folders = [here, *here.parents]
    roots = [folder for folder in folders if (folder / "pyproject.toml").is_file()]
    installed_from = Path(__file__).resolve().parents[2]
    return [*(root / "data" / DATA_NAME for root in (*roots, installed_from)), cached_data_folder()]


def default_data() -> HiggsData:
    """The events of :func:`data_folder`.

    Raises:
        DataError: if there are none.
    """
    return EventFolder(data_folder())

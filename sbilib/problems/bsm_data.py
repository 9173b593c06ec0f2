"""Events of the heavy Higgs search: a folder of our own files, or tables in memory from public files.

Loaders for public files are in `sbilib.problems.bsm_loaders`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from sbilib.errors import DataError, ParameterError, check_choice
from sbilib.problems.base import COMPONENTS
from sbilib.problems.higgs_data import _candidates, cached_data_folder
from sbilib.simulation.bsm_schema import (
    BSM_CONTINUOUS,
    BSM_FORMAT,
    BSM_SPLITS,
    bsm_columns,
    check_bsm,
)
from sbilib.simulation.files import MANIFEST, Manifest, read_manifest, read_split
from sbilib.simulation.schema import Rows

__all__ = [
    "BsmData",
    "BsmFolder",
    "BsmTables",
    "bsm_data_folder",
    "cached_bsm_folder",
    "default_bsm_data",
    "split_bsm_events",
]

BSM_SPLIT_FRACTIONS = {"train": 0.45, "validation": 0.05, "reference": 0.5}
"""How :func:`split_bsm_events` divides events that come without splits."""


class BsmData(Protocol):
    """A source of events of the heavy Higgs search."""

    @property
    def digest(self) -> str:
        """Hexadecimal digits that stand for all events; other events give others."""
        ...

    def events(self, component: str, split: str, features: Iterable[str] = BSM_CONTINUOUS) -> Tensor:
        """Events ``(n, len(features))`` of a component in a split, float32, in GeV and rad."""
        ...


@dataclass(frozen=True)
class BsmFolder:
    """Events in a folder that ``sbilib simulate higgs-bsm`` wrote; a table is read when first needed.

    Args:
        path: the folder; it must hold a manifest.

    Raises:
        DataError: if the manifest, or later a table, is missing or wrong.
    """

    path: Path = field(repr=False)
    manifest: Manifest = field(init=False, repr=False, compare=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        manifest = read_manifest(self.path, BSM_FORMAT)
        object.__setattr__(self, "manifest", manifest)
        object.__setattr__(self, "digest", manifest.digest)

    def events(self, component: str, split: str, features: Iterable[str] = BSM_CONTINUOUS) -> Tensor:
        """Events of a component in a split, its file read and checked once.

        Args:
            component: ``"signal"`` or ``"background"``.
            split: one of `sbilib.simulation.bsm_schema.BSM_SPLITS`.
            features: names of the columns, by default the 18 continuous ones.

        Returns:
            ``(n, len(features))`` float32, in GeV and rad.

        Raises:
            DataError: if the file is missing or wrong, or there are no such events.
            ParameterError: for an unknown component, split or feature.
        """
        check_choice("component", component, COMPONENTS)
        check_choice("split", split, BSM_SPLITS)
        columns = bsm_columns(features)
        return _read_table(self.path, self.digest, component, split)[:, columns]


@lru_cache(maxsize=2 * len(BSM_SPLITS))
def _read_table(folder: Path, digest: str, component: str, split: str) -> Tensor:
    """One table of a folder; the digest keeps that of another data set at the same place from being used."""
    manifest = read_manifest(folder, BSM_FORMAT)
    return torch.from_numpy(read_split(folder, manifest, component, split, table_format=BSM_FORMAT))


@dataclass(frozen=True, eq=False, repr=False)
class BsmTables:
    """Events in memory.

    Args:
        tables: for each component, for each split that exists, its events ``(n, 28)`` in the order of
            `BSM_FEATURES`, float32, GeV and rad.
        source: where they come from, for messages.

    Raises:
        DataError: for values no event has.
        ParameterError: for unknown components or splits, or none at all.

    Example:
        >>> event = torch.ones(2, 28)
        >>> data = BsmTables({"signal": {"train": event}, "background": {"train": event}})
        >>> data.events("signal", "train", ["m_bb"]).tolist()
        [[1.0], [1.0]]
    """

    tables: Mapping[str, Mapping[str, Tensor]]
    source: str = "memory"
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        if set(self.tables) != set(COMPONENTS):
            raise ParameterError(f"tables must have the keys {COMPONENTS}, got {tuple(self.tables)}")
        content = hashlib.sha256()
        for component in COMPONENTS:
            for split in sorted(self.tables[component]):
                table = self.tables[component][check_choice("split", split, BSM_SPLITS)]
                check_bsm(f"{component} {split} of {self.source}", table.cpu().numpy(), ordered=False)
                content.update(f"{component} {split}".encode())
                content.update(table.cpu().contiguous().numpy().tobytes())
        if not any(self.tables.values()):
            raise ParameterError("tables must hold at least one split; give the events of one")
        object.__setattr__(self, "digest", content.hexdigest())

    def __repr__(self) -> str:
        return f"BsmTables(digest='{self.digest}')"

    def events(self, component: str, split: str, features: Iterable[str] = BSM_CONTINUOUS) -> Tensor:
        """Events of a component in a split, see :meth:`BsmFolder.events`.

        Raises:
            DataError: if this source has no such split.
            ParameterError: for an unknown component, split or feature.
        """
        check_choice("component", component, COMPONENTS)
        check_choice("split", split, BSM_SPLITS)
        columns = bsm_columns(features)
        try:
            return self.tables[component][split][:, columns]
        except KeyError:
            raise DataError(
                f"the {component} events from {self.source} have no split {split!r}, only "
                f"{sorted(self.tables[component])}; choose one of these or divide them with split_bsm_events"
            ) from None


def split_bsm_events(
    events: Rows, *, seed: int, fractions: Mapping[str, float] | None = None
) -> dict[str, Tensor]:
    """Divide events at random into disjoint splits.

    Args:
        events: ``(n, 28)``.
        seed: seed of the shuffle; the same seed gives the same splits.
        fractions: fraction of the events for each split, together at most one; by default 45% for training,
            5% for validation, and half as reference.

    Returns:
        The splits as float32 tensors, each with at least one event.

    Raises:
        DataError: if there are too few events for a split.
        ParameterError: for an unknown split, a fraction that is not positive, or too large a sum.

    Example:
        >>> parts = split_bsm_events(np.ones((100, 28)), seed=1)
        >>> {name: len(part) for name, part in parts.items()}
        {'train': 45, 'validation': 5, 'reference': 50}
    """
    fractions = BSM_SPLIT_FRACTIONS if fractions is None else fractions
    for name, fraction in fractions.items():
        check_choice("split", name, BSM_SPLITS)
        if not fraction > 0:
            raise ParameterError(f"the fraction of {name!r} must be positive, got {fraction!r}; leave it out")
    if not 0 < sum(fractions.values()) <= 1 + 1e-9:
        raise ParameterError(
            f"fractions must add up to at most 1, got {sum(fractions.values()):g}; lower them"
        )
    order = np.random.default_rng(seed).permutation(len(events))
    edges = np.round(np.cumsum([0.0, *fractions.values()]) * len(events)).astype(int)
    tables = {}
    for name, first, last in zip(fractions, edges[:-1], edges[1:], strict=True):
        if first == last:
            raise DataError(f"{len(events)} events are too few for split {name!r}; give more or leave it out")
        tables[name] = torch.from_numpy(events[order[first:last]].astype(np.float32))
    return tables


def bsm_data_folder() -> Path:
    """The folder with the events of the heavy Higgs search that are used when no others are given.

    It is ``$SBILIB_DATA/higgs-bsm`` if that variable is set; else the sample in the repository
    (``data/higgs-bsm`` at or above the current folder, or where this package was installed from); else the
    user's cache, :func:`cached_bsm_folder`.

    Raises:
        DataError: if none of them holds a finished data set.
    """
    candidates = [folder.parent / BSM_FORMAT.sample for folder in _candidates()]
    for folder in candidates:
        if (folder / MANIFEST).is_file():
            return folder.resolve()
    raise DataError(
        f"no events of the heavy Higgs search found (looked for {MANIFEST} in "
        f"{', '.join(map(str, candidates))}); work in a clone of the repository, which has a sample in "
        "data/higgs-bsm, or make events with `pip install 'sbilib[simulate]'` and "
        "`sbilib simulate higgs-bsm`, or set SBILIB_DATA"
    )


def cached_bsm_folder() -> Path:
    """Where ``sbilib simulate higgs-bsm`` keeps events: beside those of the Higgs case."""
    return cached_data_folder().parent / BSM_FORMAT.sample


def default_bsm_data() -> BsmFolder:
    """The events of :func:`bsm_data_folder`.

    Raises:
        DataError: if there are none.
    """
    return BsmFolder(bsm_data_folder())

"""Loaders for the public HIGGS file, and for tables of the same features with a header and the label last.

Neither file is part of this repository.  Both loaders check that columns, labels and values are there, and
that momenta and masses belong together (the mass of the two tagged jets must be that in the file); they give
events in GeV and rad with tags 0, 1, 2, as our own files have them, and divide them at random into disjoint
splits.  Jets stay in the order of the file, which is not always that of their momenta.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sbilib.errors import DataError, check_count
from sbilib.problems.bsm_data import BsmTables, split_bsm_events
from sbilib.simulation.bsm_features import high_level_of_four_jets
from sbilib.simulation.bsm_schema import (
    BSM_FEATURES,
    BSM_HIGH_LEVEL,
    BSM_LOW_LEVEL,
    bsm_columns,
    check_bsm,
    from_public_scale,
)

__all__ = ["UCI_SOURCE", "load_labeled_csv", "load_uci_higgs"]

UCI_SOURCE = (
    "get HIGGS.csv.gz from the UCI repository, data set 280 (https://archive.ics.uci.edu/dataset/280/higgs)"
)
"""Where to get the public file."""

_LABEL = "label"
_ROWS_AT_ONCE = 500_000
_MASS_TOLERANCE, _LEAST_SHARE = 0.01, 0.99
_COMPONENT_OF_LABEL = {1.0: "signal", 0.0: "background"}


def load_uci_higgs(
    path: Path | str,
    *,
    n_rows: int | None = None,
    seed: int = 1,
    fractions: Mapping[str, float] | None = None,
) -> BsmTables:
    """Events of the public HIGGS file: the label and 28 features, without a header, 11 million rows.

    Args:
        path: the CSV file, also compressed.
        n_rows: read the first rows only; all of them need 1.3 GB of memory.
        seed: seed of the division into splits.
        fractions: fraction of the events in each split, see `split_bsm_events`.

    Returns:
        Signal and background, in GeV and rad.

    Raises:
        DataError: if the file is missing, damaged, not of this format, in other units, or has impossible
            events.
        ParameterError: if ``n_rows`` or a fraction is out of range.
    """
    path = _existing(path)
    if n_rows is not None:
        check_count("n_rows", n_rows, low=1)
    parts = [_checked(path, part) for part in _read(path, n_rows, header=None, names=[_LABEL, *BSM_FEATURES])]
    return _as_tables(path, parts, seed, fractions)


def load_labeled_csv(
    path: Path | str,
    *,
    n_rows: int | None = None,
    seed: int = 1,
    fractions: Mapping[str, float] | None = None,
) -> BsmTables:
    """Events of a CSV file with the 28 features of the public file by name, in any order, and ``label``.

    Args:
        path: the CSV file, also compressed.
        n_rows: read the first rows only.
        seed: seed of the division into splits.
        fractions: fraction of the events in each split, see `split_bsm_events`.

    Returns:
        Signal and background, in GeV and rad.

    Raises:
        DataError: if the file is missing, damaged, not of this format, in other units, or has impossible
            events.
        ParameterError: if ``n_rows`` or a fraction is out of range.
    """
    path = _existing(path)
    if n_rows is not None:
        check_count("n_rows", n_rows, low=1)
    parts = []
    for part in _read(path, n_rows, header=0, names=None):
        missing = [name for name in (*BSM_FEATURES, _LABEL) if name not in part.columns]
        if missing:
            raise DataError(
                f"{path} lacks the columns {missing}; give a file with a header that names the features of "
                f"the public file, or the public file itself to load_uci_higgs ({UCI_SOURCE})"
            )
        parts.append(_checked(path, part[[_LABEL, *BSM_FEATURES]]))
    return _as_tables(path, parts, seed, fractions)


def _existing(path: Path | str) -> Path:
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist or is not a file; {UCI_SOURCE}")
    return path


def _read(
    path: Path, n_rows: int | None, *, header: int | None, names: list[str] | None
) -> Iterator[pd.DataFrame]:
    """The rows of a file, some at a time."""
    try:
        with pd.read_csv(
            path, header=header, names=names, index_col=False, nrows=n_rows, chunksize=_ROWS_AT_ONCE
        ) as reader:
            yield from reader
    except (OSError, EOFError, ValueError, zlib.error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read as CSV ({error}); {UCI_SOURCE}") from error


def _checked(path: Path, table: pd.DataFrame) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Events ``(n, 28)`` in GeV and rad, and which of them are signal."""
    try:
        values = table.to_numpy(np.float64)
    except ValueError as error:
        raise DataError(
            f"{path} has entries that are not numbers ({error}); give a file with a header to "
            f"load_labeled_csv, or {UCI_SOURCE}"
        ) from error
    label, features = values[:, 0], values[:, 1:]
    known = np.isin(label, list(_COMPONENT_OF_LABEL))
    if not known.all():
        raise DataError(
            f"{path}: the label must be 1 for signal or 0 for background, got {label[~known][0]:g}; the "
            "public file has it in its first column, without a header; load_labeled_csv looks for 'label'"
        )
    events = _within_a_turn(from_public_scale(features))
    check_bsm(str(path), events, ordered=False)
    _check_masses(path, events)
    return events.astype(np.float32), label == 1.0


def _within_a_turn(events: NDArray[np.float64]) -> NDArray[np.float64]:
    """Events whose azimuths, known to the precision of their scale, are inside [-pi, pi]."""
    azimuths = bsm_columns(name for name in BSM_LOW_LEVEL if name.endswith("_phi"))
    inside = np.clip(events[:, azimuths], -np.pi, np.pi)
    near = np.abs(events[:, azimuths] - inside) < 0.01
    events[:, azimuths] = np.where(near, inside, events[:, azimuths])
    return events


def _check_masses(path: Path, events: NDArray[np.float64]) -> None:
    """Other units, and columns in another order, show in a mass at once."""
    column = BSM_HIGH_LEVEL.index("m_bb")
    mass = high_level_of_four_jets(events)[:, column]
    stored = events[:, len(BSM_LOW_LEVEL) + column]
    two_tags = np.isfinite(mass)
    agree = np.abs(mass - stored)[two_tags] <= _MASS_TOLERANCE * np.abs(stored[two_tags])
    if len(agree) and agree.mean() < _LEAST_SHARE:
        raise DataError(
            f"{path}: the two tagged jets must have the mass m_bb, but only {100 * agree.mean():.1f}% of "
            f"{len(agree)} events agree, so columns or units are others than those of the public file; "
            f"{UCI_SOURCE}"
        )


def _as_tables(
    path: Path,
    parts: list[tuple[NDArray[np.float32], NDArray[np.bool_]]],
    seed: int,
    fractions: Mapping[str, float] | None,
) -> BsmTables:
    if not sum(len(part) for part, _ in parts):
        raise DataError(f"{path} holds no events; {UCI_SOURCE}")
    events = np.concatenate([part for part, _ in parts])
    is_signal = np.concatenate([mask for _, mask in parts])
    tables = {}
    for number, (label, component) in enumerate(_COMPONENT_OF_LABEL.items()):
        chosen = events[is_signal == (label == 1.0)]
        if len(chosen) == 0:
            raise DataError(f"{path} has no {component} events among its first {len(events)} rows; read more")
        tables[component] = split_bsm_events(chosen, seed=2 * seed + number, fractions=fractions)
    return BsmTables(tables, source=path.name)

"""Is a data set whole and as its manifest says?"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sbilib.errors import DataError
from sbilib.simulation.bsm_schema import BSM_FORMAT
from sbilib.simulation.files import HIGGS_FORMAT, MANIFEST, read_events, read_manifest
from sbilib.simulation.generate import PARTS

__all__ = ["SampleCheck", "check_sample"]

_FORMATS = {table_format.sample: table_format for table_format in (HIGGS_FORMAT, BSM_FORMAT)}


class SampleCheck(NamedTuple):
    """What a data set that passed all checks holds.

    Args:
        n_files: number of tables.
        rows: number of events of each component and split.
        digest: SHA-256 that stands for the content of all tables.
    """

    n_files: int
    rows: dict[tuple[str, str], int]
    digest: str


def check_sample(folder: Path) -> SampleCheck:
    """Check checksum, number of rows, columns and values of every table, and that no event comes twice.

    Args:
        folder: of the data set.

    Raises:
        DataError: if the data set is unfinished, or the first thing that is wrong with it.
    """
    if not (folder / MANIFEST).is_file() and (folder / PARTS).is_dir():
        finished = len(list((folder / PARTS).glob("*.json")))
        raise DataError(
            f"{folder} is unfinished: {finished} chunks of events are there and no {MANIFEST}; give the "
            "command that began it again, and it goes on from there"
        )
    manifest = read_manifest(folder, None)
    if manifest.sample not in _FORMATS:
        raise DataError(
            f"{folder} holds a data set of the kind {manifest.sample!r}, known are {', '.join(_FORMATS)}; "
            "update sbilib or choose another folder"
        )
    rows: dict[tuple[str, str], int] = {}
    keys = []
    for file in manifest.files:
        events = read_events(folder / file.name, file, table_format=_FORMATS[manifest.sample])
        keys.append(_row_keys(events))
        place = (file.component, file.split)
        rows[place] = rows.get(place, 0) + len(events)
    n_events = sum(rows.values())
    n_twice = n_events - len(np.unique(np.concatenate(keys))) if keys else 0
    if n_twice:
        raise DataError(
            f"{n_twice} of {n_events} events of {folder} come more than once, so its splits are not "
            "disjoint; generate the data set again in another folder"
        )
    return SampleCheck(len(manifest.files), rows, manifest.digest)


def _row_keys(events: NDArray[np.float32]) -> NDArray[np.uint64]:
    """One 64-bit key for each row; different rows share a key with a probability of 5e-20."""
    keys = np.zeros(len(events), dtype=np.uint64)
    for column in np.ascontiguousarray(events).view(np.uint32).T:
        keys = (keys ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys

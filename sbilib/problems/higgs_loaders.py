"""Loaders for the public files of the HiggsML (2014) and the FAIR Universe (2024) challenges.

Neither file is part of this repository.  Both loaders check that the columns are there and in GeV and rad
(the visible mass in the file must be that of its lepton and tau), give absent jets the value of our schema,
keep the weights, and divide the events at random into disjoint splits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from sbilib.errors import DataError, ParameterError, check_count
from sbilib.problems.base import COMPONENTS
from sbilib.problems.higgs_data import EventTables, split_events
from sbilib.simulation.derived import derived_quantities
from sbilib.simulation.schema import MISSING, PRIMARY

__all__ = ["FAIR_UNIVERSE_SOURCE", "HIGGSML_SOURCE", "load_fair_universe", "load_higgsml"]

HIGGSML_SOURCE = (
    "get atlas-higgs-challenge-2014-v2.csv.gz from CERN Open Data record 328 "
    "(https://opendata.cern.ch/record/328, DOI 10.7483/OPENDATA.ATLAS.ZBP2.M5T8)"
)
"""Where to get the file of the 2014 challenge."""

FAIR_UNIVERSE_SOURCE = (
    "get FAIR_Universe_HiggsML_data.zip from Zenodo record 15131565 "
    "(https://zenodo.org/records/15131565) and unpack the Parquet file"
)
"""Where to get the file of the FAIR Universe challenge."""

_SENTINEL_2014 = -999.0
_MASS_TOLERANCE = 0.02
"""Relative; the tau of 2014 has a mass, and quantities in the files are rounded to 0.001 GeV."""


def load_higgsml(
    path: Path | str, *, seed: int = 1, fractions: Mapping[str, float] | None = None
) -> EventTables:
    """Events of the ATLAS HiggsML challenge of 2014: full simulation, 8 TeV, signal and three backgrounds.

    The sentinel -999 becomes `MISSING`; ``PRI_tau_*`` becomes ``PRI_had_*`` and ``PRI_jet_num`` (which counts
    up to 3) ``PRI_n_jets``.  ``DER_mass_MMC`` and ``PRI_met_sumet`` have no place in the schema and
    are left out, as are the events of Kaggle set u, which the challenge did not use.

    Args:
        path: the CSV file, also compressed.
        seed: seed of the division into splits.
        fractions: fraction of the events in each split, see `split_events`.

    Returns:
        Signal and background with the column ``Weight``.

    Raises:
        DataError: if the file is missing, not of this format, in other units, or has impossible events or
            negative weights.
    """
    path = _existing(path, HIGGSML_SOURCE)
    try:
        table = pd.read_csv(path)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} cannot be read as CSV ({error}); {HIGGSML_SOURCE}") from error
    names = {_name_of_2014(name): name for name in PRIMARY}
    needed = [*names, "DER_mass_vis", "Weight", "Label", "KaggleSet"]
    _require(path, needed, table.columns, HIGGSML_SOURCE)
    table = table[table["KaggleSet"] != "u"].rename(columns=names)
    if not set(table["Label"].unique()) <= {"s", "b"}:
        raise DataError(f"{path}: Label must be s or b, got {sorted(set(table['Label']))}; {HIGGSML_SOURCE}")
    table[list(PRIMARY)] = table[list(PRIMARY)].replace(_SENTINEL_2014, MISSING)
    _check_units(path, table)
    masks = {"signal": table["Label"] == "s", "background": table["Label"] == "b"}
    return _as_tables(path, table, masks, table["Weight"], seed, fractions)


def load_fair_universe(
    path: Path | str,
    *,
    backgrounds: Iterable[str] = ("ztautau",),
    max_rows: int | None = None,
    seed: int = 1,
    fractions: Mapping[str, float] | None = None,
) -> EventTables:
    """Events of the FAIR Universe HiggsML Uncertainty Challenge: Pythia 8.2 and Delphes, 13 TeV.

    Args:
        path: the Parquet file.
        backgrounds: which processes (``detailed_labels``) make up the background; as in Sluijter 2024, Z to
            tau tau alone.  Also there: ``"ttbar"`` and ``"diboson"``.
        max_rows: read the first rows only; the whole file has 220 million.
        seed: seed of the division into splits.
        fractions: fraction of the events in each split, see `split_events`.

    Returns:
        Signal and background with the column ``weights``.  Its threshold is that of the softest tau found.

    Raises:
        DataError: if the file is missing, not of this format, in other units, lacks one of the processes, or
            has impossible events or negative weights.
    """
    path = _existing(path, FAIR_UNIVERSE_SOURCE)
    chosen = tuple(backgrounds)
    if not chosen or "htautau" in chosen:
        raise ParameterError(f"backgrounds must be one or more of ztautau, ttbar, diboson, got {chosen}")
    table = _read_parquet(path, max_rows)
    labels = table["detailed_labels"]
    missing = [name for name in ("htautau", *chosen) if not bool((labels == name).any())]
    if missing:
        raise DataError(
            f"{path} has no events of {missing} among its first {len(table)} rows, only "
            f"{sorted(labels.unique())}; read more rows, or {FAIR_UNIVERSE_SOURCE}"
        )
    _check_units(path, table)
    masks = {"signal": labels == "htautau", "background": labels.isin(chosen)}
    return _as_tables(path, table, masks, table["weights"], seed, fractions)


def _existing(path: Path | str, source: str) -> Path:
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist or is not a file; {source}")
    return path


def _require(path: Path, needed: Iterable[str], columns: Iterable[str], source: str) -> None:
    present = set(columns)
    missing = [name for name in needed if name not in present]
    if missing:
        raise DataError(f"{path} lacks the columns {missing}, so it is another file; {source}")


def _name_of_2014(name: str) -> str:
    return {"PRI_n_jets": "PRI_jet_num"}.get(name, name.replace("PRI_had_", "PRI_tau_"))


def _read_parquet(path: Path, max_rows: int | None) -> pd.DataFrame:
    if max_rows is not None:
        check_count("max_rows", max_rows, low=1)
    needed = [*PRIMARY, "DER_mass_vis", "weights", "detailed_labels"]
    try:
        file = pq.ParquetFile(path)
        _require(path, needed, file.schema_arrow.names, FAIR_UNIVERSE_SOURCE)
        parts, rows = [], 0
        for batch in file.iter_batches(columns=needed, batch_size=1 << 18):
            parts.append(batch.to_pandas())
            rows += len(batch)
            if max_rows is not None and rows >= max_rows:
                break
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a whole Parquet file ({error}); {FAIR_UNIVERSE_SOURCE}") from error
    if not parts:
        raise DataError(f"{path} holds no events; {FAIR_UNIVERSE_SOURCE}")
    table: pd.DataFrame = pd.concat(parts, ignore_index=True)[:max_rows]
    return table


def _check_units(path: Path, table: pd.DataFrame) -> None:
    """A momentum in MeV, an angle in degrees, or swapped columns show in mass and size at once."""
    primary = torch.from_numpy(table[list(PRIMARY)].to_numpy(np.float64, copy=True))
    mass = derived_quantities(primary, names=["DER_mass_vis"])[:, 0].numpy()
    stored = table["DER_mass_vis"].to_numpy(np.float64)
    agree = np.abs(mass - stored) <= _MASS_TOLERANCE * np.abs(stored)
    softest = float(table["PRI_lep_pt"].min())
    if agree.mean() < 0.99 or not 1.0 < softest < 1000.0:
        raise DataError(
            f"{path}: lepton and tau must be in GeV and rad and give the mass DER_mass_vis, but "
            f"{100 * agree.mean():.1f}% of the events agree and the softest lepton has {softest:g} GeV; "
            "convert the units, or get the original file again"
        )


def _as_tables(
    path: Path,
    table: pd.DataFrame,
    masks: Mapping[str, pd.Series[bool]],
    weights: pd.Series[float],
    seed: int,
    fractions: Mapping[str, float] | None,
) -> EventTables:
    tables = {}
    for number, component in enumerate(COMPONENTS):
        mask = masks[component].to_numpy()
        primary = table.loc[mask, list(PRIMARY)].to_numpy().astype(np.float32)
        chosen = weights.to_numpy()[mask].astype(np.float64)
        tables[component] = split_events(primary, chosen, seed=2 * seed + number, fractions=fractions)
    return EventTables(tables, source=path.name)

"""Event tables as files: Parquet with a manifest that says how they were made, and checks on the way back.

A folder holds one data set.  Its tables carry the columns of their `TableFormat` as float32, rounded (far
below any detector resolution, and what makes them compress).  ``manifest.json`` lists every
table with its component, split, number of rows and SHA-256, beside settings, versions, seeds, cross sections
and efficiencies.  Without another format, functions are for events of the Higgs case, with the 16 columns of
its schema.
A folder without manifest is unfinished: the manifest is written last.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sbilib.atomic import write_atomically
from sbilib.errors import DataError, check_choice
from sbilib.simulation.schema import PRIMARY, Rows, check_primary
from sbilib.simulation.table_format import TableFormat

__all__ = [
    "HIGGS_FORMAT",
    "MANIFEST",
    "RESOLUTION",
    "SPLITS",
    "EventFile",
    "Manifest",
    "read_events",
    "read_manifest",
    "read_split",
    "round_events",
    "write_events",
    "write_manifest",
]

MANIFEST = "manifest.json"
"""Name of the file that lists the tables of a folder."""

SPLITS = ("train", "validation", "test-1", "test-2", "test-3", "test-4", "test-5")
"""The disjoint parts of a data set as in Sluijter 2024, table 3.1."""

_COMPONENTS = ("signal", "background")

RESOLUTION = {name: 1.0 if name == "PRI_n_jets" else 0.001 for name in PRIMARY}
"""Step of each column: 0.001 GeV, 0.001 rad, 0.001 in pseudorapidity, as in the files of the challenge."""

_SAMPLE = "higgs-tau-tau"
_HINT = "copy the file again from where it came, or make the data anew with `sbilib simulate`"


@dataclass(frozen=True)
class EventFile:
    """What the manifest says about one table."""

    name: str
    """File name inside the folder."""
    component: str
    """``"signal"`` or ``"background"``."""
    split: str
    """One of the splits of the format."""
    rows: int
    """Number of events."""
    sha256: str
    """SHA-256 of the file."""


@dataclass(frozen=True)
class Manifest:
    """How the events of a folder were made, and which tables it holds.

    Every mapping must survive JSON: keys are strings, values numbers, strings, lists or mappings.
    """

    files: tuple[EventFile, ...]
    """The tables."""
    tau_threshold: float = 0.0
    """Events with a harder tau than this, in GeV, are complete; there are none below.  Higgs case only."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """Configuration of generation, detector response and selection."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of the programs used."""
    seeds: Mapping[str, object] = field(default_factory=dict)
    """Seeds of every random stream."""
    cross_sections: Mapping[str, float] = field(default_factory=dict)
    """Cross section of each component before selection, in pb."""
    efficiencies: Mapping[str, float] = field(default_factory=dict)
    """Fraction of generated events of each component that the stored selection keeps."""
    sample: str = _SAMPLE
    """Kind of data set, the name of its `TableFormat`."""

    def rows(self, component: str, split: str) -> int:
        """Number of events of a component in a split."""
        return sum(file.rows for file in self.of(component, split))

    def of(self, component: str, split: str) -> tuple[EventFile, ...]:
        """Tables of a component in a split, in the order of the manifest."""
        check_choice("component", component, _COMPONENTS)
        if self.sample == _SAMPLE:
            check_choice("split", split, SPLITS)
        return tuple(f for f in self.files if (f.component, f.split) == (component, split))

    @property
    def digest(self) -> str:
        """SHA-256 that stands for the content of all tables; it does not depend on their order."""
        lines = sorted(f"{file.component} {file.split} {file.sha256}" for file in self.files)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def round_events(primary: Rows) -> NDArray[np.float32]:
    """Events ``(n, 16)`` rounded to `RESOLUTION`; what is stored, and so what comes back.

    A missing momentum that would round to zero becomes one step.

    Example:
        >>> event = np.array([[30.00049, 0, 0, 40.0, 0, 1.0, *[-25.0] * 6, 0, 0, 1e-5, 1.0]])
        >>> rounded = round_events(event)
        >>> float(rounded[0, 0]), round(float(rounded[0, 14]), 6)
        (30.0, 0.001)
    """
    steps = np.array([RESOLUTION[name] for name in PRIMARY])
    rounded = np.round(np.asarray(primary, dtype=np.float64) / steps) * steps
    met = PRIMARY.index("PRI_met")
    rounded[:, met] = np.maximum(rounded[:, met], steps[met])
    # Minus zero would be a second spelling of zero.
    stored: NDArray[np.float32] = (rounded + 0.0).astype(np.float32)
    return stored


HIGGS_FORMAT = TableFormat(
    sample=_SAMPLE,
    columns=PRIMARY,
    splits=SPLITS,
    command="simulate higgs",
    loaders=("load_fair_universe", "load_higgsml"),
    check=check_primary,
    rounded=round_events,
    # One row group with dictionaries: a rounded column has few different values, and 13 to 17 bits name one.
    encoding={
        "compression": "zstd",
        "compression_level": 12,
        "use_dictionary": True,
        "dictionary_pagesize_limit": 1 << 22,
        "row_group_size": 1 << 23,
        "write_statistics": False,
    },
)
"""The tables of the Higgs case."""


def write_events(
    folder: Path,
    name: str,
    events: Rows,
    *,
    component: str,
    split: str,
    table_format: TableFormat = HIGGS_FORMAT,
) -> EventFile:
    """Write one table, rounded, in one step: after an interrupt there is the whole file or none.

    Args:
        folder: where to; made if missing.
        name: file name, ending in ``.parquet``.
        events: ``(n, columns)`` in the order of the format, GeV and rad; at least one.
        component: ``"signal"`` or ``"background"``.
        split: one of the splits of the format.
        table_format: columns, rounding and checks.

    Returns:
        Its line in the manifest.  The same events give the same bytes.

    Raises:
        DataError: for events that the schema forbids, or if the file cannot be written.
        ParameterError: for an unknown component or split.
    """
    check_choice("component", component, _COMPONENTS)
    check_choice("split", split, table_format.splits)
    rounded = table_format.rounded(table_format.check(name, events))
    if len(rounded) == 0:
        raise DataError(f"{name} would hold no events; write at least one")
    content = _as_parquet(rounded, table_format)
    write_atomically(folder / name, content)
    return EventFile(name, component, split, len(rounded), hashlib.sha256(content).hexdigest())


def _as_parquet(rounded: NDArray[np.float32], table_format: TableFormat) -> bytes:
    arrays = [pa.array(np.ascontiguousarray(column)) for column in rounded.T]
    schema = pa.schema([pa.field(name, pa.float32(), nullable=False) for name in table_format.columns])
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), buffer, **table_format.encoding)
    return buffer.getvalue()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json``, last of all: it says that the folder is complete.

    Raises:
        DataError: if a value cannot be written as JSON, or the file cannot be written.
    """
    facts = asdict(manifest)
    # The kind is named, and the threshold of the tau left out, where it is not the Higgs case.
    del facts["sample" if manifest.sample == _SAMPLE else "tau_threshold"]
    try:
        text = json.dumps({"format": 1, **facts}, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"the manifest of {folder} is not JSON ({error}); use plain finite values") from error
    write_atomically(folder / MANIFEST, (text + "\n").encode())


def read_manifest(folder: Path, table_format: TableFormat | None = HIGGS_FORMAT) -> Manifest:
    """Read ``manifest.json`` of a folder.

    Args:
        folder: of the data set.
        table_format: of the tables it must hold; with None it may be any kind of data set.

    Raises:
        DataError: if it is missing (the folder is unfinished), damaged, of another format, or that of another
            kind of data set.
    """
    command = HIGGS_FORMAT.command if table_format is None else table_format.command
    path = folder / MANIFEST
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if facts.pop("format") != 1:
            raise DataError(f"{path} is of another format than 1; update sbilib or make the data anew")
        files = tuple(EventFile(**line) for line in facts.pop("files"))
        manifest = Manifest(files=files, **facts)
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} has no {MANIFEST}, so it is missing or unfinished; make the data, or finish making "
            f"them, with `sbilib {command}`"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is not a manifest of event tables ({error}); {_HINT}") from error
    if table_format is not None and manifest.sample != table_format.sample:
        raise DataError(
            f"{folder} must hold a data set of the kind {table_format.sample!r}, got {manifest.sample!r}; "
            f"choose another folder, or make such data with `sbilib {command}`"
        )
    return manifest


def read_events(
    path: Path, expected: EventFile | None = None, *, table_format: TableFormat = HIGGS_FORMAT
) -> NDArray[np.float32]:
    """Read one table, and check bytes, columns and values.

    Args:
        path: the file.
        expected: what the manifest says; without it, checksum and number of rows are not checked.
        table_format: columns and checks.

    Returns:
        Events ``(n, columns)`` in the order of the format, GeV and rad.

    Raises:
        DataError: if the file is missing, truncated, altered, has other columns or types, or holds values
            that no event has (NaN, zero or negative momenta); the message says which and what to do.
    """
    hint = table_format.hint
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; {hint}") from error
    found = hashlib.sha256(content).hexdigest()
    if expected is not None and found != expected.sha256:
        raise DataError(
            f"{path} was altered or truncated: its SHA-256 must be {expected.sha256[:16]}..., got "
            f"{found[:16]}...; {hint}"
        )
    try:
        table = pq.read_table(io.BytesIO(content))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} is not a whole Parquet file ({error}); {hint}") from error
    _check_columns(path, table.schema, table_format)
    events = np.column_stack([table[name].to_numpy() for name in table_format.columns])
    if expected is not None and len(events) != expected.rows:
        raise DataError(f"{path} must hold {expected.rows} events, got {len(events)}; {hint}")
    if len(events) == 0:
        raise DataError(f"{path} holds no events; {hint}")
    table_format.check(str(path), events)
    return events


def _check_columns(path: Path, schema: pa.Schema, table_format: TableFormat) -> None:
    columns, hint = table_format.columns, table_format.hint
    missing = [name for name in columns if name not in schema.names]
    extra = [name for name in schema.names if name not in columns]
    if missing or extra:
        raise DataError(
            f"{path} must have exactly the {len(columns)} columns of a {table_format.sample} table, "
            f"{columns[0]} to {columns[-1]}; missing {missing}, unexpected {extra}; {hint} (public files "
            f"have loaders of their own: {', '.join(table_format.loaders)})"
        )
    wrong = [name for name in columns if schema.field(name).type != pa.float32()]
    if wrong:
        raise DataError(
            f"{path} must have float32 columns, got {schema.field(wrong[0]).type} in {wrong}; {hint}"
        )


def read_split(
    folder: Path,
    manifest: Manifest,
    component: str,
    split: str,
    *,
    table_format: TableFormat = HIGGS_FORMAT,
) -> NDArray[np.float32]:
    """All events of a component in a split, ``(n, columns)``, every file checked.

    Raises:
        DataError: if a file is missing or wrong, or the manifest lists none.
        ParameterError: for an unknown component or split.
    """
    files = manifest.of(component, check_choice("split", split, table_format.splits))
    if not files:
        raise DataError(f"{folder} has no {component} events for {split!r}; {table_format.hint}")
    return np.concatenate(
        [read_events(folder / file.name, file, table_format=table_format) for file in files]
    )

"""Event tables as files: Parquet with a manifest that says how they were made, and checks on the way back.

A folder holds one data set.  Its tables carry the 16 columns of the schema as float32, rounded to
`RESOLUTION` (far below any detector resolution, and what makes them compress).  ``manifest.json`` lists every
table with its component, split, number of rows and SHA-256, beside settings, versions, seeds, cross sections
and efficiencies.
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

__all__ = [
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

_SCHEMA = pa.schema([pa.field(name, pa.float32(), nullable=False) for name in PRIMARY])
_HINT = "copy the file again from where it came, or make the data anew with `sbilib simulate higgs`"


@dataclass(frozen=True)
class EventFile:
    """What the manifest says about one table."""

    name: str
    """File name inside the folder."""
    component: str
    """``"signal"`` or ``"background"``."""
    split: str
    """One of `SPLITS`."""
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
    tau_threshold: float
    """Events with a harder tau than this, in GeV, are complete; there are none below."""
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

    def rows(self, component: str, split: str) -> int:
        """Number of events of a component in a split."""
        return sum(file.rows for file in self.of(component, split))

    def of(self, component: str, split: str) -> tuple[EventFile, ...]:
        """Tables of a component in a split, in the order of the manifest."""
        check_choice("component", component, _COMPONENTS)
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


def write_events(folder: Path, name: str, primary: Rows, *, component: str, split: str) -> EventFile:
    """Write one table, rounded, in one step: after an interrupt there is the whole file or none.

    Args:
        folder: where to; made if missing.
        name: file name, ending in ``.parquet``.
        primary: events ``(n, 16)`` in the order of `PRIMARY`, GeV and rad; at least one.
        component: ``"signal"`` or ``"background"``.
        split: one of `SPLITS`.

    Returns:
        Its line in the manifest.  The same events give the same bytes.

    Raises:
        DataError: for events that the schema forbids, or if the file cannot be written.
        ParameterError: for an unknown component or split.
    """
    check_choice("component", component, _COMPONENTS)
    check_choice("split", split, SPLITS)
    rounded = round_events(check_primary(name, primary))
    if len(rounded) == 0:
        raise DataError(f"{name} would hold no events; write at least one")
    content = _as_parquet(rounded)
    write_atomically(folder / name, content)
    return EventFile(name, component, split, len(rounded), hashlib.sha256(content).hexdigest())


def _as_parquet(rounded: NDArray[np.float32]) -> bytes:
    arrays = [pa.array(np.ascontiguousarray(rounded[:, index])) for index in range(len(PRIMARY))]
    buffer = io.BytesIO()
    # One row group with dictionaries: a rounded column has few different values, and 13 to 17 bits name one.
    pq.write_table(
        pa.Table.from_arrays(arrays, schema=_SCHEMA),
        buffer,
        compression="zstd",
        compression_level=12,
        use_dictionary=True,
        dictionary_pagesize_limit=1 << 22,
        row_group_size=1 << 23,
        write_statistics=False,
    )
    return buffer.getvalue()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json``, last of all: it says that the folder is complete.

    Raises:
        DataError: if a value cannot be written as JSON, or the file cannot be written.
    """
    try:
        text = json.dumps({"format": 1, **asdict(manifest)}, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"the manifest of {folder} is not JSON ({error}); use plain finite values") from error
    write_atomically(folder / MANIFEST, (text + "\n").encode())


def read_manifest(folder: Path) -> Manifest:
    """Read ``manifest.json`` of a folder.

    Raises:
        DataError: if it is missing (the folder is unfinished), damaged, or of another format.
    """
    path = folder / MANIFEST
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if facts.pop("format") != 1:
            raise DataError(f"{path} is of another format than 1; update sbilib or make the data anew")
        files = tuple(EventFile(**line) for line in facts.pop("files"))
        return Manifest(files=files, **facts)
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} has no {MANIFEST}, so it is missing or unfinished; make the data, or finish making "
            "them, with `sbilib simulate higgs`"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is not a manifest of event tables ({error}); {_HINT}") from error


def read_events(path: Path, expected: EventFile | None = None) -> NDArray[np.float32]:
    """Read one table, and check bytes, columns and values.

    Args:
        path: the file.
        expected: what the manifest says; without it, checksum and number of rows are not checked.

    Returns:
        Events ``(n, 16)`` in the order of `PRIMARY`, GeV and rad.

    Raises:
        DataError: if the file is missing, truncated, altered, has other columns or types, or holds values
            that no event has (NaN, zero or negative momenta); the message says which and what to do.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; {_HINT}") from error
    found = hashlib.sha256(content).hexdigest()
    if expected is not None and found != expected.sha256:
        raise DataError(
            f"{path} was altered or truncated: its SHA-256 must be {expected.sha256[:16]}..., got "
            f"{found[:16]}...; {_HINT}"
        )
    try:
        table = pq.read_table(io.BytesIO(content))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} is not a whole Parquet file ({error}); {_HINT}") from error
    _check_columns(path, table.schema)
    primary = np.column_stack([table[name].to_numpy() for name in PRIMARY])
    if expected is not None and len(primary) != expected.rows:
        raise DataError(f"{path} must hold {expected.rows} events, got {len(primary)}; {_HINT}")
    if len(primary) == 0:
        raise DataError(f"{path} holds no events; {_HINT}")
    check_primary(str(path), primary)
    return primary


def _check_columns(path: Path, schema: pa.Schema) -> None:
    missing = [name for name in PRIMARY if name not in schema.names]
    extra = [name for name in schema.names if name not in PRIMARY]
    if missing or extra:
        raise DataError(
            f"{path} must have exactly the columns of sbilib.simulation.schema.PRIMARY; missing {missing}, "
            f"unexpected {extra}; {_HINT} (files of the challenges have loaders of their own: "
            "load_fair_universe and load_higgsml)"
        )
    wrong = [name for name in PRIMARY if schema.field(name).type != pa.float32()]
    if wrong:
        raise DataError(
            f"{path} must have float32 columns, got {schema.field(wrong[0]).type} in {wrong}; {_HINT}"
        )


def read_split(folder: Path, manifest: Manifest, component: str, split: str) -> NDArray[np.float32]:
    """All events of a component in a split, ``(n, 16)``, every file checked.

    Raises:
        DataError: if a file is missing or wrong, or the manifest lists none.
        ParameterError: for an unknown component or split.
    """
    files = manifest.of(component, split)
    if not files:
        raise DataError(f"{folder} has no {component} events for {split!r}; {_HINT}")
    return np.concatenate([read_events(folder / file.name, file) for file in files])

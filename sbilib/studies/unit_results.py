"""Long trainings in units: each finished unit is kept at once, and a published table needs no training.

A study is made of units, for instance a case and a group of seeds.  While it is made, the folder
``units/NAME-DIGEST`` below ``SBILIB_CACHE`` holds a table for each finished unit, with its checksum in the
name, so a run that was stopped goes on with the next unit.  Results are ``table.parquet`` and
``manifest.json``: what was asked for, which units, by which code, where and when.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from pyarrow.lib import ArrowInvalid

from sbilib.digest import code_digest
from sbilib.errors import CheckpointError, ParameterError
from sbilib.studies.pairs import cache_folder
from sbilib.studies.sweep_files import as_parquet, write_atomically

__all__ = [
    "UnitStudy",
    "accept_unit_code",
    "finished_or_made",
    "make_units",
    "read_units",
    "write_units",
]

TABLE, MANIFEST = "table.parquet", "manifest.json"
_LIBRARIES = ("torch", "numpy", "pandas", "pyarrow")


@dataclass(frozen=True)
class UnitStudy:
    """What is made, in which units, by which code.

    Args:
        name: of the study; letters, digits and dashes.
        facts: everything but the units that decides the content, as values that JSON has.
        units: names of the units, each once; more units may be asked for later.
        code: glob patterns of the modules that decide the content, relative to the package.
        make: makes the rows of one unit; :func:`make_units` adds the column ``unit``.

    Raises:
        ParameterError: if there are no units, or one is named twice.
    """

    name: str
    facts: Mapping[str, Any]
    units: Sequence[str]
    code: tuple[str, ...]
    make: Callable[[str], pd.DataFrame]

    def __post_init__(self) -> None:
        if not self.units or len(set(self.units)) != len(self.units):
            raise ParameterError(f"name at least one unit, and each once; got {list(self.units)}")

    @property
    def code_digests(self) -> dict[str, str]:
        """Digest of the code of each pattern."""
        return {pattern: code_digest(pattern) for pattern in self.code}

    @property
    def work_folder(self) -> Path:
        """Where finished units are kept until all are there."""
        asked = json.dumps([dict(self.facts), self.code_digests], sort_keys=True)
        digest = hashlib.sha256(asked.encode()).hexdigest()[:16]
        return cache_folder() / "units" / f"{self.name}-{digest}"


def make_units(study: UnitStudy, *, say: Callable[[str], None] | None = None) -> pd.DataFrame:
    """Make what is missing, keeping each unit as soon as it is finished.

    Args:
        study: what to make.
        say: takes a line for each unit that was made; silent if None.

    Returns:
        The rows of all units in their order, with the columns ``unit`` and ``seconds``, the time it took.

    Raises:
        CheckpointError: if a unit cannot be kept.
    """
    tables = []
    for unit in study.units:
        table = _kept(study.work_folder, unit)
        if table is None:
            start = time.perf_counter()
            table = study.make(unit)
            seconds = time.perf_counter() - start
            table = table.assign(unit=unit, seconds=seconds)
            content = as_parquet(table)
            write_atomically(study.work_folder / f"{unit}.{_checksum(content)}.parquet", content)
            if say is not None:
                say(f"{unit}: {seconds:.0f} s")
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def write_units(folder: Path, study: UnitStudy, table: pd.DataFrame) -> None:
    """Write table and manifest, the manifest last: only with it do the results count.

    Raises:
        CheckpointError: if they cannot be written.
    """
    content = as_parquet(table)
    manifest = {
        "study": study.name,
        "facts": dict(study.facts),
        "units": list(study.units),
        "code": study.code_digests,
        "table_sha256": _checksum(content),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "libraries": {name: version(name) for name in _LIBRARIES},
    }
    write_atomically(folder / TABLE, content)
    write_atomically(folder / MANIFEST, _as_json(manifest))


def read_units(folder: Path, study: UnitStudy) -> pd.DataFrame | None:
    """The rows of the asked units from a folder of results; None if there are none or it is damaged.

    Raises:
        CheckpointError: if the results are of other settings or other code; the difference is named.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        content = (folder / TABLE).read_bytes()
        table = pd.read_parquet(io.BytesIO(content))
    except (OSError, ValueError, ArrowInvalid):
        return None
    if _checksum(content) != manifest["table_sha256"]:
        return None
    reasons = _differences(manifest, study)
    if reasons:
        raise CheckpointError(
            f"the results in {folder} are not those asked for: {'; '.join(reasons)}; make them anew, "
            "or accept the change of code with 'sbilib results accept' if it cannot change a result"
        )
    return table[table.unit.isin(list(study.units))].reset_index(drop=True)


def finished_or_made(
    study: UnitStudy, results: Path, *, say: Callable[[str], None] | None = None
) -> pd.DataFrame:
    """The rows of a study: from a folder right below ``results`` if there are any of it, else made now.

    Args:
        study: what is asked for.
        results: where finished results lie; nothing is written there.
        say: takes a line for each unit that was made.

    Raises:
        CheckpointError: if a unit cannot be kept.
    """
    for place in sorted(results.glob("*/")):
        try:
            table = read_units(place, study)
        except CheckpointError:
            continue
        if table is not None:
            return table
    return make_units(study, say=say)


def accept_unit_code(folder: Path, study: UnitStudy) -> bool:
    """Take results as if made by the code of today; the manifest keeps the digests of the code of then.

    Returns:
        Whether there was anything to accept.

    Raises:
        CheckpointError: if there are no results, or they cannot be written.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"no results in {folder}: {error}; make them first") from error
    if manifest["code"] == study.code_digests:
        return False
    manifest["earlier_code"] = [*manifest.get("earlier_code", []), manifest["code"]]
    manifest["code"] = study.code_digests
    write_atomically(folder / MANIFEST, _as_json(manifest))
    return True


def _differences(manifest: Mapping[str, Any], study: UnitStudy) -> list[str]:
    now, then = json.loads(json.dumps(dict(study.facts))), manifest["facts"]
    names = sorted({*now, *then})
    reasons = [
        f"{name} is {then.get(name)} there and {now.get(name)} here"
        for name in names
        if then.get(name) != now.get(name)
    ]
    missing = [unit for unit in study.units if unit not in manifest["units"]]
    reasons += [f"{len(missing)} units are missing, the first {missing[0]!r}"] if missing else []
    digests = study.code_digests
    return reasons + [
        f"the code {name} changed" for name in digests if manifest["code"].get(name) != digests[name]
    ]


def _kept(folder: Path, unit: str) -> pd.DataFrame | None:
    for path in folder.glob(f"{unit}.*.parquet"):
        try:
            content = path.read_bytes()
            if _checksum(content) == path.stem.rpartition(".")[2]:
                return pd.read_parquet(io.BytesIO(content))
        except (OSError, ArrowInvalid):
            continue
    return None


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _as_json(facts: Mapping[str, Any]) -> bytes:
    return (json.dumps(facts, indent=1, sort_keys=True) + "\n").encode()

"""The files of a sweep: finished chunks with their checksums, and the gathered results.

While a sweep runs, its folder below ``SBILIB_CACHE`` holds ``sweep.json`` (what is being made, by which
code), ``chunk-0001.parquet`` and ``chunk-0001.json`` for each finished chunk, and a folder ``chunk-0001``
with the checkpoints of a chunk in training and the rows of its models that are already measured.  A chunk
counts as finished once its JSON file is there and holds the checksum of the table beside it, so a kill
between any two writes leaves a chunk that is made again.

Results are ``table.parquet`` and ``manifest.json``, with the checksum of the table in the manifest.  Times
are kept in the JSON files only: the same sweep gives the same table, byte for byte, however often it was
stopped.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from pyarrow.lib import ArrowInvalid

from sbilib import atomic
from sbilib.digest import code_digest
from sbilib.errors import CheckpointError
from sbilib.studies.pairs import cache_folder
from sbilib.studies.sweep import Chunk, Sweep

__all__ = [
    "SweepFolder",
    "SweepResult",
    "accept_code",
    "code_of_sweeps",
    "differences",
    "find_result",
    "read_result",
    "work_folder",
    "write_result",
]

TABLE, MANIFEST, SWEEP = "table.parquet", "manifest.json", "sweep.json"
_PARTIAL = ".part"
_CODE = {
    "problems": ("components.py", *(f"problems/{name}.py" for name in ("base", "gaussian", "maps", "sets"))),
    "models": tuple(
        f"models/{name}.py" for name in ("classifier", "flow", "made", "pair", "spline", "stack*")
    ),
    "training": ("training/*.py",),
    "likelihood": ("likelihood/*.py",),
    "studies": tuple(
        f"studies/{name}.py"
        for name in ("evaluation*", "members", "metrics", "pairs", "recipes", "stacks*", "sweep", "sweep_run")
    ),
}


class SweepResult(NamedTuple):
    """The gathered results of a sweep."""

    table: pd.DataFrame
    """A row per model and test set."""
    manifest: dict[str, Any]
    """What was made, by which code, where and when, and the checksum of the table."""


def code_of_sweeps() -> dict[str, str]:
    """Digest of the code that decides the results, by room of the library."""
    return {room: code_digest(*patterns) for room, patterns in _CODE.items()}


def differences(record: Mapping[str, Any], sweep: Sweep) -> list[str]:
    """How a stored sweep differs from ``sweep`` made by the code of today; empty if it does not.

    Args:
        record: content of ``sweep.json`` or ``manifest.json``.
        sweep: the sweep that is asked for.

    Example:
        >>> record = {"sweep": {**Sweep.sluijter().to_dict(), "n_steps": 7}, "code": code_of_sweeps()}
        >>> differences(record, Sweep.sluijter())
        ['n_steps is 7 there and 30000 here']
    """
    then, now = dict(record.get("sweep", {})), sweep.facts
    changed = [name for name in now if then.get(name) != now[name]]
    reasons = [f"{name} is {then.get(name)} there and {now[name]} here" for name in changed]
    code_then, code_now = dict(record.get("code", {})), code_of_sweeps()
    rooms = [room for room in code_now if code_then.get(room) != code_now[room]]
    return reasons + [f"code in sbilib/{room} changed" for room in rooms]


def work_folder(sweep: Sweep) -> Path:
    """Where the chunks of a sweep are kept until they are gathered."""
    return cache_folder() / "sweeps" / f"{sweep.name}-{sweep.digest[:16]}"


class SweepFolder:
    """The folder of a sweep that runs.

    Args:
        sweep: the sweep.
        path: the folder; below ``SBILIB_CACHE`` by default.
    """

    def __init__(self, sweep: Sweep, path: Path | None = None) -> None:
        self.sweep = sweep
        self.path = path or work_folder(sweep)

    def prepare(self, *, fresh: bool = False) -> None:
        """Make the folder, or see that it belongs to this sweep and this code.

        Args:
            fresh: delete what is there first.

        Raises:
            CheckpointError: if it belongs to another sweep or version of the code (the difference is named),
                or cannot be written.
        """
        if fresh:
            self.clear()
        self.check()
        if not (self.path / SWEEP).exists():
            facts = {"sweep": self.sweep.to_dict(), "code": code_of_sweeps()}
            write_atomically(self.path / SWEEP, _as_json(facts))

    def check(self) -> None:
        """See that the folder, if there is one, belongs to this sweep and this code.

        Raises:
            CheckpointError: if it does not; the difference is named.
        """
        record = _read_json(self.path / SWEEP)
        if record is None:
            return
        reasons = differences(record, self.sweep) if record else [f"{SWEEP} is damaged"]
        if reasons:
            raise CheckpointError(
                f"the unfinished sweep in {self.path} is another one: {'; '.join(reasons)}; start afresh "
                "(--fresh), or finish it with the code that began it"
            )

    @property
    def earlier_code(self) -> list[dict[str, str]]:
        """Digests of code that began the sweep before :func:`accept_code` let this code go on with it."""
        return list((_read_json(self.path / SWEEP) or {}).get("earlier_code", []))

    def clear(self) -> None:
        """Delete the folder with everything in it."""
        try:
            shutil.rmtree(self.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise CheckpointError(f"cannot delete {self.path}: {error}; delete it by hand") from error

    def checkpoints(self, chunk: Chunk) -> Path:
        """The folder for checkpoints of a chunk in training."""
        return self.path / _stem(chunk)

    def state(self, chunk: Chunk) -> str:
        """``"finished"``, ``"damaged"`` (table and checksum disagree), ``"begun"`` or ``"missing"``."""
        if not (self.path / f"{_stem(chunk)}.json").exists():
            return "begun" if self.checkpoints(chunk).is_dir() else "missing"
        return "damaged" if self._read(chunk) is None else "finished"

    def read(self, chunk: Chunk) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Table and record of a finished chunk.

        Raises:
            CheckpointError: if it is not finished or damaged.
        """
        content = self._read(chunk)
        if content is None:
            raise CheckpointError(f"{chunk.label} is not finished in {self.path}; run the sweep again")
        return content

    def write(self, chunk: Chunk, table: pd.DataFrame, record: Mapping[str, Any]) -> None:
        """Keep a finished chunk and drop its checkpoints.

        Raises:
            CheckpointError: if it cannot be written, for instance because the disk is full.
        """
        content = as_parquet(table)
        facts = {
            **record,
            "sweep": self.sweep.digest,
            "chunk": list(chunk[:3]),
            "models": [list(model) for model in chunk.models],
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        write_atomically(self.path / f"{_stem(chunk)}.parquet", content)
        write_atomically(self.path / f"{_stem(chunk)}.json", _as_json(facts))
        shutil.rmtree(self.checkpoints(chunk), ignore_errors=True)

    def keep_rows(self, chunk: Chunk, model: int, table: pd.DataFrame) -> None:
        """Keep the rows of one model of a chunk that is not finished; the file name holds their checksum.

        Raises:
            CheckpointError: if they cannot be written.
        """
        content = as_parquet(table)
        name = f"rows-{model:04d}-{hashlib.sha256(content).hexdigest()}.parquet"
        write_atomically(self.checkpoints(chunk) / name, content)

    def kept_rows(self, chunk: Chunk, model: int) -> pd.DataFrame | None:
        """The rows of one model of a chunk that is not finished; None if there are none or damaged ones."""
        for path in self.checkpoints(chunk).glob(f"rows-{model:04d}-*.parquet"):
            table = _read_table(path, path.stem.rpartition("-")[2])
            if table is not None:
                return table
        return None

    def _read(self, chunk: Chunk) -> tuple[pd.DataFrame, dict[str, Any]] | None:
        record = _read_json(self.path / f"{_stem(chunk)}.json") or {}
        expected = [self.sweep.digest, list(chunk[:3]), [list(model) for model in chunk.models]]
        if [record.get(name) for name in ("sweep", "chunk", "models")] != expected:
            return None
        table = _read_table(self.path / f"{_stem(chunk)}.parquet", record["sha256"])
        return None if table is None else (table, record)


def write_result(folder: Path, result: SweepResult) -> None:
    """Write table and manifest, the manifest last: only with it do the results count.

    Raises:
        CheckpointError: if they cannot be written.
    """
    for leftover in folder.glob(f".*{_PARTIAL}"):  # of a process that was killed while it wrote
        leftover.unlink(missing_ok=True)
    content = as_parquet(result.table)
    manifest = {**result.manifest, "table_sha256": hashlib.sha256(content).hexdigest()}
    write_atomically(folder / TABLE, content)
    write_atomically(folder / MANIFEST, _as_json(manifest))


def read_result(folder: Path, sweep: Sweep) -> SweepResult | None:
    """The results in a folder, or None if there are none or they are incomplete or damaged.

    Raises:
        CheckpointError: if they belong to another sweep or version of the code; the difference is named.
    """
    manifest = _read_json(folder / MANIFEST)
    if not manifest:
        return None
    reasons = differences(manifest, sweep)
    if reasons:
        raise CheckpointError(
            f"the results in {folder} belong to another sweep or version of the code: {'; '.join(reasons)}; "
            "start afresh (--fresh) to replace them, or choose another folder (--out)"
        )
    table = _read_table(folder / TABLE, str(manifest.get("table_sha256")))
    return None if table is None else SweepResult(table, manifest)


def find_result(folder: Path, sweep: Sweep) -> SweepResult | None:
    """Results of exactly this sweep and code in ``folder`` or right below it; None if there are none."""
    for place in (folder, *sorted(folder.glob("*/"))):
        try:
            result = read_result(place, sweep)
        except CheckpointError:
            continue
        if result is not None:
            return result
    return None


def accept_code(folder: Path) -> bool:
    """Take what ``folder`` holds as if made by the code of today, and say so in its record.

    For a change of code that cannot change a result.  The earlier digests are kept under ``earlier_code``.

    Returns:
        Whether there was anything to accept.

    Raises:
        CheckpointError: if the record cannot be written.
    """
    changed = False
    for path in (folder / SWEEP, folder / MANIFEST):
        record = _read_json(path)
        if record and record.get("code") != code_of_sweeps():
            earlier = [*record.get("earlier_code", []), record.get("code")]
            record |= {"code": code_of_sweeps(), "earlier_code": earlier}
            write_atomically(path, _as_json(record))
            changed = True
    return changed


def as_parquet(table: pd.DataFrame) -> bytes:
    """The table as the bytes of a Parquet file, the same for the same table."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file in one step: it is either the old one or the whole new one.

    Raises:
        CheckpointError: if the disk is full or the folder cannot be written; the old file is untouched.
    """
    atomic.write_atomically(path, content, error=CheckpointError)


def _stem(chunk: Chunk) -> str:
    return f"chunk-{chunk.number:04d}"


def _as_json(facts: Mapping[str, Any]) -> bytes:
    return (json.dumps(facts, indent=1, sort_keys=True) + "\n").encode()


def _read_json(path: Path) -> dict[str, Any] | None:
    """Content of a JSON file; None if there is none, empty if it cannot be read."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _read_table(path: Path, sha256: str) -> pd.DataFrame | None:
    """The table in a file with this checksum, or None."""
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            return None
        return pd.read_parquet(io.BytesIO(content))
    except (OSError, ArrowInvalid):
        return None

"""Draw any number of events into a Parquet file, without ever holding more than one batch.

Events are made in blocks of fixed size, each from random numbers of its own that follow from the seed and the
number of the block.  So the events of a file depend on model, seed and device alone, not on the size of its
row groups, and a longer file starts with the events of a shorter one.  The file takes its name only
when it is complete.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from sbilib.errors import DataError, ParameterError, check_count
from sbilib.models.generative import GenerativeModel

__all__ = ["BLOCK", "SampledFile", "sample_blocks", "sample_to_parquet"]

BLOCK = 16_384
"""Events made of one seed."""


@dataclass(frozen=True)
class SampledFile:
    """What :func:`sample_to_parquet` wrote."""

    path: Path
    """The file."""
    n_events: int
    """Events in it."""
    seconds: float
    """Wall time that drawing and writing took."""

    @property
    def events_per_second(self) -> float:
        """Events drawn and written in a second."""
        return self.n_events / self.seconds


def sample_blocks(model: GenerativeModel, n_events: int, *, seed: int) -> Iterator[NDArray[np.float32]]:
    """Events in blocks of :data:`BLOCK`, the last one shorter.

    Args:
        model: what to draw from, on any device.
        n_events: how many in all.
        seed: decides all events.

    Yields:
        Events ``(m, features)`` as float32.

    Raises:
        ParameterError: for numbers that are not positive integers (not negative, for the seed).

    Example:
        >>> from sbilib.models import MixtureAutoregressive, MixtureConfig
        >>> model = MixtureAutoregressive(MixtureConfig.modern(features=2))
        >>> [len(block) for block in sample_blocks(model, 20_000, seed=1)]
        [16384, 3616]
    """
    check_count("n_events", n_events, low=1)
    check_count("seed", seed)
    device = next(model.parameters()).device
    for number, start in enumerate(range(0, n_events, BLOCK)):
        state = np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)
        generator = torch.Generator(device).manual_seed(int(state[0] >> np.uint64(1)))
        # A whole block, also where only its start is needed: fewer random numbers would be other ones.
        block = model.sample(BLOCK, generator)[: n_events - start]
        yield block.float().cpu().numpy()


def sample_to_parquet(
    model: GenerativeModel,
    path: str | Path,
    n_events: int,
    *,
    seed: int,
    names: Sequence[str] | None = None,
    batch_size: int = 131_072,
    progress: bool = False,
) -> SampledFile:
    """Draw events into a Parquet file with one float32 column for each feature.

    Args:
        model: what to draw from; a :class:`~sbilib.models.TransformedDensity` for events in physical units.
        path: the file; missing parent folders are made, an existing file is replaced once the new one is
            complete.
        n_events: how many.
        seed: decides all events, whatever the batch size.
        names: names of the columns; those of the model, or ``feature 0`` and so on, if not given.
        batch_size: events in a row group, and about what is held in memory at once.
        progress: show a progress bar.

    Returns:
        What was written, with its rate.

    Raises:
        ParameterError: for bad numbers or names.
        DataError: if the model draws values that are not finite, or the file cannot be written.

    Example:
        >>> from sbilib.models import MixtureAutoregressive, MixtureConfig
        >>> model = MixtureAutoregressive(MixtureConfig.modern(features=2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     written = sample_to_parquet(model, Path(folder, "x.parquet"), 1000, seed=1, names=("a", "b"))
        ...     table = pq.read_table(written.path)
        >>> table.num_rows, table.column_names
        (1000, ['a', 'b'])
    """
    check_count("batch_size", batch_size, low=1)
    check_count("n_events", n_events, low=1)
    path, started = Path(path), time.perf_counter()
    schema = _schema(_column_names(model, names), model.kind, seed, n_events)
    batches = _rebatched(sample_blocks(model, n_events, seed=seed), batch_size)
    bar = tqdm(total=n_events, desc=path.name, unit="event", unit_scale=True, disable=not progress)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        temporary = Path(name)
        with bar, os.fdopen(handle, "wb") as file:
            with pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=False,
                                  use_byte_stream_split=True) as writer:  # fmt: skip
                for batch in batches:
                    writer.write_table(_table(batch, schema), row_group_size=batch_size)
                    bar.update(len(batch))
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        temporary = None
    except OSError as cause:
        raise DataError(
            f"cannot write {path}: {cause.strerror or cause}; free some space or choose another folder "
            f"({'the earlier file is unchanged' if path.exists() else 'nothing was written'})"
        ) from cause
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return SampledFile(path, n_events, time.perf_counter() - started)


def _column_names(model: GenerativeModel, names: Sequence[str] | None) -> list[str]:
    if names is None:
        names = getattr(model, "names", None) or [f"feature {k}" for k in range(model.features)]
    if len(names) != model.features or len(set(names)) < len(names):
        raise ParameterError(
            f"names must be {model.features} different names, one for each feature, got {list(names)}"
        )
    return list(names)


def _schema(names: Sequence[str], kind: str, seed: int, n_events: int) -> pa.Schema:
    facts = {"sbilib.model": kind, "sbilib.seed": str(seed), "sbilib.n_events": str(n_events)}
    return pa.schema([pa.field(name, pa.float32(), nullable=False) for name in names], metadata=facts)


def _table(batch: NDArray[np.float32], schema: pa.Schema) -> pa.Table:
    if not np.isfinite(batch).all():
        row, column = np.argwhere(~np.isfinite(batch))[0]
        raise DataError(
            f"the model drew {schema.names[column]} = {batch[row, column]}, so its training has failed; "
            "look at its loss, and train it again with a lower learning rate"
        )
    arrays = [pa.array(np.ascontiguousarray(column)) for column in batch.T]
    return pa.Table.from_arrays(arrays, schema=schema)


def _rebatched(blocks: Iterator[NDArray[np.float32]], size: int) -> Iterator[NDArray[np.float32]]:
    """The same events in batches of ``size``, the last one shorter."""
    held: list[NDArray[np.float32]] = []
    for block in blocks:
        held.append(block)
        if sum(map(len, held)) >= size:
            joined = np.concatenate(held)
            whole = len(joined) - len(joined) % size
            yield from np.split(joined[:whole], range(size, whole, size))
            held = [joined[whole:]]
    rest = np.concatenate(held)
    if len(rest):
        yield rest

"""Chunks of a data set: each is generated with its own seeds and kept in a file until all are there.

Chunk k of a component depends on the settings, the component and k alone.  Its table is written first and its
record, with the checksum of the table, last: whenever the program was ended, a chunk without record does not
exist.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sbilib.atomic import write_atomically
from sbilib.errors import DataError
from sbilib.simulation.files import HIGGS_FORMAT, EventFile, read_events, write_events
from sbilib.simulation.generator import PROCESSES, GenerationSettings, GenerationSummary, import_pythia
from sbilib.simulation.sample import SampleSettings, Settings
from sbilib.simulation.table_format import TableFormat
from sbilib.simulation.tau_decays import DecayLibrary, build_library
from sbilib.simulation.truth import TruthEvents

__all__ = ["Chunk", "ChunkStore", "EventSource", "PythiaSource", "make_chunk"]

_PYTHIA_SEEDS = 900_000_000


class EventSource(Protocol):
    """Makes particle-level events; it must be picklable, as worker processes get a copy."""

    def must_prepare(self) -> bool:
        """Whether :meth:`prepare` has something to do that takes long."""

    def prepare(self) -> None:
        """Make what all chunks share, once, before any worker starts."""

    def events(self, component: str, n_events: int, seed: int) -> Iterator[tuple[Any, Any]]:
        """Yield ``n_events`` preselected events in parts, with the summary so far, as settings take them."""


@dataclass(frozen=True)
class PythiaSource:
    """Events from Pythia by either route.

    Args:
        settings: how to generate.
        library_path: where the fast route keeps its tau decays; made if it is not there.
    """

    settings: SampleSettings
    library_path: Path

    def must_prepare(self) -> bool:
        """Whether the route needs a library of tau decays and it is not there yet."""
        if self.settings.route != "fast":
            return False
        try:
            DecayLibrary.load(self.library_path)
        except DataError:
            return True
        return False

    def prepare(self) -> None:
        """Build the library of tau decays if it is needed and not there yet.

        Raises:
            DependencyError: if Pythia is not installed.
        """
        import_pythia()
        if self.must_prepare():
            build_library(self.settings.n_decays, self.settings.seed).save(self.library_path)

    def events(
        self, component: str, n_events: int, seed: int
    ) -> Iterator[tuple[TruthEvents, GenerationSummary]]:
        """Yield ``n_events`` preselected events in parts, with the summary so far."""
        from sbilib.simulation.fast_route import generate_fast
        from sbilib.simulation.plain_route import generate_plain

        generation: GenerationSettings = self.settings.generation
        if self.settings.route == "plain":
            return generate_plain(component, n_events, seed, generation, chunk=n_events)
        library = DecayLibrary.load(self.library_path)
        return generate_fast(component, n_events, seed, generation, library=library, chunk=n_events)


@dataclass(frozen=True)
class Chunk:
    """The record of a finished chunk.

    Args:
        component: ``"signal"`` or ``"background"``.
        index: its number, from 0.
        digest: of the settings it was made with.
        rows: events that passed the detector; their table is empty, and has no file, if there are none.
        sha256: of the table.
        cut_flow: events left after each step, from the produced ones on.
        cross_section: of what is produced, before any selection, in pb.
        versions: of the programs that made it.
    """

    component: str
    index: int
    digest: str
    rows: int
    sha256: str
    cut_flow: Mapping[str, int]
    cross_section: float
    versions: Mapping[str, str]


@dataclass(frozen=True)
class ChunkStore:
    """The folder of the chunks of one data set.

    Args:
        folder: where they are.
        table_format: of their tables.
    """

    folder: Path
    table_format: TableFormat = HIGGS_FORMAT

    def table(self, component: str, index: int) -> Path:
        """The file of the events of a chunk."""
        return self.folder / f"{component}-{index:05d}.parquet"

    def record(self, component: str, index: int) -> Path:
        """The file of the record of a chunk."""
        return self.folder / f"{component}-{index:05d}.json"

    def write(self, chunk: Chunk) -> None:
        """Write a record, which makes the chunk finished."""
        content = json.dumps(asdict(chunk), indent=1).encode()
        write_atomically(self.record(chunk.component, chunk.index), content)

    def finished(self, component: str, digest: str) -> dict[int, Chunk]:
        """The finished chunks of a component by number; damaged ones are left out, to be made again.

        Raises:
            DataError: if a chunk was made with other settings.
        """
        found = {}
        for path in sorted(self.folder.glob(f"{component}-*.json")):
            chunk = _read_record(path)
            if chunk is None or not self._whole(chunk):
                continue
            if chunk.digest != digest:
                raise DataError(
                    f"{self.folder} holds chunks of a data set with other settings ({path.name}); go on with "
                    "the settings it was begun with, choose another folder, or delete it"
                )
            found[chunk.index] = chunk
        return found

    def _whole(self, chunk: Chunk) -> bool:
        if chunk.rows == 0:
            return True
        try:
            content = self.table(chunk.component, chunk.index).read_bytes()
        except OSError:
            return False
        return hashlib.sha256(content).hexdigest() == chunk.sha256

    def events(self, chunk: Chunk) -> NDArray[np.float32]:
        """The events of a chunk, ``(n, columns)``.

        Raises:
            DataError: if its file is missing, damaged or altered.
        """
        if chunk.rows == 0:
            return np.empty((0, len(self.table_format.columns)), dtype=np.float32)
        path = self.table(chunk.component, chunk.index)
        expected = EventFile(path.name, chunk.component, "train", chunk.rows, chunk.sha256)
        return read_events(path, expected, table_format=self.table_format)


def _read_record(path: Path) -> Chunk | None:
    try:
        return Chunk(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def make_chunk(
    source: EventSource, settings: Settings, store: ChunkStore, component: str, index: int
) -> Chunk:
    """Generate chunk ``index`` of a component, pass it through the detector, and write it.

    Raises:
        DependencyError: if the source needs a package that is not installed.
        DataError: if the files cannot be written.
    """
    seeds = _chunk_seeds(settings.seed, component, index)
    parts = list(source.events(component, settings.chunk_size, seeds.pythia))
    detected = settings.detect(parts, seeds.detector)
    sha256 = ""
    if len(detected.events):
        written = write_events(
            store.folder,
            store.table(component, index).name,
            detected.events,
            component=component,
            split="train",
            table_format=store.table_format,
        )
        sha256 = written.sha256
    chunk = Chunk(
        component=component,
        index=index,
        digest=settings.digest,
        rows=len(detected.events),
        sha256=sha256,
        cut_flow=detected.cut_flow,
        cross_section=detected.cross_section,
        versions={"pythia": detected.pythia_version, "numpy": np.__version__},
    )
    store.write(chunk)
    return chunk


@dataclass(frozen=True)
class _Seeds:
    pythia: int
    detector: list[int]


def _chunk_seeds(seed: int, component: str, index: int) -> _Seeds:
    """Seeds of one chunk; within a data set no two chunks share one."""
    which = PROCESSES.index(component)
    start = int(np.random.SeedSequence(seed).generate_state(1)[0])
    return _Seeds((start + 2 * index + which) % _PYTHIA_SEEDS, [seed, which, index])

"""Make a data set: generate chunks in worker processes, resume after an interrupt, and cut into splits."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sbilib.errors import DataError, ParameterError, check_count
from sbilib.simulation.chunks import Chunk, ChunkStore, EventSource, PythiaSource, make_chunk
from sbilib.simulation.files import (
    MANIFEST,
    EventFile,
    Manifest,
    read_manifest,
    write_events,
    write_manifest,
)
from sbilib.simulation.generator import PROCESSES
from sbilib.simulation.sample import SampleSettings, SampleSizes, Settings
from sbilib.simulation.workers import worker_pool

__all__ = ["PARTS", "generate_sample", "missing_events"]

PARTS = "parts"
"""Name of the folder of the chunks inside that of the data set, while it is unfinished."""

_FIRST_GUESS = 0.3
_PATIENCE = 20
_ROWS_PER_FILE = 1_000_000


def generate_sample(
    folder: Path,
    sizes: SampleSizes,
    settings: Settings | None = None,
    *,
    workers: int = 1,
    source: EventSource | None = None,
    progress: bool = False,
    say: Callable[[str], None] | None = None,
) -> Manifest:
    """Generate a data set, or finish one that was interrupted.

    The same sizes and settings give the same files, byte for byte, whatever the number of workers and however
    often the program was ended on the way.

    Args:
        folder: where to; it may hold chunks of an earlier, interrupted call.
        sizes: events in each split.
        settings: what fixes the events; the default settings of the Higgs case if None.
        workers: processes that generate; with 1 this process does.
        source: where particle-level events come from; None is Pythia in the Higgs case.
        progress: show a progress bar.
        say: called with a line of text before a step that takes long.

    Returns:
        The manifest, which is written last of all.

    Raises:
        DependencyError: if Pythia is needed and not installed.
        ParameterError: if settings of another kind of data set come without a source.
        DataError: if the folder holds another data set, or a file cannot be written.
        SbilibError: if a worker process dies.
    """
    settings = settings or SampleSettings()
    check_count("workers", workers, low=1)
    if (folder / MANIFEST).is_file():
        return _finished_before(folder, sizes, settings)
    store = ChunkStore(folder / PARTS, settings.table_format)
    if source is None:
        source = _pythia(settings, store)
    plan = _Plan(sizes, settings, store)
    if plan.next_chunk(frozenset()) is not None:
        if say is not None and source.must_prepare():
            say("making the library of tau decays, which takes some minutes")
        source.prepare()
        _generate(plan, source, workers=workers, progress=progress)
    manifest = _merge(folder, plan)
    shutil.rmtree(store.folder)
    return manifest


def _pythia(settings: Settings, store: ChunkStore) -> EventSource:
    if not isinstance(settings, SampleSettings):
        raise ParameterError(f"settings of {settings.table_format.sample} need a source of events; give one")
    return PythiaSource(settings, store.folder / "tau-decays.npz")


def missing_events(folder: Path, sizes: SampleSizes, settings: Settings) -> dict[str, int]:
    """How many events of each component are still to be generated into an unfinished folder.

    Raises:
        DataError: if the folder holds chunks of another data set.
    """
    plan = _Plan(sizes, settings, ChunkStore(folder / PARTS, settings.table_format))
    return {name: max(sizes.total(name) - plan.rows(name), 0) for name in PROCESSES}


class _Plan:
    """Which chunks are there and which one is needed next."""

    def __init__(self, sizes: SampleSizes, settings: Settings, store: ChunkStore) -> None:
        self.sizes, self.settings, self.store = sizes, settings, store
        self.finished = {name: store.finished(name, settings.digest) for name in PROCESSES}

    def rows(self, component: str) -> int:
        """Events in the finished chunks of a component."""
        return sum(chunk.rows for chunk in self.finished[component].values())

    def add(self, chunk: Chunk) -> None:
        """Note that a chunk is finished."""
        self.finished[chunk.component][chunk.index] = chunk

    def next_chunk(self, running: frozenset[tuple[str, int]]) -> tuple[str, int] | None:
        """Component and number of the chunk to generate next, or None if enough are finished or running.

        The one lowest number that is free, so that without interrupts the finished chunks have no gaps.
        """
        wanting = {name: self._wanting(name, running) for name in PROCESSES}
        name = max(wanting, key=lambda name: wanting[name])
        if wanting[name] <= 0:
            return None
        taken = {index for component, index in running if component == name} | set(self.finished[name])
        return name, next(index for index in range(len(taken) + 1) if index not in taken)

    def _wanting(self, component: str, running: frozenset[tuple[str, int]]) -> float:
        """Expected number of events that are still wanting once the running chunks are finished."""
        chunks = self.finished[component]
        taken = set(chunks) | {index for name, index in running if name == component}
        per_chunk = self.settings.chunk_size * _FIRST_GUESS
        if len(chunks) >= _PATIENCE and self.rows(component) == 0:
            raise DataError(
                f"none of {len(chunks)} chunks of {component} has an event that passes the detector; look at "
                "the thresholds of the settings"
            )
        if chunks:
            per_chunk = max(self.rows(component) / len(chunks), 1.0)
        # Only what lies before the first gap is sure to be used.
        gap = next(index for index in range(len(taken) + 1) if index not in taken)
        used = sum(chunks[index].rows if index in chunks else per_chunk for index in range(gap))
        return self.sizes.total(component) - used

    def used(self, component: str) -> list[Chunk]:
        """The first chunks that hold enough events together."""
        chosen: list[Chunk] = []
        rows = 0
        while rows < self.sizes.total(component):
            chosen.append(self.finished[component][len(chosen)])
            rows += chosen[-1].rows
        return chosen


def _generate(plan: _Plan, source: EventSource, *, workers: int, progress: bool) -> None:
    total = sum(plan.sizes.total(name) for name in PROCESSES)
    initial = min(sum(plan.rows(name) for name in PROCESSES), total)
    with tqdm(total=total, initial=initial, unit="event", unit_scale=True, disable=not progress) as bar:

        def note(chunk: Chunk) -> None:
            plan.add(chunk)
            bar.update(min(chunk.rows, total - bar.n))

        if workers == 1:
            while (task := plan.next_chunk(frozenset())) is not None:
                note(make_chunk(source, plan.settings, plan.store, *task))
        else:
            _generate_in_workers(plan, source, workers, note)


def _generate_in_workers(
    plan: _Plan, source: EventSource, workers: int, note: Callable[[Chunk], None]
) -> None:
    running: dict[Future[Chunk], tuple[str, int]] = {}
    with worker_pool(workers) as pool:
        while True:
            while len(running) < workers:
                task = plan.next_chunk(frozenset(running.values()))
                if task is None:
                    break
                running[pool.submit(make_chunk, source, plan.settings, plan.store, *task)] = task
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                del running[future]
                note(future.result())


def _merge(folder: Path, plan: _Plan) -> Manifest:
    """Cut the events of the chunks, in their order, into the tables of the splits, and write the manifest."""
    for leftover in folder.glob(".*.part"):
        leftover.unlink(missing_ok=True)
    files: list[EventFile] = []
    used = {name: plan.used(name) for name in PROCESSES}
    common = plan.settings.common_efficiency
    for component, chunks in used.items():
        events = _EventQueue(plan.store, chunks)
        for split in plan.sizes.splits:
            files += _write_split(folder, component, split, events, plan)
    manifest = Manifest(
        files=tuple(files),
        **plan.settings.manifest_fields,
        settings={**plan.settings.facts(), "cut_flow": {name: _cut_flow(used[name]) for name in used}},
        versions=_versions(used),
        seeds={"sample": plan.settings.seed, "chunks": {name: len(chunks) for name, chunks in used.items()}},
        cross_sections={
            name: float(np.mean([chunk.cross_section for chunk in chunks]))
            for name, chunks in used.items()
            if chunks
        },
        efficiencies={n: _efficiency(chunks) * common for n, chunks in used.items() if chunks},
    )
    write_manifest(folder, manifest)
    return manifest


class _EventQueue:
    """The events of a list of chunks one after another, a few chunks in memory at a time."""

    def __init__(self, store: ChunkStore, chunks: list[Chunk]) -> None:
        self._parts = (store.events(chunk) for chunk in chunks)
        self._rest: NDArray[np.float32] | None = None

    def take(self, n_events: int) -> NDArray[np.float32]:
        """The next ``n_events``."""
        taken = [] if self._rest is None else [self._rest]
        while sum(map(len, taken)) < n_events:
            taken.append(next(self._parts))
        events = np.concatenate(taken)
        self._rest = events[n_events:]
        return events[:n_events]


def _write_split(
    folder: Path, component: str, split: str, events: _EventQueue, plan: _Plan
) -> list[EventFile]:
    n_events = plan.sizes.of(component, split)
    n_files = -(-n_events // _ROWS_PER_FILE)
    names = [f"{component}-{split}.parquet"]
    if n_files > 1:
        names = [f"{component}-{split}-part{number + 1:02d}.parquet" for number in range(n_files)]
    starts = range(0, n_events, _ROWS_PER_FILE)
    return [
        write_events(
            folder,
            name,
            events.take(min(_ROWS_PER_FILE, n_events - start)),
            component=component,
            split=split,
            table_format=plan.store.table_format,
        )
        for name, start in zip(names, starts, strict=False)
    ]


def _cut_flow(chunks: list[Chunk]) -> dict[str, int]:
    steps = chunks[0].cut_flow if chunks else {}
    return {step: sum(chunk.cut_flow[step] for chunk in chunks) for step in steps}


def _efficiency(chunks: list[Chunk]) -> float:
    counts = list(_cut_flow(chunks).values())
    return counts[-1] / counts[0] if counts[0] else 0.0


def _versions(used: Mapping[str, list[Chunk]]) -> dict[str, str]:
    """The versions that made the chunks; more than one, if an interrupted run went on after an upgrade."""
    found: dict[str, set[str]] = {"sbilib": {importlib.metadata.version("sbilib")}}
    for chunk in (chunk for chunks in used.values() for chunk in chunks):
        for program, version in chunk.versions.items():
            found.setdefault(program, set()).add(version)
    return {program: ", ".join(sorted(versions)) for program, versions in found.items()}


def _finished_before(folder: Path, sizes: SampleSizes, settings: Settings) -> Manifest:
    """The manifest of a finished folder, if it is what is asked for."""
    manifest = read_manifest(folder, settings.table_format)
    kept = {key: value for key, value in manifest.settings.items() if key != "cut_flow"}
    same = kept == settings.facts() and all(
        manifest.rows(component, split) == sizes.of(component, split)
        for component in PROCESSES
        for split in sizes.splits
    )
    if not same:
        raise DataError(
            f"{folder} already holds a finished data set of other sizes or settings; choose another folder, "
            "or delete it first"
        )
    # An earlier run may have been ended between the manifest and the clearing of the chunks.
    shutil.rmtree(folder / PARTS, ignore_errors=True)
    return manifest

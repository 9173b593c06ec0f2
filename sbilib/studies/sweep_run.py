"""Run a sweep chunk by chunk, and gather its results.

Each chunk trains its pairs as one stack, measures each pair on the test sets of its seed, and is kept before
the next one begins.  If the device runs out of memory, the stack is halved until it fits.
"""

from __future__ import annotations

import platform
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from sbilib.components import ComponentDensities
from sbilib.errors import CheckpointError, DeviceError
from sbilib.models.flow import ConditionalFlow
from sbilib.problems import COMPONENTS
from sbilib.studies.metrics import METRICS
from sbilib.studies.pairs import FittedPair
from sbilib.studies.sweep import TRUTH, Chunk, Sweep, SweepModel
from sbilib.studies.sweep_files import SweepFolder, SweepResult, code_of_sweeps, find_result

__all__ = ["METRIC_COLUMNS", "SweepRunner", "finished_or_run", "flow_swaps", "gather"]

METRIC_COLUMNS = (
    *METRICS,
    *(f"{parameter} {kind}, crossing" for kind in ("coverage", "mean width") for parameter in ("mu", "z")),
    "mu open",
    "z open",
)
"""All metrics of a row of the table."""
_LOSSES = tuple(f"{component} {kind} loss" for component in COMPONENTS for kind in ("training", "validation"))
_COUNTS = tuple(f"{component} swaps" for component in COMPONENTS)
# Losses of single batches scatter, so a final loss is the mean of the last ones.
_LAST_STEPS, _LAST_VALIDATIONS = 100, 10
_NAMED = 20  # chunks that a message lists one by one
_LIBRARIES = ("torch", "numpy", "scipy", "pandas", "pyarrow")

Fit = Callable[..., Sequence[FittedPair]]
Evaluate = Callable[..., pd.DataFrame]


class SweepRunner:
    """Runs chunks of one sweep and keeps them.

    Args:
        sweep: what to run.
        folder: where chunks and checkpoints are kept; below ``SBILIB_CACHE`` by default.
        fit: trains pairs, as :func:`sbilib.studies.stacks.fit_pairs` does.
        evaluate: measures a pair, as :func:`sbilib.studies.evaluation.evaluate_pair` does.
        say: takes messages of one line; a warning by default.
        device_name: what to record as the device, in words.
        progress: show a progress bar with the time left.
    """

    def __init__(
        self,
        sweep: Sweep,
        *,
        folder: Path | None = None,
        fit: Fit | None = None,
        evaluate: Evaluate | None = None,
        say: Callable[[str], None] = warnings.warn,
        device_name: str | None = None,
        progress: bool = False,
    ) -> None:
        self.sweep = sweep
        self.folder = SweepFolder(sweep, folder)
        self._fit = fit or _fit_pairs()
        self._evaluate = evaluate or _evaluate_pair()
        self._say = say
        self._device_name = device_name or _device_name(sweep.device)
        self._progress = progress
        self._at_once: int | None = None

    def run(self, part: tuple[int, int] = (1, 1), *, fresh: bool = False) -> None:
        """Run the chunks of one part that are not finished yet.

        Args:
            part: which part, and of how many, as in :meth:`Sweep.part`.
            fresh: forget everything that an earlier run has kept.

        Raises:
            ParameterError: if there is no such part.
            CheckpointError: if the folder belongs to another sweep or version of the code, or is full.
            DeviceError: if a single pair does not fit into the memory of the device.
        """
        chunks = self.sweep.part(*part)
        self.folder.prepare(fresh=fresh)
        states = {chunk.number: self.folder.state(chunk) for chunk in chunks}
        damaged = [str(number) for number, state in states.items() if state == "damaged"]
        if damaged:
            self._say(f"damaged files of chunk {', '.join(damaged)} do not match their checksums: made again")
        done = sum(len(chunk.models) for chunk in chunks if states[chunk.number] == "finished")
        bar = tqdm(
            total=sum(len(chunk.models) for chunk in chunks),
            initial=done,
            desc=self.sweep.name,
            unit="model",
            disable=not self._progress,
        )
        with bar:
            for chunk in chunks:
                if states[chunk.number] == "finished":
                    continue
                # Another process may have made it meanwhile.
                if self.folder.state(chunk) != "finished":
                    self.run_chunk(chunk, bar)
                else:
                    bar.update(len(chunk.models))

    def run_chunk(self, chunk: Chunk, bar: Any = None) -> None:
        """Train, measure and keep one chunk."""
        if chunk.method == TRUTH:
            pairs: Sequence[FittedPair | None] = [None] * len(chunk.models)
        else:
            pairs = self._train(chunk)
        started, tables, n_measured = time.perf_counter(), [], 0
        for number, (model, pair) in enumerate(zip(chunk.models, pairs, strict=True)):
            rows = self.folder.kept_rows(chunk, number)
            if rows is None:
                rows, n_measured = self._rows(chunk, model, pair), n_measured + 1
                self.folder.keep_rows(chunk, number, rows)
            tables.append(rows)
            if bar is not None:
                bar.update(1)
        # Models that an earlier process has measured count with the mean time of the others.
        share = n_measured / len(chunk.models)
        record = {
            "training_seconds": sum(pair.seconds for pair in pairs if pair is not None),
            "evaluation_seconds": (time.perf_counter() - started) / share if share else 0.0,
            "device": self._device_name,
        }
        self.folder.write(chunk, pd.concat(tables, ignore_index=True), record)

    def _train(self, chunk: Chunk) -> list[FittedPair]:
        """The pairs of a chunk, in as few stacks as fit into the memory of the device."""
        size = min(self._at_once or len(chunk.models), len(chunk.models))
        pairs: list[FittedPair] = []
        while len(pairs) < len(chunk.models):
            models = chunk.models[len(pairs) : len(pairs) + size]
            # The name says which models are in it, so a resumed run finds the checkpoint of the same stack.
            name = f"{len(pairs):04d}-{len(pairs) + len(models):04d}"
            try:
                pairs += self._fit_stack(chunk, models, self.folder.checkpoints(chunk) / name)
            except torch.OutOfMemoryError as error:
                if len(models) == 1:
                    raise DeviceError(
                        f"{chunk.label}: one pair alone does not fit into the memory of the device; "
                        "close what else uses it, or use device='cpu'"
                    ) from error
                self._out_of_memory(len(models))
                size = (len(models) + 1) // 2
        return pairs

    def _fit_stack(self, chunk: Chunk, models: Sequence[SweepModel], folder: Path) -> Sequence[FittedPair]:
        return self._fit(
            self.sweep.problem(chunk.case),
            self.sweep.recipe_of(chunk.case, chunk.method),
            seeds=[model.seed for model in models],
            learning_rates=[model.learning_rate for model in models],
            device=self.sweep.device,
            progress=self._progress,
            checkpoint_folder=folder,
            # The description decides what is trained together, never the memory that happens to be free.
            members_at_once=2 * len(models),
        )

    def _out_of_memory(self, size: int) -> None:
        if self._at_once is None:
            self._say(
                f"the device ran out of memory with {size} pairs at once: going on with half of them, and "
                "again half if needed"
            )
        self._at_once = (size + 1) // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _rows(self, chunk: Chunk, model: SweepModel, pair: FittedPair | None) -> pd.DataFrame:
        """A row per test set of one model."""
        sweep = self.sweep
        test_sets = sweep.test_sets_of(chunk.case, model.seed)
        facts = {
            "case": chunk.case,
            "method": chunk.method,
            "recipe": "exact" if pair is None else sweep.recipe,
            "learning_rate": model.learning_rate,
            "seed": model.seed,
            **_training_facts(pair),
        }
        exact = sweep.problem(chunk.case)
        if pair is not None and pair.diverged:
            measured = pd.DataFrame(
                [
                    {"test_set": number, "mu": test_set.signal_ratio, "z": test_set.nuisance}
                    for number, test_set in enumerate(test_sets)
                ]
            )
        else:
            densities: ComponentDensities = exact if pair is None else pair.densities
            measured = self._evaluate(
                densities,
                test_sets,
                exact=exact,
                n_bootstrap=sweep.n_bootstrap,
                set_size=sweep.set_size,
                seed=sweep.bootstrap_seed(chunk.case, model.seed),
                overlaps=True,
                grid=sweep.grid_of(chunk.case),
            )
        measured = measured.reindex(columns=["test_set", "mu", "z", *METRIC_COLUMNS])
        return _typed(measured.assign(**facts)[[*facts, *measured.columns]])


def flow_swaps(model: object) -> int | None:
    """Times that the random permutations of a flow swap two features between layers; None if it has none.

    With none, one feature is modeled with no dependence on the nuisance parameter.
    """
    if (
        not isinstance(model, ConditionalFlow)
        or model.config.ordering != "random"
        or model.config.features != 2
    ):
        return None
    return int((model.permutations[:-1, 0] == 1).sum())


def gather(sweep: Sweep, folder: Path | None = None) -> SweepResult:
    """All chunks of a sweep as one table.

    Raises:
        CheckpointError: if chunks are missing or damaged; the message names them.
    """
    work = SweepFolder(sweep, folder)
    work.check()
    chunks = sweep.chunks()
    open_chunks = [(chunk, state) for chunk in chunks if (state := work.state(chunk)) != "finished"]
    if open_chunks:
        listed = [f"{chunk.number} ({chunk.method}, {chunk.case}: {state})" for chunk, state in open_chunks]
        rest = [f"and {len(listed) - _NAMED} more"] if len(listed) > _NAMED else []
        names = ", ".join(listed[:_NAMED] + rest)
        raise CheckpointError(
            f"{len(open_chunks)} of {len(chunks)} chunks of {sweep.name} are not finished: {names}; "
            "run those parts again, then gather"
        )
    parts = [work.read(chunk) for chunk in chunks]
    manifest = {
        "sweep": sweep.to_dict(),
        "code": code_of_sweeps(),
        "earlier_code": work.earlier_code,
        "seeds": list(sweep.seeds),
        "versions": _versions(),
        "devices": sorted({str(record["device"]) for _, record in parts}),
        "chunks": [
            {
                "chunk": chunk.number,
                "case": chunk.case,
                "method": chunk.method,
                "models": len(chunk.models),
                "training_seconds": record["training_seconds"],
                "evaluation_seconds": record["evaluation_seconds"],
            }
            for chunk, (_, record) in zip(chunks, parts, strict=True)
        ],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return SweepResult(pd.concat([table for table, _ in parts], ignore_index=True), manifest)


def finished_or_run(sweep: Sweep, results: Path, *, progress: bool = False) -> SweepResult:
    """The results of a sweep: those in ``results`` or a folder right below it, else from a run of it.

    Args:
        sweep: what is asked for.
        results: where finished results lie; nothing is written there.
        progress: show a progress bar.

    Raises:
        CheckpointError: if the chunks of a run cannot be kept.
    """
    found = find_result(results, sweep)
    if found is not None:
        return found
    SweepRunner(sweep, progress=progress).run()
    return gather(sweep)


def _training_facts(pair: FittedPair | None) -> dict[str, Any]:
    """What the training left, as columns of the table."""
    facts: dict[str, Any] = {"diverged": pair is not None and pair.diverged}
    for component in COMPONENTS:
        training = None if pair is None else pair.training[component]
        model = None if pair is None else getattr(pair.densities, component)
        facts[f"{component} swaps"] = flow_swaps(model)
        for kind, last in (("training", _LAST_STEPS), ("validation", _LAST_VALIDATIONS)):
            losses = None if training is None else getattr(training, f"{kind}_loss")[-last:]
            facts[f"{component} {kind} loss"] = None if losses is None else float(losses.mean())
    return facts


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """Every column in the one type it has in all chunks, so that tables of chunks fit together."""
    numbers = ("learning_rate", *_LOSSES, "mu", "z", *METRIC_COLUMNS)
    types = {"diverged": "bool", "seed": "int64", "test_set": "int64", **dict.fromkeys(_COUNTS, "Int64")}
    return table.astype({**dict.fromkeys(numbers, "float64"), **types})


def _fit_pairs() -> Fit:
    from sbilib.studies.stacks import fit_pairs

    return fit_pairs


def _evaluate_pair() -> Evaluate:
    from sbilib.studies.evaluation import evaluate_pair

    return evaluate_pair


def _device_name(device: str) -> str:
    if device != "cpu" and torch.cuda.is_available():
        return f"CUDA: {torch.cuda.get_device_name()}"
    return f"CPU: {platform.machine()}"


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in _LIBRARIES}}

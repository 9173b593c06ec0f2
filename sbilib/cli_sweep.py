"""The ``sbilib sweep`` commands: run a sweep whole or in parts, gather its table, and see how far it is.

A sweep is named by its study: its parameters are those of the study in one of its parameter sets, so that a
page and the command line always mean the same sweep.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sbilib.errors import CheckpointError, ParameterError, StudyError

if TYPE_CHECKING:
    from sbilib.studies.sweep import Sweep

__all__ = ["app", "sweep_of_study"]

_INTERRUPTED, _TERMINATED = 130, 143
_SWEEP_PARAMETERS = frozenset({"seed", "n_models", "learning_rates", "n_steps"})

app = typer.Typer(
    no_args_is_help=True,
    help="Train and measure many models: in one go, or in parts that a batch system runs in parallel.",
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the sweep; see: sbilib sweep list")]
SetName = Annotated[str, typer.Option("--set", help="Parameter set: smoke, standard or full.")]
Out = Annotated[Path | None, typer.Option(help="Folder for the results; results/NAME/SET by default.")]


@contextlib.contextmanager
def _resumable() -> Iterator[None]:
    """Say after an interrupt that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        _say("interrupted: finished chunks and checkpoints are kept, the same command goes on from there")
        # SIGTERM comes as a kind of KeyboardInterrupt of its own.
        raise typer.Exit(_INTERRUPTED if type(interrupt) is KeyboardInterrupt else _TERMINATED) from None


def _say(message: str) -> None:
    print(f"sbilib: {message}", file=sys.stderr, flush=True)


def sweep_of_study(name: str, set_name: str, root: Path) -> Sweep:
    """The sweep that a study describes in one of its parameter sets.

    Raises:
        StudyError: if there is no such study or set, or the study is not a sweep.
        ParameterError: if the parameters do not make a valid sweep.
    """
    from sbilib.runs import load_study
    from sbilib.studies.sweep import Sweep

    values: dict[str, Any] = {**load_study(name, root).values(set_name), "name": name}
    if not set(values) >= _SWEEP_PARAMETERS:
        raise StudyError(f"study {name!r} is not a sweep; the sweeps are: {', '.join(_sweep_names(root))}")
    known = {"seed", "n_models", *(field.name for field in fields(Sweep))}
    return Sweep.with_models(**{key: value for key, value in values.items() if key in known})


def _sweep_names(root: Path) -> list[str]:
    from sbilib.runs import load_studies

    return [
        study.name
        for study in load_studies(root)
        if {parameter.name for parameter in study.parameters} >= _SWEEP_PARAMETERS
    ]


def _asked(ctx: typer.Context, name: str, set_name: str, out: Path | None) -> tuple[Sweep, Path]:
    """The sweep and the folder of its results."""
    from sbilib.runs import find_root

    root = find_root(ctx.obj)
    return sweep_of_study(name, set_name, root), out or root / "results" / name / set_name


def _part(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None:
        raise ParameterError(f"--chunk {text}: expected I/N, for example --chunk 2/16")
    return int(match[1]), int(match[2])


@app.command("list")
def list_sweeps(ctx: typer.Context) -> None:
    """List the sweeps with their sizes."""
    from rich.table import Table

    from sbilib.runs import SET_NAMES, find_root

    root = find_root(ctx.obj)
    table = Table(header_style="bold")
    for column in ("sweep", "set", "pairs of models", "steps of each", "chunks"):
        table.add_column(column, overflow="fold")
    for name in _sweep_names(root):
        for set_name in SET_NAMES:
            sweep = sweep_of_study(name, set_name, root)
            pairs = len(sweep.cases) * len(sweep.methods) * len(sweep.seeds) * len(sweep.learning_rates)
            table.add_row(name, set_name, str(pairs), str(sweep.n_steps), str(len(sweep.chunks())))
    _print(table)


@app.command()
def run(
    ctx: typer.Context,
    name: Name,
    set_name: SetName = "standard",
    chunk: Annotated[
        str | None, typer.Option(metavar="I/N", help="Run only the I-th of N parts, without gathering.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what earlier runs have left.")] = False,
    out: Out = None,
) -> None:
    """Run a sweep, or one part of it; it goes on where an earlier run was stopped."""
    from sbilib.runs.files import check_writable
    from sbilib.runs.provenance import device_name
    from sbilib.studies.sweep_files import read_result
    from sbilib.studies.sweep_run import SweepRunner

    sweep, folder = _asked(ctx, name, set_name, out)
    part = (1, 1) if chunk is None else _part(chunk)
    sweep.part(*part)
    if fresh and chunk is not None:
        raise ParameterError(
            f"--fresh would delete what other parts have made; say once: sbilib sweep clear {name} "
            f"--set {set_name}, then run the parts"
        )
    if not fresh and read_result(folder, sweep) is not None:
        print(f"{name} is finished: {folder / 'table.parquet'} (--fresh makes it anew)")
        return
    check_writable(folder)
    device = device_name({"device": sweep.device})
    with _resumable():
        SweepRunner(sweep, say=_say, device_name=device, progress=True).run(part, fresh=fresh)
        if chunk is None:
            _gather(sweep, folder)
        else:
            print(f"part {chunk} is finished; once all are: sbilib sweep gather {name} --set {set_name}")


@app.command()
def gather(ctx: typer.Context, name: Name, set_name: SetName = "standard", out: Out = None) -> None:
    """Put the finished parts of a sweep together; says what is missing."""
    from sbilib.studies.sweep_files import read_result

    sweep, folder = _asked(ctx, name, set_name, out)
    read_result(folder, sweep)
    _gather(sweep, folder)


def _gather(sweep: Sweep, folder: Path) -> None:
    from sbilib.studies import sweep_files, sweep_run

    sweep_files.write_result(folder, sweep_run.gather(sweep))
    print(f"wrote {folder / 'table.parquet'}")


@app.command()
def status(ctx: typer.Context, name: Name, set_name: SetName = "standard", out: Out = None) -> None:
    """Show how many chunks are finished, and whether the results are there."""
    from rich.table import Table

    from sbilib.studies.sweep_files import SweepFolder, read_result

    sweep, folder = _asked(ctx, name, set_name, out)
    try:
        found = "finished" if read_result(folder, sweep) is not None else "not gathered"
        SweepFolder(sweep).check()
    except CheckpointError as error:
        found = str(error)
    work = SweepFolder(sweep)
    states = ("finished", "begun", "missing", "damaged")
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for chunk in sweep.chunks():
        row = counts.setdefault((chunk.case, chunk.method), dict.fromkeys(states, 0))
        row[work.state(chunk)] += 1
    table = Table(title="chunks", title_justify="left", header_style="bold")
    for column in ("case", "method", *states):
        table.add_column(column)
    for key, row in counts.items():
        table.add_row(*key, *(str(row[state]) for state in states))
    _print(table)
    print(f"results: {found}")


@app.command()
def clear(ctx: typer.Context, name: Name, set_name: SetName = "standard") -> None:
    """Delete the chunks and checkpoints of a sweep; gathered results stay."""
    from sbilib.studies.sweep_files import SweepFolder

    sweep, _ = _asked(ctx, name, set_name, None)
    SweepFolder(sweep).clear()


@app.command()
def accept(ctx: typer.Context, name: Name, set_name: SetName = "standard", out: Out = None) -> None:
    """Take what other code has made as if made by this code: for changes that cannot change a result.

    The record of the results keeps the digests of the code that really made them.
    """
    from sbilib.studies.sweep_files import accept_code, work_folder

    sweep, folder = _asked(ctx, name, set_name, out)
    changed = [accept_code(place) for place in (work_folder(sweep), folder)]
    print("accepted" if any(changed) else "nothing to accept: all was made by this code, or there is nothing")


def _print(table: object) -> None:
    from rich.console import Console

    (Console() if sys.stdout.isatty() else Console(width=200)).print(table)

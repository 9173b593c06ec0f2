"""The ``sbilib`` command: list, inspect, run and publish the studies of the book."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from sbilib import __version__, cli_results, cli_simulate, cli_sweep
from sbilib.errors import ParameterError, SbilibError, StudyError

__all__ = ["app"]

_INTERRUPTED = 130
_TERMINATED = 143
_USAGE = 2


class _Termination(KeyboardInterrupt):
    """The process was asked to end by SIGTERM."""


@contextlib.contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Let SIGTERM unwind the program like Ctrl-C, so that kernels end and temporary files go."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Termination

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _OneLineErrors(TyperGroup):
    """Turn the errors a user can cause into one line on standard error and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; 1 for a run that failed, 2 for a wrong request, 130 or 143 for an interrupt."""
        try:
            with _termination_as_interrupt():
                return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            _say_error("interrupted: nothing was written, earlier results are as they were")
            raise typer.Exit(_TERMINATED if isinstance(interrupt, _Termination) else _INTERRUPTED) from None
        except SbilibError as error:
            from sbilib.runs import RunError

            _say_error(str(error))
            usage = isinstance(error, StudyError | ParameterError) and not isinstance(error, RunError)
            raise typer.Exit(_USAGE if usage else 1) from None
        except BrokenPipeError:
            raise
        except OSError as error:
            _say_error(str(error))
            raise typer.Exit(1) from None


def _say_error(message: str) -> None:
    print(f"sbilib: {message}", file=sys.stderr, flush=True)


app = typer.Typer(
    cls=_OneLineErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Run and publish the studies of the book.",
)
app.add_typer(cli_sweep.app, name="sweep")
app.add_typer(cli_simulate.app, name="simulate")
app.add_typer(cli_results.app, name="results")

StudyName = Annotated[str, typer.Argument(metavar="STUDY", help="Name of the study; see: sbilib list")]
SetName = Annotated[str, typer.Option("--set", help="Parameter set: smoke, standard or full.")]


def _version(asked: bool) -> None:
    if asked:
        print(f"sbilib {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    ctx: typer.Context,
    root: Annotated[
        Path | None,
        typer.Option(
            envvar="SBILIB_ROOT", help="Folder of the repository, if the current one lies elsewhere."
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    ctx.obj = root


def _root(ctx: typer.Context) -> Path:
    from sbilib.runs import find_root

    return find_root(ctx.obj)


def _console() -> Console:
    """A console that neither cuts nor wraps when the output goes to a file or a pipe."""
    return Console() if sys.stdout.isatty() else Console(width=200)


def _table(title: str, columns: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


@app.command("list")
def list_studies(ctx: typer.Context) -> None:
    """List the studies."""
    from sbilib.runs import load_studies

    table = _table("", ["study", "title", "parameters"])
    for study in load_studies(_root(ctx)):
        table.add_row(study.name, study.title, str(len(study.parameters)))
    _console().print(table)


@app.command()
def params(ctx: typer.Context, study_name: StudyName) -> None:
    """Show what can be set in a study, with the value in each parameter set."""
    from sbilib.runs import SET_NAMES, format_value, load_study

    study = load_study(study_name, _root(ctx))
    columns = ["name", "type", "unit", "default", *SET_NAMES, "meaning", "effect on cost"]
    table = _table(f"{study.name}: {study.title}", columns)
    values = {name: study.values(name) for name in SET_NAMES}
    for parameter in study.parameters:
        in_sets = [format_value(values[name][parameter.name]) for name in SET_NAMES]
        default = format_value(parameter.default)
        cells = [parameter.name, parameter.type, parameter.unit, default, *in_sets]
        table.add_row(*cells, parameter.meaning, parameter.cost)
    _console().print(table)


@app.command()
def run(
    ctx: typer.Context,
    study_name: StudyName,
    set_name: SetName = "standard",
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="Set one parameter; may be repeated."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the executed notebook.")] = Path("out"),
) -> None:
    """Execute a study and write the notebook with its outputs to a folder."""
    from sbilib.runs import load_study, run_study

    study = load_study(study_name, _root(ctx))
    print(f"wrote {run_study(study, set_name, _overrides(parameter or []), out_dir=out)}")


def _overrides(assignments: list[str]) -> dict[str, str]:
    overrides: dict[str, str] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name.strip():
            raise ParameterError(f"-p {assignment}: expected NAME=VALUE, for example -p seed=3")
        overrides[name.strip()] = value
    return overrides


@app.command()
def publish(
    ctx: typer.Context,
    study_names: Annotated[list[str] | None, typer.Argument(metavar="[STUDY]...", help="Studies.")] = None,
    set_name: SetName = "standard",
    every: Annotated[bool, typer.Option("--all", help="Publish every study anew.")] = False,
    missing: Annotated[bool, typer.Option("--missing", help="Publish what has no published run.")] = False,
    text_only: Annotated[
        bool, typer.Option("--text-only", help="Only bring the prose up to date; runs nothing.")
    ] = False,
) -> None:
    """Execute studies and write them to book/runs/, from which the book is built."""
    from sbilib.runs import load_study, publish_study, refresh_text

    root = _root(ctx)
    chosen = _chosen(root, study_names or [], every=every, missing=missing)
    studies = [load_study(name, root) for name in chosen]
    for study in studies:
        study.values(set_name)
    failures: list[SbilibError] = []
    for study in studies:
        try:
            path = refresh_text(study) if text_only else publish_study(study, set_name)
        except SbilibError as error:
            if len(studies) == 1:
                raise
            _say_error(str(error))
            failures.append(error)
        else:
            print(f"published {path.relative_to(root)}", flush=True)
    if failures:
        _say_error(f"{len(failures)} of {len(studies)} studies could not be published")
        raise typer.Exit(1)
    if missing:
        _say_what_is_there(root)


def _say_what_is_there(root: Path) -> None:
    """Tell a reader who is about to build the book which pages no longer match their sources."""
    from sbilib.runs import published_status, study_names

    stale = [name for name in study_names(root) if published_status(root, name).state == "stale"]
    print("every study has a published run in book/runs/")
    if stale:
        print(f"made by earlier versions of code or text: {', '.join(stale)} (why: sbilib status)")


def _chosen(root: Path, names: list[str], *, every: bool, missing: bool) -> list[str]:
    """The studies that the arguments of ``publish`` ask for."""
    from sbilib.runs import published_path, study_names

    if sum([bool(names), every, missing]) != 1:
        raise StudyError("name the studies to publish, or say --all or --missing")
    if every:
        return study_names(root)
    if missing:
        return [name for name in study_names(root) if not published_path(root, name).is_file()]
    return names


@app.command()
def status(
    ctx: typer.Context,
    check: Annotated[bool, typer.Option(help="Exit with 1 if a run is stale or missing.")] = False,
) -> None:
    """Say which published runs are current, which are stale, and why."""
    from sbilib.runs import published_status, study_names

    root = _root(ctx)
    published = [path.stem for path in (root / "book" / "runs").glob("*.ipynb")]
    table = _table("", ["study", "state", "set", "run at (UTC)", "why"])
    all_current = True
    for name in sorted({*study_names(root), *published}):
        state = published_status(root, name)
        all_current &= state.state == "current"
        record = state.provenance
        ran = (record.set, record.started_at.partition("+")[0]) if record else ("", "")
        table.add_row(name, state.state, *ran, "\n".join(state.reasons))
    _console().print(table)
    if check and not all_current:
        raise typer.Exit(1)


@app.command()
def convert(
    ctx: typer.Context,
    study_name: StudyName,
    out: Annotated[Path | None, typer.Option(help="File to write; STUDY.ipynb by default.")] = None,
) -> None:
    """Write a study as a plain notebook without outputs, for Jupyter or plain papermill."""
    from sbilib.runs import convert_study, load_study

    path = out or Path(f"{study_name}.ipynb")
    convert_study(load_study(study_name, _root(ctx)), path)
    print(f"wrote {path}")


@app.command()
def catalog(ctx: typer.Context) -> None:
    """Print the parameters of all studies as Markdown tables."""
    from sbilib.runs import parameter_catalog_markdown

    print(parameter_catalog_markdown(_root(ctx)), end="")


if __name__ == "__main__":
    app()

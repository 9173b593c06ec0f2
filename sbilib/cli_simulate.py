"""The ``sbilib simulate`` commands: generate events, and check files of events."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sbilib.errors import ParameterError

if TYPE_CHECKING:
    from sbilib.simulation.chunks import EventSource
    from sbilib.simulation.sample import SampleSizes, Settings

__all__ = ["app"]

_INTERRUPTED, _TERMINATED = 130, 143

app = typer.Typer(no_args_is_help=True, help="Generate events with Pythia 8, and check files of events.")


@app.command()
def higgs(
    signal: Annotated[int, typer.Option(metavar="N", help="Training events of H to tau tau.")] = 100_000,
    background: Annotated[int, typer.Option(metavar="N", help="Training events of Z to tau tau.")] = 100_000,
    workers: Annotated[int, typer.Option(metavar="W", help="Processes that generate.")] = 1,
    seed: Annotated[int, typer.Option(metavar="S", help="Seed of the data set.")] = 1,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder; by default $SBILIB_DATA/higgs-tau-tau or one in the user's cache."),
    ] = None,
    route: Annotated[
        str, typer.Option(help="fast (tau decays from a library) or plain (all in Pythia, slow).")
    ] = "fast",
) -> None:
    """Generate H to tau tau and Z to tau tau events; it goes on where an earlier run was stopped.

    Validation and five test sets come on top, in the proportions of the sample in the repository.
    """
    from sbilib.problems.higgs_data import cached_data_folder
    from sbilib.simulation.sample import SampleSettings, SampleSizes

    sizes = SampleSizes.from_training(signal, background)
    settings = SampleSettings.for_sizes(sizes, seed=seed, route=route)
    folder = output or cached_data_folder()
    _generate(folder, sizes, settings, workers=workers)
    print(f"use them with HiggsTauTau(data={str(folder)!r})")


@app.command("higgs-bsm")
def higgs_bsm(
    signal: Annotated[int, typer.Option(metavar="N", help="Training events of the heavy Higgs.")] = 20_000,
    background: Annotated[int, typer.Option(metavar="N", help="Training events of top pairs.")] = 100_000,
    workers: Annotated[int, typer.Option(metavar="W", help="Processes that generate.")] = 1,
    seed: Annotated[int, typer.Option(metavar="S", help="Seed of the data set.")] = 1,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder; by default $SBILIB_DATA/higgs-bsm or one in the user's cache."),
    ] = None,
) -> None:
    """Generate events of the heavy Higgs search; it goes on where an earlier run was stopped.

    Validation and reference events come on top, in the proportions of the sample in the repository.
    """
    from sbilib.problems.bsm_data import cached_bsm_folder
    from sbilib.simulation.bsm_sample import BsmSettings, BsmSizes, BsmSource

    sizes = BsmSizes.from_training(signal, background)
    settings = BsmSettings.for_sizes(sizes, seed=seed)
    folder = output or cached_bsm_folder()
    _generate(folder, sizes, settings, workers=workers, source=BsmSource(settings))
    print(f"use them with BsmFolder(Path({str(folder)!r}))")


def _generate(
    folder: Path,
    sizes: SampleSizes,
    settings: Settings,
    *,
    workers: int,
    source: EventSource | None = None,
) -> None:
    """Generate a data set, and say what there is, or what is missing after an interrupt."""
    from sbilib.simulation.generate import generate_sample, missing_events

    if sizes.total("signal") + sizes.total("background") == 0:
        raise ParameterError("--signal and --background are both 0; ask for some events")
    progress = sys.stderr.isatty()
    try:
        manifest = generate_sample(
            folder, sizes, settings, workers=workers, source=source, progress=progress, say=_say
        )
    except KeyboardInterrupt as interrupt:
        missing = missing_events(folder, sizes, settings)
        wanting = " and ".join(f"{number} {name} events" for name, number in missing.items())
        _say(f"interrupted: finished chunks are kept, {wanting} are missing; the same command goes on")
        # SIGTERM comes as a kind of KeyboardInterrupt of its own.
        raise typer.Exit(_INTERRUPTED if type(interrupt) is KeyboardInterrupt else _TERMINATED) from None
    n_events = sum(file.rows for file in manifest.files)
    print(f"{n_events} events in {len(manifest.files)} files: {folder}")


@app.command()
def check(folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a data set.")]) -> None:
    """Verify checksums, numbers of rows, columns and values, and that no event comes twice."""
    from sbilib.simulation.check import check_sample

    found = check_sample(folder)
    for (component, split), rows in found.rows.items():
        print(f"{component:10s} {split:10s} {rows:9d} events")
    print(f"{found.n_files} files are as the manifest says")


@app.command("compare-routes")
def compare_routes(
    plain: Annotated[int, typer.Option(metavar="N", help="Events of each component by the plain route.")] = 0,
    fast: Annotated[int, typer.Option(metavar="N", help="Events of each component by the fast route.")] = 0,
    component: Annotated[
        str, typer.Option(help="Compare signal or background alone; both if not given.")
    ] = "",
    plain_events: Annotated[
        Path | None, typer.Option(help="Folder of events of the plain route; by default one in the cache.")
    ] = None,
    fast_events: Annotated[
        Path | None, typer.Option(help="Folder of events of the fast route; by default one in the cache.")
    ] = None,
    workers: Annotated[int, typer.Option(metavar="W", help="Processes that generate.")] = 1,
    seed: Annotated[int, typer.Option(metavar="S", help="Seed of events and detector.")] = 1,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder of the results; by default results/higgs-events/standard for both."),
    ] = None,
) -> None:
    """Test whether both routes make the same events; with 0 events it takes those in the folders."""
    from sbilib.problems.base import COMPONENTS
    from sbilib.problems.higgs_data import cached_data_folder
    from sbilib.studies.higgs_routes import summarize_comparison, write_comparison
    from sbilib.studies.higgs_truth import make_truth, n_truth_files

    if component and output is None:
        raise ParameterError("--component needs --output, since the results of the book have both components")
    components = (component,) if component else COMPONENTS
    folders = {"plain": plain_events, "fast": fast_events}
    places = {
        route: folder or cached_data_folder().parent / f"higgs-routes-{route}-seed-{seed}"
        for route, folder in folders.items()
    }
    n_files: dict[str, int | None] = {}
    for route, n_events in (("plain", plain), ("fast", fast)):
        if n_events != 0:
            n_files[route] = n_truth_files(route, n_events)
            make_truth(
                places[route], route, n_events, components=components, seed=seed, workers=workers, say=_say
            )
    results = output or Path("results/higgs-events/standard")
    table = write_comparison(
        results, *places.values(), components=components, n_files=n_files, seed=seed, say=_say
    )
    for row in summarize_comparison(table).reset_index().to_dict("records"):
        names = f"{row['stage']:37s} {row['component']:10s}"
        print(f"{names} p of all {row['features']} features {row['p of all']:.3f}")
    print(results)


def _say(message: str) -> None:
    print(f"sbilib: {message}", file=sys.stderr, flush=True)

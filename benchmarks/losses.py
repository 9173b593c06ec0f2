"""Step time of each loss against binary cross-entropy, on the same events and network, in one run.

Run ``python -m benchmarks.losses`` (``--quick`` for fewer rounds, ``--threads 1`` for one core).  A batch of
2000 events, 500 of each blob, is at hand, and forward pass, loss, backward pass and Adam are timed.  The
baseline is binary cross-entropy with the varied backgrounds, which sends the same 2000 events through the
network as the losses of inference; without them it sends 1000, so its own ratio is about a half.  The last
columns are for a stack of nine networks.  Prints a table and writes ``benchmarks/results/losses.json``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch

from benchmarks._timing import compare, environment, print_table, write_json
from sbilib.differentiable import LOSSES, Logits, make_loss
from sbilib.models.summary import SummaryConfig
from sbilib.problems import GaussianBlobs
from sbilib.studies.summaries import SummaryStudy, SummaryTrainer

BASELINE = "bce_augmented"
SUMS: dict[str, dict[str, float]] = {"cls + p0": {"cls": 1.0, "p0": 1.0}}
BLOBS = GaussianBlobs.neos()


def training_step(what: str | dict[str, float], seeds: tuple[int, ...], n_bins: int) -> Callable[[], None]:
    """One optimizer step of a stack with the given loss."""
    study = SummaryStudy(make_loss(what), network=SummaryConfig.deep(), n_bins=n_bins)
    events = BLOBS.sample(study.batch_size // 4, seed=1)
    trainer = SummaryTrainer(study, events, events, seeds=seeds)
    (batch,) = trainer.batches(0)
    return lambda: trainer.step(batch)


def templates_only(what: str | dict[str, float], n_bins: int) -> Callable[[], None]:
    """The loss and its gradient from soft histograms on, without the network."""
    study = SummaryStudy(make_loss(what), n_bins=n_bins)
    events = BLOBS.sample(study.batch_size // 4, seed=1)
    trainer = SummaryTrainer(study, events, events, seeds=(1,))
    outputs = Logits(*(trainer.stack(each).detach().requires_grad_() for each in events))
    return lambda: trainer.value(outputs).sum().backward()  # type: ignore[no-untyped-call]


def measure(seeds: tuple[int, ...], n_bins: int, rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds of a step and its ratio to the baseline, by loss."""
    methods = {name: training_step(SUMS.get(name, name), seeds, n_bins) for name in (*LOSSES, *SUMS)}
    times = compare(methods, rounds=rounds, round_seconds=0.05)
    rows = {}
    for name in methods:
        # Ratio of the baseline to the loss, turned over: how many times as long a step takes.
        middle, low, high = (1 / ratio for ratio in times.speedup(name, BASELINE))
        rows[name] = {"ms": 1e3 * times.median(name), "ratio": middle, "low": high, "high": low}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rounds = 5 if options.quick else 15
    content: dict[str, Any] = {"quick": options.quick, "baseline": BASELINE, "tables": {}}
    for n_bins in (5, 20):
        one = measure((1,), n_bins, rounds)
        nine = measure(tuple(range(9)), n_bins, max(3, rounds // 3))
        alone_methods = {name: templates_only(SUMS.get(name, name), n_bins) for name in one}
        alone = compare(alone_methods, rounds=rounds, round_seconds=0.02)
        table = []
        for name, row in one.items():
            row["ms_without_network"] = 1e3 * alone.median(name)
            cells = [name, f"{row['ms']:.2f}", f"{row['ratio']:.2f}  ({row['low']:.2f}-{row['high']:.2f})"]
            cells += [
                f"{row['ms_without_network']:.2f}",
                f"{nine[name]['ms']:.1f}",
                f"{nine[name]['ratio']:.2f}",
            ]
            table.append(cells)
        columns = ["loss", "ms", "over BCE (quartiles)", "ms, no network", "ms, nine", "over BCE, nine"]
        print_table(f"{n_bins} bins, batches of 2000 events, network 128-128-128-128", columns, table)
        content["tables"][f"{n_bins} bins"] = {"one": one, "nine": nine}
    print(f"{environment()}\nwrote {write_json('losses', content)}")


if __name__ == "__main__":
    main()

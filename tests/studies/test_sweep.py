"""A sweep ends with the same table however often it is stopped, and refuses what does not belong to it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from sbilib.errors import CheckpointError, DeviceError, ParameterError
from sbilib.models.flow import ConditionalFlow, FlowConfig
from sbilib.studies import METRICS, sweep_files, sweep_run
from sbilib.studies.sweep import PUBLISHED_RATES, Sweep
from sbilib.studies.sweep_files import (
    SweepFolder,
    accept_code,
    find_result,
    read_result,
    work_folder,
    write_result,
)
from sbilib.studies.sweep_run import METRIC_COLUMNS, finished_or_run, flow_swaps, gather

from .sweep_examples import SWEEP, FakeFit, fake_evaluate, runner

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SBILIB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The table of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    runner(folder=folder / "work").run()
    write_result(folder, gather(SWEEP, folder / "work"))
    return (folder / "table.parquet").read_bytes()


def results_of(folder: Path) -> bytes:
    write_result(folder, gather(SWEEP))
    return (folder / "table.parquet").read_bytes()


# The description.


def test_published_sweep_is_that_of_the_source():
    sweep = Sweep.sluijter()
    assert (len(sweep.seeds), sweep.learning_rates, sweep.n_steps) == (30, PUBLISHED_RATES, 30_000)
    assert sweep.recipe_of("large", "flow").training.batch_size == 512
    assert len(sweep.test_sets_of("large", 1)) == 45
    assert sweep.grid_of("small").shape == (600, 300)


def test_every_model_is_in_one_chunk_and_every_chunk_in_one_part():
    chunks = SWEEP.chunks()
    trained = [(c.case, c.method, *model) for c in chunks for model in c.models if c.method != "truth"]
    assert len(trained) == len(set(trained)) == 2 * 2 * 2 * 3
    exact = [(c.case, model.seed) for c in chunks for model in c.models if c.method == "truth"]
    assert exact == [(case, seed) for case in ("large", "small") for seed in (1, 2, 3)]
    assert max(len(chunk.models) for chunk in chunks) == 4
    parts = [chunk for i in range(1, 5) for chunk in SWEEP.part(i, 4)]
    assert sorted(parts) == chunks


def test_description_survives_json_and_its_digest_tells_results_apart():
    again = Sweep.from_dict(json.loads(json.dumps(SWEEP.to_dict())))
    assert again == SWEEP
    assert again.digest == SWEEP.digest
    assert replace(SWEEP, device="cuda", name="other").digest == SWEEP.digest
    assert replace(SWEEP, n_steps=7).digest != SWEEP.digest


def test_models_of_one_seed_share_test_sets_and_those_of_two_share_nothing():
    first, again, second = (SWEEP.test_sets_of("large", seed)[0].events for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    seeds = {SWEEP.bootstrap_seed(case, seed) for case in ("large", "small") for seed in (1, 2)}
    assert len(seeds) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rates": ()}, "learning rates must not be empty"),
        ({"seeds": ()}, "seeds must not be empty"),
        ({"learning_rates": (1e-3, 0.001)}, "learning rates must differ, but 0.001 comes more than once"),
        ({"seeds": (4, 5, 4)}, "seeds must differ, but 4 comes"),
        ({"seeds": [1, 2]}, "seeds must be a tuple"),
        ({"seeds": (-1,)}, "seed must be an integer of at least 0"),
        ({"learning_rates": (0.0,)}, "learning rate must be"),
        ({"cases": ("huge",)}, "case must be one of 'large', 'small'"),
        ({"methods": ("truth",)}, "method must be one of 'flow', 'classifier'"),
        ({"recipe": "mine"}, "recipe must be one of"),
        ({"n_steps": 0}, "n_steps must be"),
        ({"name": "../up"}, "lower-case words"),
        ({"device": "tpu"}, "device must be one of"),
    ],
)
def test_bad_descriptions_are_refused(change, message):
    with pytest.raises(ParameterError, match=message):
        replace(SWEEP, **change)


def test_unknown_fields_and_parts_are_refused():
    with pytest.raises(ParameterError, match="no field speed"):
        Sweep.from_dict({"speed": 1})
    with pytest.raises(ParameterError, match="part 3 of 2 does not exist"):
        SWEEP.part(3, 2)


# The table.


def test_table_has_a_row_per_model_and_test_set_with_all_metrics(tmp_path):
    runner().run()
    table = gather(SWEEP).table
    assert len(table) == (24 + 6) * 9
    assert not table.duplicated(["case", "method", "learning_rate", "seed", "test_set"]).any()
    assert set(METRIC_COLUMNS) <= set(table.columns)
    assert table[list(METRICS)].notna().all(axis=None)
    assert table.loc[table["method"] == "truth", "learning_rate"].isna().all()
    assert not [name for name in table.columns if "second" in name], "times would differ between runs"


def test_manifest_says_what_was_made_by_what_and_where(tmp_path):
    runner(device_name="CPU: abacus").run()
    write_result(tmp_path / "results", gather(SWEEP))
    manifest = json.loads((tmp_path / "results" / "manifest.json").read_text())
    assert Sweep.from_dict(manifest["sweep"]) == SWEEP
    assert manifest["devices"] == ["CPU: abacus"]
    assert manifest["seeds"] == [1, 2, 3]
    assert {"torch", "numpy", "python"} <= set(manifest["versions"])
    assert set(manifest["code"]) == {"problems", "models", "training", "likelihood", "studies"}
    assert len(manifest["chunks"]) == len(SWEEP.chunks())
    found = find_result(tmp_path, SWEEP)
    assert found is not None
    pd.testing.assert_frame_equal(found.table, gather(SWEEP).table)


def test_diverged_models_are_flagged_and_not_measured():
    def evaluate(densities: Any, *args: Any, **options: Any) -> pd.DataFrame:
        assert getattr(densities, "value", None) != "diverged"
        return fake_evaluate(densities, *args, **options)

    class Fit(FakeFit):
        def _pair(self, radius: float, method: str, seed: int, rate: float) -> Any:
            pair = super()._pair(radius, method, seed, rate)
            if pair.diverged:
                pair.densities.value = "diverged"
            return pair

    runner(fit=Fit(diverging=1e-2), evaluate=evaluate).run()
    table = gather(SWEEP).table
    bad = table[table["learning_rate"] == 1e-2]
    assert len(bad) == 12 * 9
    assert bad["diverged"].all()
    assert bad[list(METRICS)].isna().all(axis=None)
    assert bad["mu"].notna().all()
    assert not table.loc[table["learning_rate"] != 1e-2, "diverged"].any()


def test_swaps_are_those_between_the_layers_of_a_published_flow():
    counts = []
    for seed in range(60):
        flow = ConditionalFlow(FlowConfig.sluijter(), seed=seed)
        orders = flow.permutations.tolist()
        counts.append(sum(order == [1, 0] for order in orders[:3]))
        assert flow_swaps(flow) == counts[-1]
    assert set(counts) == {0, 1, 2, 3}
    assert flow_swaps(ConditionalFlow(FlowConfig.modern())) is None
    assert flow_swaps(None) is None


# Killed and resumed.


def test_killed_at_twenty_random_moments_the_final_table_is_identical(tmp_path, cache, expected):
    command = [sys.executable, "-m", "tests.studies.sweep_examples", str(tmp_path / "results"), "20", "1"]
    environment = {**os.environ, "SBILIB_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=120, cwd=ROOT, env=environment
    )
    facts = json.loads(done.stdout)
    assert len(facts["left"]) == 20
    assert len(set(facts["left"])) > 3, "the kills should fall into different chunks"
    assert set(facts["tables"]) == {hashlib.sha256(expected).hexdigest()}
    assert facts["files"] == ["manifest.json", "table.parquet"]


class Stop(KeyboardInterrupt):
    """Stops a run at a call of our choice."""


def stops(function: Callable[..., Any], countdown: list[int], after: bool) -> Callable[..., Any]:
    """``function``, which raises when the countdown is over, before or after it has done its work."""

    def wrapped(*args: Any, **options: Any) -> Any:
        countdown[0] -= 1
        if countdown[0] == 0 and not after:
            raise Stop
        result = function(*args, **options)
        if countdown[0] == 0:
            raise Stop
        return result

    return wrapped


@pytest.mark.parametrize("where", ["fit", "evaluate", "write"])
def test_stopped_at_any_call_the_final_table_is_identical(where, tmp_path, monkeypatch, expected):
    chance, stopped = random.Random(where), 0
    while True:
        countdown = [chance.randint(1, 9)] if stopped < 12 else [-1]
        fit, write = FakeFit(), sweep_files.write_atomically
        options: dict[str, Any] = {"fit": fit, "evaluate": fake_evaluate}
        with monkeypatch.context() as patch:
            if where == "write":
                patch.setattr(sweep_files, "write_atomically", stops(write, countdown, chance.random() < 0.5))
            else:
                options[where] = stops(options[where], countdown, chance.random() < 0.5)
            try:
                runner(**options).run()
                content = results_of(tmp_path)
                break
            except Stop:
                stopped += 1
    assert stopped > 0
    assert content == expected


def test_training_goes_on_inside_a_chunk(tmp_path):
    fit, calls = FakeFit(), []

    def evaluate(*args: Any, **options: Any) -> pd.DataFrame:
        calls.append(1)
        if len(calls) == 1:
            raise Stop
        return fake_evaluate(*args, **options)

    with pytest.raises(Stop):
        runner(fit=fit, evaluate=evaluate).run()
    assert fit.steps == SWEEP.n_steps
    assert SweepFolder(SWEEP).state(SWEEP.chunks()[0]) == "begun"
    runner(fit=fit, evaluate=evaluate).run()
    n_trained = len([chunk for chunk in SWEEP.chunks() if chunk.method != "truth"])
    assert fit.steps == SWEEP.n_steps * n_trained, "no step was made twice"
    assert not [path for path in work_folder(SWEEP).iterdir() if path.is_dir()]


def test_models_that_were_measured_are_not_measured_again_unless_their_rows_are_damaged(tmp_path, expected):
    """The first two chunks have four and two models; the third stops at the last of its four models."""
    calls = [0]

    def evaluate(*args: Any, **options: Any) -> pd.DataFrame:
        calls[0] += 1
        if calls[0] == 10:
            raise Stop
        return fake_evaluate(*args, **options)

    with pytest.raises(Stop):
        runner(evaluate=evaluate).run()
    kept = sorted((work_folder(SWEEP) / "chunk-0003").glob("rows-*"))
    assert len(kept) == 3
    kept[1].write_bytes(kept[1].read_bytes()[:-1])
    runner(evaluate=evaluate).run()
    assert calls[0] == 30 + 1 + 1
    assert results_of(tmp_path) == expected


def test_finished_chunks_are_not_made_again(expected, tmp_path):
    runner().run()
    fit = FakeFit()
    runner(fit=fit).run()
    assert fit.stacks == []
    assert results_of(tmp_path) == expected


def test_parts_run_alone_in_any_order_and_do_not_disturb_each_other(expected, tmp_path):
    for part in (3, 1, 2):
        with pytest.raises(CheckpointError, match="chunks of demo are not finished"):
            gather(SWEEP)
        runner().run((part, 3))
    assert results_of(tmp_path) == expected


def test_gather_names_what_is_missing():
    runner().run((1, 2))
    with pytest.raises(
        CheckpointError, match=r"5 of 10 chunks of demo are not finished: 2 \(flow, large: missi"
    ):
        gather(SWEEP)


# Damage, foreign folders, full disks, small memories.


@pytest.mark.parametrize("damage", ["truncated", "altered", "exchanged", "record"])
def test_damaged_chunk_is_found_by_its_checksum_made_again_and_said_once(damage, tmp_path, expected):
    runner().run()
    path = work_folder(SWEEP) / "chunk-0003.parquet"
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        del content[len(content) // 2 :]
    elif damage == "altered":
        content[len(content) // 3] ^= 1
    elif damage == "exchanged":
        content = bytearray((work_folder(SWEEP) / "chunk-0001.parquet").read_bytes())
    else:
        path.with_suffix(".json").write_text('{"sha')
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"1 of 10 .* 3 \(classifier, large: damaged\)"):
        gather(SWEEP)
    said: list[str] = []
    fit = FakeFit()
    runner(fit=fit, say=said.append).run()
    assert said == ["damaged files of chunk 3 do not match their checksums: made again"]
    assert fit.stacks == [4]
    assert results_of(tmp_path) == expected


def test_results_of_another_sweep_are_refused_with_the_difference_named(tmp_path):
    runner().run()
    results_of(tmp_path)
    other = replace(SWEEP, n_steps=9, learning_rates=(1e-3,))
    with pytest.raises(
        CheckpointError, match=r"learning_rates is \[0.001, 0.01\] there and \[0.001\] here; n_steps"
    ):
        read_result(tmp_path, other)
    assert find_result(tmp_path, other) is None


def test_results_and_unfinished_sweeps_of_other_code_are_refused_until_accepted(tmp_path, monkeypatch):
    runner().run((1, 2))
    then = sweep_files.code_of_sweeps()
    changed = {**then, "likelihood": "0" * 64}
    for module in (sweep_files, sweep_run):
        monkeypatch.setattr(module, "code_of_sweeps", lambda: changed)
    with pytest.raises(CheckpointError, match="code in sbilib/likelihood changed; start afresh"):
        runner().run()
    assert accept_code(work_folder(SWEEP))
    assert not accept_code(work_folder(SWEEP))
    runner().run()
    results_of(tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text())["earlier_code"] == [then]
    for module in (sweep_files, sweep_run):
        monkeypatch.setattr(module, "code_of_sweeps", lambda: then)
    with pytest.raises(CheckpointError, match="code in sbilib/likelihood changed"):
        read_result(tmp_path, SWEEP)


def test_fresh_forgets_what_was_there(monkeypatch):
    runner().run((1, 2))
    monkeypatch.setattr(sweep_files, "code_of_sweeps", lambda: {"models": "new"})
    fit = FakeFit()
    runner(fit=fit).run(fresh=True)
    assert sum(fit.stacks) == 24
    gather(SWEEP)


def test_damaged_results_do_not_count(tmp_path):
    runner().run()
    results_of(tmp_path)
    table = tmp_path / "table.parquet"
    table.write_bytes(table.read_bytes()[:-5])
    assert read_result(tmp_path, SWEEP) is None
    (tmp_path / "manifest.json").write_text("{")
    assert read_result(tmp_path, SWEEP) is None


def test_full_disk_is_one_clear_error_and_leaves_nothing_half_written(monkeypatch, tmp_path, expected):
    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    runner().run((1, 2))
    before = {path: path.read_bytes() for path in work_folder(SWEEP).glob("*.*")}
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(CheckpointError, match="No space left on device; free some space"):
            runner().run()
        with pytest.raises(CheckpointError, match="No space left on device"):
            write_result(tmp_path / "results", sweep_files.SweepResult(pd.DataFrame({"x": [1]}), {}))
    assert {path: path.read_bytes() for path in work_folder(SWEEP).glob("*.*")} == before
    assert os.listdir(tmp_path / "results") == []
    runner().run()
    assert results_of(tmp_path) == expected


@pytest.mark.parametrize("memory", [1, 2, 3])
def test_out_of_memory_halves_the_stack_and_is_said_once(memory, tmp_path, expected):
    said: list[str] = []
    fit = FakeFit(memory=memory)
    runner(fit=fit, say=said.append).run()
    assert len(said) == 1
    assert "out of memory with 4 pairs at once" in said[0]
    assert sum(fit.stacks) == 24
    assert max(fit.stacks) <= memory
    assert results_of(tmp_path) == expected


def test_a_pair_that_does_not_fit_alone_is_an_error():
    with pytest.raises(DeviceError, match="one pair alone does not fit"):
        runner(fit=FakeFit(memory=0), say=lambda message: None).run()


# What a page does.


def test_a_page_reads_finished_results_and_runs_what_is_not_finished(tmp_path, monkeypatch):
    fit = FakeFit()
    monkeypatch.setattr(sweep_run, "_fit_pairs", lambda: fit)
    monkeypatch.setattr(sweep_run, "_evaluate_pair", lambda: fake_evaluate)
    results = tmp_path / "results" / "demo"
    ran = finished_or_run(SWEEP, results)
    assert sum(fit.stacks) == 24
    assert not results.exists()
    write_result(results / "standard", ran)
    SweepFolder(SWEEP).clear()
    read = finished_or_run(SWEEP, results)
    assert sum(fit.stacks) == 24
    pd.testing.assert_frame_equal(read.table, ran.table)

"""Sampling to a file: the same events however they are written, and never half a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy import stats

import sbilib.models.sampling
from sbilib.errors import DataError, ParameterError
from sbilib.models import MixtureAutoregressive, MixtureConfig, QuantileToNormal, TransformedDensity
from sbilib.models.sampling import sample_blocks, sample_to_parquet


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> TransformedDensity:
    monkeypatch.setattr(sbilib.models.sampling, "BLOCK", 64)
    events = torch.rand(500, 2, generator=torch.Generator().manual_seed(1)) * 50 + 20
    transform = QuantileToNormal.fit(events, names=("pt", "mass"), bounds={"pt": (20, None)})
    return TransformedDensity(transform, MixtureAutoregressive(MixtureConfig.modern(features=2), seed=2))


@pytest.mark.parametrize("batch_size", [1, 50, 64, 150, 10_000])
def test_events_do_not_depend_on_the_batch_size(
    model: TransformedDensity, tmp_path: Path, batch_size: int
) -> None:
    written = sample_to_parquet(model, tmp_path / "a.parquet", 200, seed=3, batch_size=batch_size)
    table = pq.read_table(written.path)
    blocks = np.concatenate(list(sample_blocks(model, 200, seed=3)))
    assert np.array_equal(np.column_stack([table["pt"], table["mass"]]), blocks)
    assert pq.ParquetFile(written.path).num_row_groups == -(-200 // batch_size)
    assert (written.n_events, table.num_rows) == (200, 200)
    assert written.events_per_second > 0
    assert (blocks[:, 0] >= 20).all()


def test_a_longer_file_starts_with_a_shorter_one_and_seeds_differ(model: TransformedDensity) -> None:
    short, long, other = (
        np.concatenate(list(sample_blocks(model, n, seed=seed))) for n, seed in ((70, 1), (200, 1), (200, 2))
    )
    assert np.array_equal(short, long[:70])
    assert not np.isin(long[:, 1], other[:, 1]).any()
    assert len(np.unique(long, axis=0)) == 200  # blocks do not repeat each other


def test_blocks_follow_the_same_density_as_one_sample(model: TransformedDensity) -> None:
    """Kolmogorov-Smirnov of 5000 against 5000 events; two tests at 1e-4 each."""
    blocks = np.concatenate(list(sample_blocks(model, 5000, seed=1)))
    direct = model.sample(5000, torch.Generator().manual_seed(7)).numpy()
    for feature in (0, 1):
        assert stats.ks_2samp(blocks[:, feature], direct[:, feature]).pvalue > 1e-4


def test_columns_and_facts_of_the_file(model: TransformedDensity, tmp_path: Path) -> None:
    sample_to_parquet(model, tmp_path / "new" / "a.parquet", 10, seed=3)
    schema = pq.read_schema(tmp_path / "new" / "a.parquet")
    assert schema.names == ["pt", "mass"]
    assert schema.metadata[b"sbilib.seed"] == b"3"
    plain = MixtureAutoregressive(MixtureConfig.modern(features=2))
    sample_to_parquet(plain, tmp_path / "b.parquet", 10, seed=3)
    assert pq.read_schema(tmp_path / "b.parquet").names == ["feature 0", "feature 1"]


def test_a_failure_leaves_the_old_file(
    model: TransformedDensity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.parquet"
    sample_to_parquet(model, path, 10, seed=1)
    before = path.read_bytes()

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full_disk)
        with pytest.raises(DataError, match=r"No space left on device.*the earlier file is unchanged"):
            sample_to_parquet(model, path, 10, seed=2)
    plain = MixtureAutoregressive(MixtureConfig.modern(features=2))
    with torch.no_grad():
        plain.network.final_bias.fill_(torch.nan)
    with pytest.raises(DataError, match="the model drew feature 0 = nan"):
        sample_to_parquet(plain, path, 10, seed=2)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_bad_arguments_are_refused(model: TransformedDensity, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with pytest.raises(ParameterError, match="n_events must be an integer of at least 1"):
        sample_to_parquet(model, path, 0, seed=1)
    with pytest.raises(ParameterError, match="batch_size must be an integer of at least 1"):
        sample_to_parquet(model, path, 10, seed=1, batch_size=0)
    with pytest.raises(ParameterError, match="seed must be an integer of at least 0"):
        sample_to_parquet(model, path, 10, seed=-1)
    for names in (("pt",), ("pt", "pt")):
        with pytest.raises(ParameterError, match="names must be 2 different names"):
            sample_to_parquet(model, path, 10, seed=1, names=names)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write"):
        sample_to_parquet(model, tmp_path / "file" / "a.parquet", 10, seed=1)
    assert not path.exists()

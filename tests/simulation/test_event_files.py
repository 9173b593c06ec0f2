import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sbilib.errors import DataError, ParameterError
from sbilib.simulation import (
    MANIFEST,
    PRIMARY,
    RESOLUTION,
    EventFile,
    Manifest,
    read_events,
    read_manifest,
    read_split,
    round_events,
    write_events,
    write_manifest,
)
from tests.simulation.fake_events import fake_events


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished data set of 300 signal events in two files and 100 background events."""
    files = [
        write_events(
            tmp_path, f"{component}-train-{number}.parquet", events, component=component, split="train"
        )
        for number, (component, events) in enumerate(
            [
                ("signal", fake_events(200, 1)),
                ("signal", fake_events(100, 2)),
                ("background", fake_events(100, 3)),
            ]
        )
    ]
    write_manifest(tmp_path, Manifest(files=tuple(files), tau_threshold=21.0, seeds={"detector": 5}))
    return tmp_path


def a_file(folder: Path) -> tuple[Path, EventFile]:
    line = read_manifest(folder).files[0]
    return folder / line.name, line


def test_events_come_back_as_they_were_rounded(folder: Path) -> None:
    manifest = read_manifest(folder)
    expected = round_events(np.concatenate([fake_events(200, 1), fake_events(100, 2)]))
    assert np.array_equal(read_split(folder, manifest, "signal", "train"), expected)
    assert manifest.rows("signal", "train") == 300
    assert manifest.seeds == {"detector": 5}
    steps = np.array([RESOLUTION[name] for name in PRIMARY])
    # Half a step, and the rounding of float32 of values up to a few hundred.
    assert (np.abs(round_events(fake_events(2000, 4)) - fake_events(2000, 4)) <= 0.5 * steps + 5e-5).all()
    again = round_events(expected)
    assert np.array_equal(again, expected)


def test_the_same_events_give_the_same_bytes_and_others_do_not(tmp_path: Path) -> None:
    first, same, other = (
        write_events(
            tmp_path, f"{n}.parquet", fake_events(50, seed), component="signal", split="train"
        ).sha256
        for n, seed in enumerate([1, 1, 2])
    )
    assert first == same != other


def test_a_million_events_take_less_than_31_megabytes(tmp_path: Path) -> None:
    """So that the sample of the repository, 1.3 million events, stays below 40 MB."""
    line = write_events(tmp_path, "a.parquet", fake_events(100_000, 1), component="signal", split="train")
    assert (tmp_path / line.name).stat().st_size / line.rows < 31.0


def test_a_truncated_file_is_named_with_the_remedy(folder: Path) -> None:
    path, line = a_file(folder)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"altered or truncated.*simulate higgs"):
        read_events(path, line)
    with pytest.raises(DataError, match=r"not a whole Parquet file.*simulate higgs"):
        read_events(path)


def test_one_changed_byte_is_seen(folder: Path) -> None:
    path, line = a_file(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="altered"):
        read_events(path, line)


def test_a_missing_file_and_an_unfinished_folder_are_named(folder: Path) -> None:
    path, _ = a_file(folder)
    path.unlink()
    with pytest.raises(DataError, match=r"cannot be read.*simulate higgs"):
        read_split(folder, read_manifest(folder), "signal", "train")
    with pytest.raises(DataError, match="no background events for 'test-1'"):
        read_split(folder, read_manifest(folder), "background", "test-1")
    (folder / MANIFEST).unlink()
    with pytest.raises(DataError, match=r"missing or unfinished.*simulate higgs"):
        read_manifest(folder)


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"format": 1, "files": [{"name": "a"}]}', '{"format": 2}']
)
def test_a_damaged_manifest_is_named(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text)
    with pytest.raises(DataError, match="manifest"):
        read_manifest(folder)


def test_other_columns_types_and_values_are_refused(tmp_path: Path) -> None:
    table = pa.table({name: fake_events(10, 1)[:, index].astype("f4") for index, name in enumerate(PRIMARY)})
    path = tmp_path / "a.parquet"
    pq.write_table(table.drop_columns(["PRI_met"]), path)
    with pytest.raises(DataError, match=r"missing \['PRI_met'\]"):
        read_events(path)
    pq.write_table(table.append_column("weights", table["PRI_met"]), path)
    with pytest.raises(DataError, match=r"unexpected \['weights'\].*load_fair_universe"):
        read_events(path)
    pq.write_table(table.cast(pa.schema([(name, pa.float64()) for name in PRIMARY])), path)
    with pytest.raises(DataError, match="float32"):
        read_events(path)
    pq.write_table(table.slice(0, 0), path)
    with pytest.raises(DataError, match="no events"):
        read_events(path)
    negative = table.set_column(0, "PRI_lep_pt", pa.array(np.full(10, -1.0, dtype="f4")))
    pq.write_table(negative, path)
    with pytest.raises(DataError, match=r"a\.parquet: 10 of 10 .*PRI_lep_pt that are zero or negative"):
        read_events(path)


def test_a_wrong_number_of_rows_is_refused(folder: Path) -> None:
    path, line = a_file(folder)
    with pytest.raises(DataError, match="must hold 7 events"):
        read_events(path, replace(line, rows=7))


def test_impossible_events_and_names_are_not_written(tmp_path: Path) -> None:
    bad = fake_events(5, 1)
    bad[2, 0] = np.nan
    with pytest.raises(DataError, match="NaN"):
        write_events(tmp_path, "a.parquet", bad, component="signal", split="train")
    with pytest.raises(ParameterError, match="split"):
        write_events(tmp_path, "a.parquet", fake_events(5, 1), component="signal", split="test")
    with pytest.raises(DataError, match="no events"):
        write_events(tmp_path, "a.parquet", bad[:0], component="signal", split="train")
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_is_plain_json_and_its_digest_follows_the_content(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert json.loads((folder / MANIFEST).read_text())["tau_threshold"] == 21.0
    assert replace(manifest, files=manifest.files[::-1]).digest == manifest.digest
    assert replace(manifest, files=manifest.files[1:]).digest != manifest.digest
    with pytest.raises(DataError, match="not JSON"):
        write_manifest(folder, replace(manifest, settings={"path": folder}))
    with pytest.raises(DataError, match="not JSON"):
        write_manifest(folder, replace(manifest, cross_sections={"signal": float("nan")}))


def test_a_write_that_fails_leaves_the_earlier_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, line = a_file(folder)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sbilib.atomic.os.fsync", full)
    with pytest.raises(DataError, match=r"No space left.*earlier file is unchanged"):
        write_events(folder, path.name, fake_events(5, 9), component="signal", split="train")
    assert len(read_events(path, line)) == 200
    assert not list(folder.glob(".*"))

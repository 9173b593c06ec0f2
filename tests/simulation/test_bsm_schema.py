import numpy as np
import pytest

from sbilib.errors import DataError, ParameterError
from sbilib.simulation.bsm_schema import (
    ANGLE_STEP,
    BSM_CONTINUOUS,
    BSM_FEATURES,
    BSM_HIGH_LEVEL,
    BSM_LOW_LEVEL,
    BSM_UNITS,
    MASS_STEP,
    MOMENTUM_STEP,
    SCALES,
    bsm_columns,
    check_bsm,
    from_public_scale,
    round_bsm,
    to_public_scale,
)

from .toy_bsm import toy_bsm_events


def test_the_columns_are_those_of_the_public_file() -> None:
    assert (len(BSM_LOW_LEVEL), len(BSM_HIGH_LEVEL), len(BSM_FEATURES)) == (21, 7, 28)
    assert BSM_FEATURES[5:9] == ("jet_1_pt", "jet_1_eta", "jet_1_phi", "jet_1_btag")
    assert BSM_FEATURES[20:22] == ("jet_4_btag", "m_jj")
    assert len(BSM_CONTINUOUS) == 18
    assert len(set(BSM_FEATURES) - set(BSM_CONTINUOUS)) == 10
    assert set(SCALES) == set(BSM_FEATURES) == set(BSM_UNITS)
    assert bsm_columns(reversed(BSM_FEATURES)) == list(range(27, -1, -1))


def test_the_scale_of_the_public_file_can_be_undone() -> None:
    events = toy_bsm_events(200).astype(np.float64)
    public = to_public_scale(events)
    np.testing.assert_allclose(from_public_scale(public), events, rtol=1e-12, atol=1e-12)
    # As in the public file: tags of the first jet are 0, 1.087 and 2.173, of the last 3.102 at most.
    tags = public[:, bsm_columns(["jet_1_btag", "jet_4_btag"])]
    assert set(tags[:, 0].round(3)) == {0.0, 1.087, 2.173}
    assert tags[:, 1].max().round(3) == 3.102
    # Its lepton starts at 0.2747, and its fourth jet at 0.3651: 15 GeV.
    assert 15.0 / SCALES["lepton_pT"] == pytest.approx(0.27452, abs=1e-5)
    assert 15.0 / SCALES["jet_4_pt"] == pytest.approx(0.36511, abs=1e-5)


def test_events_are_rounded_to_their_steps() -> None:
    rng = np.random.default_rng(1)
    events = rng.uniform(5.0, 400.0, (500, 28))
    rounded = round_bsm(events).astype(np.float64)
    steps = {"lepton_pT": MOMENTUM_STEP, "jet_3_eta": ANGLE_STEP, "m_lv": MASS_STEP, "jet_1_btag": 1.0}
    for name, step in steps.items():
        column = bsm_columns([name])[0]
        # Half a step, and the rounding of float32.
        assert np.abs(rounded[:, column] - events[:, column]).max() <= step / 2 + 3e-5
        assert np.abs(rounded[:, column] / step - np.round(rounded[:, column] / step)).max() < 0.05
    np.testing.assert_array_equal(round_bsm(rounded), round_bsm(events))
    tiny = np.zeros((1, 28))
    assert round_bsm(tiny)[0, 3] == np.float32(MOMENTUM_STEP)
    assert not np.signbit(round_bsm(-tiny)[0, 1])


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("lepton_eta", np.nan, r"1 of 20 events .*lepton_eta that are NaN or infinite \(first: event 7"),
        ("m_wwbb", np.inf, "m_wwbb that are NaN or infinite"),
        ("missing_energy_magnitude", 0.0, "missing_energy_magnitude that are zero or negative"),
        ("m_bb", -3.0, "m_bb that are zero or negative"),
        ("jet_2_phi", 3.2, r"jet_2_phi that lie outside \[-pi, pi\]"),
        ("jet_4_btag", 0.5, "jet_4_btag that are not 0, 1 or 2"),
        ("jet_3_pt", 9000.0, "jet_3_pt that are larger than that of the jet before"),
    ],
)
def test_impossible_values_are_named(column: str, value: float, message: str) -> None:
    events = toy_bsm_events(20)
    assert check_bsm("a table", events) is events
    events[7, bsm_columns([column])[0]] = value
    with pytest.raises(DataError, match=message):
        check_bsm("a table", events)
    if column == "jet_3_pt":
        assert check_bsm("a table", events, ordered=False) is events


def test_wrong_shapes_and_names_are_refused() -> None:
    with pytest.raises(DataError, match=r"shape \(n_events, 28\), got \(3, 21\)"):
        check_bsm("a table", np.ones((3, 21)))
    with pytest.raises(ParameterError, match=r"unknown \['m_bbb'\]"):
        bsm_columns(["m_bb", "m_bbb"])
    with pytest.raises(ParameterError, match="different names"):
        bsm_columns(["m_bb", "m_bb"])
    with pytest.raises(ParameterError, match="one or more"):
        bsm_columns([])

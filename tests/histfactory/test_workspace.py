"""Workspaces: read, written, patched, equal to pyhf's, and errors that name the place."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path

import pyhf
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from sbilib.errors import DataError, ParameterError
from sbilib.histfactory import Channel, NormFactor, NormSys, ParameterSettings, Sample, ShapeSys, Workspace
from tests.histfactory.workspaces import Spec, random_theta, workspaces

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def _spec() -> Spec:
    """Two channels, two measurements, and settings of every sort."""
    signal = {
        "name": "signal",
        "data": [2.0, 4.0],
        "modifiers": [{"name": "mu", "type": "normfactor", "data": None}],
    }
    lumi = {"name": "lumi", "type": "lumi", "data": None}
    shape = {"name": "shape", "type": "shapesys", "data": [2.0, 1.0]}
    norm = {"name": "norm", "type": "normsys", "data": {"lo": 0.9, "hi": 1.2}}
    tilt = {"name": "norm", "type": "histosys", "data": {"lo_data": [19.0, 11.0], "hi_data": [22.0, 9.0]}}
    free = {"name": "free", "type": "shapefactor", "data": None}
    stat = {"name": "stat", "type": "staterror", "data": [1.0, 0.5]}
    background = {"name": "background", "data": [20.0, 10.0], "modifiers": [lumi, shape, norm, tilt, stat]}
    control = {"name": "background", "data": [50.0], "modifiers": [lumi, norm, free]}
    measured = [
        {"name": "lumi", "auxdata": [1.02], "sigmas": [0.03], "inits": [1.02], "bounds": [[0.9, 1.1]]},
        {"name": "norm", "auxdata": [0.2], "fixed": True, "inits": [0.3]},
        {"name": "stat", "sigmas": [0.1, 0.2]},
        {"name": "shape", "factors": [90.0, 80.0], "auxdata": [95.0, 85.0], "fixed": False},
        {"name": "mu", "bounds": [[-1.0, 6.0]]},
        {"name": "unknown", "fixed": True},
    ]
    plain = [{"name": "lumi", "auxdata": [1.0], "sigmas": [0.02], "inits": [1.0], "bounds": [[0.0, 10.0]]}]
    return {
        "channels": [
            {"name": "SR", "samples": [signal, background]},
            {"name": "CR", "samples": [control]},
        ],
        "observations": [{"name": "SR", "data": [25, 12]}, {"name": "CR", "data": [48.0]}],
        "measurements": [
            {"name": "plain", "config": {"poi": "mu", "parameters": plain}},
            {"name": "measured", "config": {"poi": "norm", "parameters": measured}},
            {"name": "without", "config": {"poi": "", "parameters": plain}},
        ],
        "version": "1.0.0",
    }


@given(workspaces())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_round_trip_through_our_classes_keeps_the_likelihood(spec: Spec) -> None:
    ours = Workspace(spec)
    assert ours.to_dict() == spec
    config = spec["measurements"][0]["config"]
    rebuilt = Workspace.from_channels(
        ours.channels,
        {each["name"]: each["data"] for each in spec["observations"]},
        poi=config["poi"],
        settings=[ParameterSettings(**each) for each in config["parameters"]],
        measurement="search",
    )
    assert rebuilt.to_dict() == spec
    model = ours.model()
    theirs = pyhf.Workspace(rebuilt.to_dict())
    data = ours.data(model)
    assert data.tolist() == pytest.approx(theirs.data(theirs.model()), rel=1e-12)
    theta = random_theta(model, 3)
    if bool((model.expected_data(theta) >= 0).all()):
        reference = float(theirs.model().logpdf(theta.tolist(), data.tolist())[0])
        assert model.logpdf(theta, data).item() == pytest.approx(reference, rel=1e-10)


@pytest.mark.parametrize("measurement", ["plain", "measured", "without"])
def test_measurements_and_their_settings_equal_pyhf(measurement: str) -> None:
    ours, theirs = Workspace(_spec()), pyhf.Workspace(_spec())
    assert ours.measurement_names == ("plain", "measured", "without")
    model, reference = ours.model(measurement), theirs.model(measurement)
    config = reference.config
    assert list(model.parameter_names) == config.par_names
    assert model.poi_index == config.poi_index
    assert model.initial.tolist() == config.suggested_init()
    assert model.bounds.tolist() == [list(pair) for pair in config.suggested_bounds()]
    assert model.fixed.tolist() == config.suggested_fixed()
    assert ours.data(model).tolist() == pytest.approx(theirs.data(reference))
    theta = random_theta(model, 1)
    expected = float(reference.logpdf(theta.tolist(), theirs.data(reference))[0])
    assert model.logpdf(theta, ours.data(model)).item() == pytest.approx(expected, rel=1e-12)
    assert model.expected_data(theta).tolist() == pytest.approx(
        reference.expected_data(theta.tolist()).tolist()
    )


def test_poi_can_be_replaced_or_dropped() -> None:
    workspace = Workspace(_spec())
    model = workspace.model(poi="norm")
    assert model.parameter_names[model.poi_index or 0] == "norm"
    assert workspace.model(poi=None).poi_index is None
    with pytest.raises(ParameterError, match="POI 'nu' is no parameter"):
        workspace.model(poi="nu")
    with pytest.raises(ParameterError, match=r"no measurement 'other'; it has 'plain', 'measured'"):
        workspace.model("other")


def test_files_keep_the_workspace(tmp_path: Path) -> None:
    path = tmp_path / "workspace.json"
    Workspace(_spec()).write(path)
    assert json.loads(path.read_text()) == _spec()
    assert Workspace.read(path).to_dict() == _spec()
    path.write_text("{")
    with pytest.raises(DataError, match=r"cannot read a workspace from .*workspace\.json"):
        Workspace.read(path)
    path.write_text("[]")
    with pytest.raises(DataError, match="holds a list, expected a JSON object"):
        Workspace.read(path)


def test_the_dictionary_is_a_copy() -> None:
    spec = _spec()
    workspace = Workspace(spec)
    spec["channels"][0]["samples"][0]["data"][0] = 99.0
    workspace.to_dict()["version"] = "other"
    assert workspace.to_dict() == _spec()


PATCH = [
    {"op": "replace", "path": "/channels/0/samples/0/data", "value": [3.0, 9.0]},
    {"op": "remove", "path": "/channels/0/samples/1/modifiers/1"},
]


def test_json_patches_equal_pyhf() -> None:
    ours = Workspace(_spec()).model(patches=[PATCH[:1], PATCH[1:]])
    theirs = pyhf.Workspace(_spec()).model(patches=[PATCH])
    theta = random_theta(ours, 2)
    assert list(ours.parameter_names) == theirs.config.par_names
    assert ours.expected_data(theta).tolist() == pytest.approx(theirs.expected_data(theta.tolist()).tolist())
    assert Workspace(_spec()).patched(PATCH).to_dict() != _spec()


def _patch_set(spec: Spec) -> Spec:
    return {
        "metadata": {
            "references": {"hepdata": "ins1234567"},
            "description": "signals",
            "digests": {"sha256": pyhf.utils.digest(spec)},
            "labels": ["mass"],
        },
        "patches": [{"metadata": {"name": "heavy", "values": [900]}, "patch": PATCH}],
        "version": "1.0.0",
    }


def test_patch_sets_equal_pyhf() -> None:
    workspace = Workspace(_spec())
    theirs = pyhf.PatchSet(_patch_set(_spec())).apply(pyhf.Workspace(_spec()), "heavy")
    for key in ("heavy", (900,), [900]):
        assert workspace.patched_from(_patch_set(_spec()), key).to_dict() == dict(theirs)
    with pytest.raises(DataError, match=r"no patch 'light'; it has 'heavy'"):
        workspace.patched_from(_patch_set(_spec()), "light")
    other = copy.deepcopy(_spec())
    other["observations"][0]["data"] = [1.0, 1.0]
    with pytest.raises(DataError, match=r"cannot be used with this workspace: .*digest"):
        Workspace(other).patched_from(_patch_set(_spec()), "heavy")
    with pytest.raises(DataError, match="cannot be used with this workspace"):
        workspace.patched_from({**_patch_set(_spec()), "patches": []}, "heavy")


@pytest.mark.parametrize("path", ["/channels/7/name", "/nothing/here"])
def test_a_patch_that_does_not_fit_is_an_error(path: str) -> None:
    with pytest.raises(DataError, match="the patch does not fit this workspace"):
        Workspace(_spec()).patched([{"op": "replace", "path": path, "value": "x"}])


def _broken(change: Callable[[Spec], None]) -> Spec:
    spec = _spec()
    change(spec)
    return spec


def _sample(spec: Spec) -> Spec:
    found: Spec = spec["channels"][0]["samples"][1]
    return found


BAD: dict[str, tuple[Callable[[Spec], object], str]] = {
    "unknown modifier": (
        lambda s: _sample(s)["modifiers"].append({"name": "x", "type": "magic", "data": None}),
        r"channel 'SR', sample 'background' has a modifier of unknown type 'magic' .*known are histosys",
    ),
    "modifier without data": (
        lambda s: _sample(s)["modifiers"][2].pop("data"),
        r"channel 'SR', sample 'background', modifier 'norm': the workspace breaks pyhf's schema",
    ),
    "yields of text": (
        lambda s: _sample(s)["data"].__setitem__(1, "ten"),
        r"channel 'SR', sample 'background', data 1: .*'ten' is not of type 'number'",
    ),
    "no version": (lambda s: s.pop("version"), r"'version' is a required property"),
    "no measurements": (lambda s: s.pop("measurements"), r"'measurements' is a required property"),
    "other version": (lambda s: s.__setitem__("version", "9.9.9"), r"9\.9\.9.*1\.0\.0"),
    "observation without channel": (
        lambda s: s["observations"].append({"name": "VR", "data": [1.0]}),
        r"observation 'VR' has no channel; remove it or add",
    ),
    "channel without observation": (
        lambda s: s["observations"].pop(0),
        r"channel 'SR' has no observation; add its observed data",
    ),
    "counts": (
        lambda s: s["observations"][0]["data"].append(3.0),
        r"channel 'SR' has 2 bins but 3 observed counts",
    ),
    "negative count": (
        lambda s: s["observations"][0]["data"].__setitem__(1, -2.0),
        r"channel 'SR', bin 1: observed -2.0, expected a finite count",
    ),
    "count not a number": (
        lambda s: s["observations"][1]["data"].__setitem__(0, math.nan),
        r"channel 'CR', bin 0: observed nan",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_broken_workspaces_are_named(name: str) -> None:
    change, message = BAD[name]
    with pytest.raises(DataError, match=message):
        Workspace(_broken(change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: _sample(s)["data"].__setitem__(0, -1.0),
            r"'SR', sample 'background', yields, bin 0: .* got -1",
        ),
        (
            lambda s: _sample(s)["data"].__setitem__(0, math.nan),
            r"sample 'background', yields, bin 0: .* got nan",
        ),
        (lambda s: _sample(s)["data"].append(1.0), r"sample 'background', yields: expected 2 bins .* got 3"),
        (
            lambda s: _sample(s)["modifiers"][1]["data"].pop(),
            r"shapesys 'shape', uncertainties: expected 2 bins .* got 1",
        ),
    ],
)
def test_faulty_templates_are_named(change: Callable[[Spec], None], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Workspace(_broken(change)).model()


def test_data_need_the_channels_of_the_model() -> None:
    spec = _spec()
    spec["channels"].pop(1)
    spec["observations"].pop(1)
    model = Workspace(_spec()).model()
    with pytest.raises(DataError, match="channel 'CR' of the model has no observation"):
        Workspace(spec).data(model)
    assert Workspace(_spec()).data(model, include_auxiliary=False).tolist() == [48.0, 25.0, 12.0]


def test_templates_of_a_batch_cannot_be_written() -> None:
    channel = Channel("SR", [Sample("b", torch.ones(2, 3), [NormFactor("mu")])])
    with pytest.raises(
        DataError, match=r"channel 'SR', sample 'b': .* without batch dimensions, got shape \(2, 3\)"
    ):
        Workspace.from_channels([channel], {"SR": torch.ones(3)})


def test_tensors_are_written_as_numbers() -> None:
    yields = torch.tensor([5.0, 6.0], dtype=torch.float64, requires_grad=True)
    modifiers = [
        NormSys("norm", 0.9, torch.tensor(1.1, dtype=torch.float64)),
        ShapeSys("shape", yields * 0.1),
    ]
    workspace = Workspace.from_channels(
        [Channel("SR", [Sample("b", yields, modifiers)])], {"SR": yields.detach()}, poi=None
    )
    assert workspace.model().poi_index is None
    assert workspace.to_dict()["channels"][0]["samples"][0]["modifiers"][0]["data"] == {"lo": 0.9, "hi": 1.1}

"""The calibrations of our own that the package carries."""

import pytest

from taskeff.errors import EstimateError
from taskeff.estimate.artefact import measured_families
from taskeff.estimate.budget import predict
from taskeff.estimate.calibration import Calibration

SMOLLM2 = "smollm2-135m-instruct"


def test_the_family_that_anyone_can_rerun_is_there():
    assert SMOLLM2 in measured_families()


@pytest.mark.parametrize("name", measured_families())
def test_a_shipped_family_loads_and_predicts(name):
    family = Calibration.load(name)
    assert family.family == name
    assert len(family.fitted) >= 12
    assert family.caveat and str(len(family.fitted)) in family.caveat
    middle = sorted(task.cos_low for task in family.fitted)[len(family.fitted) // 2]
    found = predict(family, middle, target=0.8, fingerprint=family.fingerprint)
    assert 0 < found.auc < 1
    low, high = found.auc_intervals[0.8]
    assert 0 <= low < found.auc < high <= 1
    assert family.caveat in found.warnings
    assert not any("unverified" in warning for warning in found.warnings)
    other = {**family.fingerprint, "revision": "another"}
    with pytest.raises(EstimateError, match="revision"):
        predict(family, middle, fingerprint=other)


@pytest.mark.parametrize("name", measured_families())
def test_a_shipped_file_is_what_its_calibration_writes(name, tmp_path):
    Calibration.load(name).save(tmp_path / "again.json")
    shipped = measured_families()[name].read_text("utf-8")
    assert (tmp_path / "again.json").read_text("utf-8") == shipped


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(EstimateError, match=f"llama-3.1-8b-instruct.*{SMOLLM2}"):
        Calibration.load("no-such-family")

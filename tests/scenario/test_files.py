"""A scenario about one's own table states the model, the scale and the training that it gets where it says nothing."""

from pathlib import Path

import pytest

from fedsim.mistakes import Mistake
from fedsim.scenario.files import OWN_PRIVATE_TRAINING, OWN_TRAINING, read, read_own

OWN = ["data.path=patients.csv", "data.target=ill", "data.site=clinic"]
RECORD = ["privacy.unit=record", "privacy.epsilon=1", "privacy.delta=1e-4"]


def test_without_privacy_a_network_is_trained_on_a_learned_scale():
    chosen = read_own(OWN)
    assert (chosen.data.model, chosen.data.scale) == ("mlp", "learned")
    training = chosen.training.model_dump()
    for key, value in OWN_TRAINING.items():
        expected = value.items() if isinstance(value, dict) else [(None, value)]
        for inner, wanted in expected:
            assert (training[key][inner] if inner else training[key]) == wanted


@pytest.mark.parametrize("given", [RECORD, ["epsilon"]])
def test_under_privacy_a_linear_model_is_trained_with_fewer_steps(given: list[str]):
    chosen = read_own([*OWN, "privacy.delta=1e-4"], "1") if given == ["epsilon"] else read_own([*OWN, *given])
    assert chosen.private
    assert (chosen.data.model, chosen.data.scale) == ("linear", "learned")
    assert chosen.training.rounds == OWN_PRIVATE_TRAINING["rounds"]
    assert chosen.training.sampling_rate == OWN_PRIVATE_TRAINING["sampling_rate"]


@pytest.mark.parametrize("change", ["data.model=linear", "data.scale=public", "training.rounds=3"])
def test_what_is_said_stays(change: str):
    section, _, rest = change.partition(".")
    key, _, value = rest.partition("=")
    got = getattr(getattr(read_own([*OWN, change]), section), key)
    assert str(got) == value


def test_the_defaults_are_in_what_is_stored_and_shown():
    values = read_own(OWN).values()
    assert values["data"]["scale"] == "learned"
    assert values["data"]["model"] == "mlp"
    assert values["training"]["rounds"] == OWN_TRAINING["rounds"]


@pytest.mark.parametrize("secure", ["secure_aggregation=true", "secure_aggregation.bits=24"])
def test_beside_masks_the_scale_is_public(secure: str):
    assert read_own([*OWN, secure]).data.scale == "public"


def test_a_run_of_a_version_without_scales_still_has_none(tmp_path: Path):
    stored = tmp_path / "scenario.toml"
    stored.write_text(
        f'name = "old"\ntitle = "Old"\n[data]\npath = "p.csv"\nsha256 = "{"0" * 64}"\ntarget = "ill"\n'
        'site = "clinic"\nmodel = "linear"\n'
    )
    assert read(stored).data.scale is None


def test_a_task_has_no_scale_of_a_table():
    with pytest.raises(Mistake, match=r"data.scale: expected none beside a task"):
        read("hospital-heart", ["data.scale=learned"])


def test_a_scale_does_not_change_the_name_of_the_noise():
    """A private training never learns a scale, so that two scenarios that differ in it release the same."""
    learned, public = (read_own([*OWN, *RECORD, f"data.scale={scale}"]) for scale in ("learned", "public"))
    assert learned.release == public.release

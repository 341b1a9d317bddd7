"""What a site's policy says, and what it lets through."""

import re
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from fedsim.mistakes import Mistake
from fedsim.site.policy import Policy, faults_of, read_policy
from tests.real_sites import FREE, POLICY, PRIVATE, scenario


def policy(**changes: Any) -> Policy:
    return Policy.model_validate({**POLICY, **changes})


def test_it_is_read_as_it_is_written(tmp_path: Path):
    path = tmp_path / "site-policy.toml"
    path.write_text(tomli_w.dumps(POLICY))
    assert read_policy(path) == Policy.model_validate(POLICY)
    assert read_policy(path).rng == "secure"
    assert not read_policy(path).plain


def test_without_one_nothing_leaves(tmp_path: Path):
    with pytest.raises(Mistake, match=r"site-policy\.toml: expected the site's policy, got No such file.*nothing lea"):
        read_policy(tmp_path / "site-policy.toml")


def test_all_faults_are_said_at_once(tmp_path: Path):
    path = tmp_path / "site-policy.toml"
    wrong = {**POLICY, "epsilon": -1.0, "delta": 2.0, "rng": "dice", "epsilom": 3.0, "strategies": []}
    path.write_text(tomli_w.dumps({key: value for key, value in wrong.items() if key != "smallest_noise"}))
    with pytest.raises(Mistake) as caught:
        read_policy(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 6
    for key in ("epsilon", "delta", "rng", "epsilom", "strategies", "smallest_noise"):
        assert any(f"site-policy.toml: {key}: " in line for line in lines)


@pytest.mark.parametrize("unit", ["none", "client", "distributed", "person"])
def test_units_whose_noise_the_site_does_not_add_are_refused(unit: str):
    with pytest.raises(ValueError, match=r"expected record or local|expected 'client'"):
        policy(units=["record", unit])


def test_exact_figures_need_no_less_trust_than_exact_models():
    with pytest.raises(ValueError, match="evaluation: expected plain = true"):
        policy(evaluation=True)


def test_what_is_allowed_has_no_fault():
    assert list(faults_of(policy(), scenario(*PRIVATE), 3.0)) == []
    assert list(faults_of(policy(), scenario(*PRIVATE), 0.5)) == []
    assert list(faults_of(Policy.model_validate(FREE), scenario("privacy.unit=none"), None)) == []


BEYOND: dict[str, tuple[dict[str, Any], tuple[str, ...], float | None, str]] = {
    "no noise": ({}, ("privacy.unit=none",), None, "expected noise that the site adds itself, the server asks for no"),
    "noise by the server": ({}, ("privacy.unit=client",), 3.0, r"the exact model \(privacy.unit = 'client'\)"),
    "another unit": ({"units": ["local"]}, PRIVATE, 3.0, "privacy.unit: expected local, got record"),
    "no units": ({"units": []}, PRIVATE, 3.0, "privacy.unit: expected none, so no training, got record"),
    "less noise": ({}, PRIVATE, 0.49, "noise multiplier: expected at least 0.5, got 0.49"),
    "noise that is no number": ({}, PRIVATE, float("nan"), "noise multiplier: expected at least 0.5, got nan"),
    "noise left out": ({}, PRIVATE, None, "noise multiplier: expected at least 0.5, got none"),
    "noise of the server's seed": ({}, PRIVATE[:2], 3.0, "privacy.rng: expected 'secure'"),
    "few sites": ({"fewest_sites": 5}, PRIVATE, 3.0, "deployment.sites: expected at least 5, got 4"),
    "another strategy": ({"strategies": ["krum"]}, PRIVATE, 3.0, "strategy: expected one of krum, got fedavg"),
}


@pytest.mark.parametrize("name", BEYOND)
def test_what_is_beyond_it_is_named(name: str):
    allowed, changes, noise, said = BEYOND[name]
    faults = list(faults_of(policy(**allowed), scenario(*changes), noise))
    assert len(faults) == 1
    assert re.search(said, faults[0])

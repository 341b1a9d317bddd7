"""A scenario that asks for something that would not be run is refused; sections that are switched off are not."""

from pathlib import Path

import pytest
import tomli_w

from fedsim.mistakes import Mistake
from fedsim.planning.checks import check
from fedsim.results import run_directory as results
from fedsim.scenario import catalog
from fedsim.scenario.files import read

GOOD = 'title = "x"\ntask = "hospital/heart"\n'
PRIVATE = '[privacy]\nunit = "record"\nepsilon = 8.0\ndelta = 1e-4\n'
ATTACKED = '[attack]\nname = "sign-flip"\nshare = 0.5\n'
SETTINGS_OF_PRIVACY = {
    "epsilon": "1.0",
    "delta": "1e-4",
    "clip": "2.0",
    "noise_multiplier": "1.0",
    "neighbours": '"replace-one"',
    "rng": '"secure"',
    "tuning": "{ runs = 4 }",
    "loose_delta": "true",
    "adaptive_clip": "{ quantile = 0.5 }",
    "correlated": "true",
}


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "x.toml"
    path.write_text(GOOD + text)
    return path


@pytest.mark.parametrize("name", SETTINGS_OF_PRIVACY)
def test_a_setting_of_privacy_without_a_unit_is_refused(tmp_path: Path, name: str):
    """In a file, on the command line, and also where another file says that there is no unit."""
    path = write(tmp_path, f"[privacy]\n{name} = {SETTINGS_OF_PRIVACY[name]}\n")
    needed = ["training.site_turns=2"]  # by correlated noise
    with pytest.raises(Mistake) as caught:
        read(path, needed)
    assert str(caught.value).startswith(f"privacy.{name}: expected unit beside {name}, without which nobody is prote")
    assert str(caught.value).endswith(f"; e.g. privacy.unit=record ({path}:4)")

    change = f"privacy.{name}={SETTINGS_OF_PRIVACY[name]}"
    with pytest.raises(Mistake, match=f"^privacy.{name}: expected unit beside {name}, .*--set privacy.{name}="):
        read(write(tmp_path, ""), [change, *needed])
    with pytest.raises(Mistake, match=f"^privacy.{name}: expected another privacy.unit than 'none' beside it;"):
        read(write(tmp_path, '[privacy]\nunit = "none"\n'), [change, *needed])


def test_every_setting_of_privacy_is_tried():
    from fedsim.scenario.schema import Privacy

    assert set(SETTINGS_OF_PRIVACY) == set(Privacy.model_fields) - {"unit"}


def test_all_settings_without_a_unit_are_named(tmp_path: Path):
    with pytest.raises(Mistake, match="expected unit beside epsilon, delta and clip, without which"):
        read(write(tmp_path, "[privacy]\nepsilon = 1.0\ndelta = 1e-4\nclip = 1.0\n"))


@pytest.mark.parametrize("changes", [["privacy.unit=none"], ["privacy.epsilon=1", "privacy.unit=none"]])
def test_privacy_may_be_switched_off(tmp_path: Path, changes: list[str]):
    assert not read(write(tmp_path, PRIVATE), changes).private
    assert not read(write(tmp_path, PRIVATE), epsilon="none").private
    assert not read(write(tmp_path, '[privacy]\nunit = "none"\nepsilon = 1.0\n')).private


def test_an_epsilon_alone_means_records(tmp_path: Path):
    assert read(write(tmp_path, ""), ["privacy.delta=1e-4"], "1").privacy.unit == "record"
    assert read(write(tmp_path, "[privacy]\ndelta = 1e-4\n"), epsilon="1").privacy.unit == "record"


REFUSED = {
    '[attack]\nnmae = "sign-flip"': "attack.nmae: expected name beside nmae, without which nobody attacks; "
    "did you mean attack.name=sign-flip by nmae?",
    '[attack]\nsort = "sign-flip"\nshare = 0.5': "attack.share: expected name beside share and sort, without which "
    "nobody attacks; did you mean attack.name=sign-flip by sort?",
    '[attack]\nnaem = "sign-flp"': "did you mean attack.name by naem?",
    "[attack]\nshare = 0.5": "attack.share: expected name beside share, without which nobody attacks; "
    "e.g. attack.name=sign-flip",
    '[attack]\nsites = ["cleveland"]': "attack.sites: expected name beside sites",
    "[attack]\nfactor = 4": "attack.factor: expected name beside factor",
    '[strategy]\nnmae = "krum"': "strategy.nmae: expected name beside nmae; did you mean strategy.name=krum by nmae?",
    "[strategy]\nf = 1": "strategy.f: expected name beside f; e.g. strategy.name=krum",
    "[faults]\ncrash_round = 3": "faults.crash_round: expected faults.crash beside it",
    "[faults]\ncrash = 0.5\ncrash_round = 21": "faults.crash_round: expected a round up to 20, the last, got 21",
    "[faults]\nstraggler_steps = 3": "faults.straggler_steps: expected faults.straggler beside it",
    "[faults]\nstraggler = 0.5\nstraggler_steps = 2": "faults.straggler_steps: expected fewer than "
    "training.local_steps, which is 2, got 2",
    '[secure_aggregation]\ndrop_out_at = "keys"': "secure_aggregation.drop_out_at: expected faults.drop_out beside it",
    'engine = "serial"\ncohort_size = 4': "cohort_size: expected engine = 'cohort' beside it, got 'serial'",
    "[checkpoints]\nseconds = 5\nevery_rounds = 2": "checkpoints.seconds: expected either it or",
    "[partition]\nseed = 3": "partition.seed: expected none beside by = 'natural', which draws nothing",
    '[partition]\nby = "time"\nsites = 3\nseed = 3': "partition.seed: expected none beside by = 'time'",
    '[data]\nmodel = "mlp"': "data.model: expected none beside a task, which has a model of its own",
    f'[data]\nsha256 = "{"a" * 64}"': "data.sha256: expected data.path beside it",
    f'arms = ["local"]\n{ATTACKED}': "attack.name: expected federated among the arms beside it, got local",
    'arms = ["local", "centralized"]\nsecure_aggregation = true': "secure_aggregation: expected federated among the",
    'arms = ["local"]\n[training]\nsites_per_round = 2': "training.sites_per_round: expected federated among the arms",
    'arms = ["local"]\n[faults]\ndrop_out = 0.5': "faults.drop_out: expected federated among the arms beside it",
}


@pytest.mark.parametrize("text", REFUSED)
def test_a_setting_without_effect_is_refused(tmp_path: Path, text: str):
    path = write(tmp_path, text)
    with pytest.raises(Mistake) as caught:
        read(path)
    assert REFUSED[text] in str(caught.value)
    assert str(path) in str(caught.value)
    read(path, all_used=False)


@pytest.mark.parametrize(
    ("text", "change", "message"),
    [
        ('[attack]\nname = "none"', "attack.share=0.5", "attack.share: expected another attack.name than 'none'"),
        ("secure_aggregation = false", "secure_aggregation.bits=16", "expected secure_aggregation.on = true beside it"),
        (
            '[privacy]\nunit = "local"\nepsilon = 1.0\ndelta = 1e-4',
            "privacy.neighbours=add-or-remove-one",
            "privacy.neighbours: expected 'replace-one' with privacy.unit = 'local'",
        ),
    ],
)
def test_a_change_to_a_section_that_is_off_is_refused(tmp_path: Path, text: str, change: str, message: str):
    with pytest.raises(Mistake) as caught:
        read(write(tmp_path, text), [change])
    assert message in str(caught.value)
    assert f"(--set {change})" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        (ATTACKED, ["attack.name=none"]),
        ('[attack]\nname = "none"\nshare = 0.5\nfactor = 4', []),
        ("[secure_aggregation]\non = false\nbits = 16", []),
        ("secure_aggregation = true", ["secure_aggregation.bits=16"]),
        ('[secure_aggregation]\ndrop_out_at = "keys"\n[faults]\ndrop_out = 0.1', []),
        ("cohort_size = 4", []),
        ("[partition]\nsites = 3\nseed = 3", []),
        ("[faults]\nstraggler = 0.5", []),
        ("[checkpoints]\nseconds = 10.0\nevery_rounds = 2", []),  # as a run that said every_rounds writes it
    ],
)
def test_what_is_switched_off_or_has_an_effect_is_taken(tmp_path: Path, text: str, changes: list[str]):
    read(write(tmp_path, text), changes)


def test_all_settings_without_effect_are_said_at_once(tmp_path: Path):
    with pytest.raises(Mistake) as caught:
        read(write(tmp_path, "[privacy]\nepsilon = 1.0\n[attack]\nshare = 0.5\n[faults]\ncrash_round = 3\n"))
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "privacy.epsilon",
        "attack.share",
        "faults.crash_round",
    ]


@pytest.mark.parametrize("name", catalog.titles("scenarios"))
def test_the_scenarios_that_come_with_fedsim_ask_for_nothing_in_vain(tmp_path: Path, name: str):
    """Nor do they when they are written down with all defaults, as a run directory has them."""
    scenario = read(name)
    path = tmp_path / "scenario.toml"
    path.write_text(tomli_w.dumps(scenario.values()))
    assert read(path) == scenario
    results.write_scenario(tmp_path, scenario)


@pytest.mark.parametrize("key", ["attack.share", "faults.crash", "faults.straggler", "faults.spoiled"])
def test_a_share_that_makes_no_site_is_refused(tmp_path: Path, key: str):
    text = '[attack]\nname = "sign-flip"\nshare = 0.5' if key == "attack.share" else ""
    scenario = read(write(tmp_path, text), [f"{key}=0.1", "privacy.unit=none"])
    with pytest.raises(Mistake, match=f"{key}: expected a share that makes a site of 4, got 0.1, which makes none"):
        check(scenario)
    check(read(write(tmp_path, text), [f"{key}=0.25", "privacy.unit=none"]))

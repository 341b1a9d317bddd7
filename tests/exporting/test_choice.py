"""Which model of a run is handed on, and what its promise does not cover."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from fedsim.experiments.arms import Job
from fedsim.exporting import facts
from fedsim.exporting.choice import Chosen, Wanted, choose
from fedsim.mistakes import Mistake
from fedsim.results.run_directory import Run
from tests.runs import ARMS, make_run

GONE = "expected the files of the training {}, they are gone"  # as a run that was made by hand has none


def of_sites(run: Run) -> Run:
    """Let the run protect whole sites."""
    privacy = run.scenario.privacy.model_copy(update={"unit": "client"})
    return replace(run, scenario=run.scenario.model_copy(update={"privacy": privacy}))


@pytest.mark.parametrize(
    ("wanted", "key"),
    [
        (Wanted(), "federated-private-0"),
        (Wanted(private=False), "federated-plain-0"),
        (Wanted(seed=2), "federated-private-2"),
        (Wanted(arm="centralized"), "centralized-private-0"),
        (Wanted(arm="local", site="north", private=False), "local-plain-0"),
        (Wanted(site="north"), "federated-private-0"),
    ],
)
def test_the_training(tmp_path: Path, wanted: Wanted, key: str):
    with pytest.raises(Mistake, match=GONE.format(key)):
        choose(make_run(tmp_path), wanted)


@pytest.mark.parametrize(("arms", "key"), [(ARMS[1:], "centralized-plain-0"), (ARMS[:1], "federated-plain-0")])
def test_the_default_without_privacy(tmp_path: Path, arms: tuple[str, ...], key: str):
    with pytest.raises(Mistake, match=GONE.format(key)):
        choose(make_run(tmp_path, private=False, arms=arms), Wanted())


def test_no_such_training(tmp_path: Path):
    run = make_run(tmp_path)
    for wanted, expected in (
        (Wanted(arm="pooled"), "--arm: expected one of federated, centralized, local, got pooled"),
        (Wanted(seed=4), "--seed: expected one of 0, 1, 2, 3, got 4"),
    ):
        with pytest.raises(Mistake, match=expected):
            choose(run, wanted)
    with pytest.raises(Mistake, match="--private: expected a run with privacy, this one has none"):
        choose(make_run(tmp_path, private=False), Wanted(private=True))
    failed = {"arm": "federated", "private": True, "seed": 0, "reason": "it diverged"}
    run = replace(run, manifest=run.manifest | {"failed": [failed]})
    with pytest.raises(Mistake, match="expected a training federated-private-0 that is finished, it failed: it div"):
        choose(run, Wanted())


def test_an_arm_without_privacy_is_not_handed_on_as_private(tmp_path: Path):
    run = of_sites(make_run(tmp_path))
    with pytest.raises(Mistake, match="--arm centralized: expected an arm that was trained under privacy, federated;"):
        choose(run, Wanted(arm="centralized"))
    with pytest.raises(Mistake, match=GONE.format("centralized-plain-0")):
        choose(run, Wanted(arm="centralized", private=False))


def test_what_a_site_keeps_at_home_is_not_covered_where_sites_are_protected(tmp_path: Path):
    run = of_sites(make_run(tmp_path))
    with pytest.raises(Mistake, match="and not the model that a site keeps at home"):
        choose(run, Wanted(site="north"))
    for wanted, key in (
        (Wanted(), "federated-private-0"),
        (Wanted(site="north", private=False), "federated-plain-0"),
    ):
        with pytest.raises(Mistake, match=GONE.format(key)):
            choose(run, wanted)


def test_ranges_of_the_records_are_not_covered(tmp_path: Path):
    run = make_run(tmp_path)
    run = replace(run, ledger=run.ledger | {"ranges_fitted": True})
    with pytest.raises(Mistake, match="which no epsilon covers"):
        choose(run, Wanted())
    with pytest.raises(Mistake, match=GONE.format("federated-plain-0")):
        choose(run, Wanted(private=False))


@pytest.mark.whole
def test_a_plain_model_of_a_private_run_has_no_guarantee(tmp_path: Path):
    run = make_run(tmp_path)
    for private in (True, False):
        chosen = Chosen(run, Job("federated", private, 1), "", cast(Any, None), {}, ())
        stated = facts._privacy(chosen, None)
        assert stated["guarantee"] is private
        assert bool(stated["epsilon"]) is private

import pytest

from fedsim.mistakes import Mistake
from fedsim.planning.checks import refuse
from fedsim.planning.secure_checks import secure_faults
from fedsim.scenario.files import read
from fedsim.scenario.schema import SecureAggregation
from fedsim.strategy.make import strategy_of

ON = "secure_aggregation=true"


def check(*overrides: str, sites: int = 4, params: int = 31) -> None:
    on = [] if any(one.startswith("secure") for one in overrides) else [ON]
    scenario = read("hospital-heart", [*on, *overrides])
    refuse(secure_faults(scenario, strategy_of(scenario, sites), sites, params))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("strategy.name=krum", "strategy.name: expected one that uses the mean of the updates alone .* got krum"),
        ("strategy.name=scaffold", "the mean of the updates alone"),
        ("strategy={class='flwr.serverapp.strategy:FedAvg'}", "the mean of the updates alone"),
        ("attack={name='sign-flip', share=0.25}", "attack.name: expected one that poisons rows .* got sign-flip"),
        ("training.sites_per_round=2", "at least 3 sites in every round, got 2"),
        ("training.site_turns=2", "at least 3 sites in every round, got 2"),
        ("secure_aggregation.drop_outs=2", "secure_aggregation.drop_outs: expected fewer than half .* got 2 of 4"),
        ("training.site_sampling_rate=0.5", "training.site_sampling_rate: expected none beside secure_aggregation"),
        ("privacy.unit=client", "a server that sees no update can't clip it"),
        ("faults.joins_late={cleveland=2, hungarian=2}", "at least 3 sites in every round, got 2"),
        (
            "secure_aggregation={range=1e6, bits=48}",
            "secure_aggregation.range: expected one that leaves room for a sum",
        ),
    ],
)
def test_what_can_not_be_aggregated_securely_is_a_mistake(override: str, message: str):
    with pytest.raises(Mistake, match=message):
        check(override)


@pytest.mark.parametrize(("sites", "params"), [(501, 10), (400, 1_000_000)])
def test_a_size_that_would_take_hours_is_a_mistake(sites: int, params: int):
    with pytest.raises(Mistake, match=f"got {sites} sites and {params} parameters"):
        check(sites=sites, params=params)


@pytest.mark.parametrize(
    "override", ["training.sites_per_round=3", "attack={name='label-flip', share=0.25}", "strategy.name=fedadam"]
)
def test_what_can_be_is_none(override: str):
    check(override)
    check(override, sites=400, params=100_000)


@pytest.mark.parametrize(
    ("sites", "share", "threshold"), [(3, 2 / 3, 2), (4, 2 / 3, 3), (4, 0.5000001, 3), (10, 1.0, 10), (100, 0.51, 51)]
)
def test_the_threshold_is_a_share_rounded_up_and_above_half(sites: int, share: float, threshold: int):
    assert SecureAggregation(threshold=share).threshold_of(sites) == threshold


def test_the_default_threshold_is_two_thirds_and_drop_outs_are_one_in_its_place():
    assert [SecureAggregation().threshold_of(sites) for sites in (3, 4, 5, 9, 10)] == [2, 3, 4, 6, 7]
    assert [SecureAggregation(drop_outs=3).threshold_of(sites) for sites in (7, 10)] == [4, 7]


@pytest.mark.parametrize(
    ("text", "on"), [("true", True), ("false", False), ("{}", True), ("{bits=20}", True), ("{on=false}", False)]
)
def test_a_section_or_true_switches_it_on(text: str, on: bool):
    assert read("hospital-heart", [f"secure_aggregation={text}"]).secure_aggregation.on == on


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("secure_aggregation.threshold=0.5", "secure_aggregation.threshold: expected a number > 0.5, got 0.5"),
        ("secure_aggregation.bits=60", "secure_aggregation.bits: expected a number <= 48, got 60"),
        ("secure_aggregation.range=0", "secure_aggregation.range: expected a number > 0, got 0"),
        ("secure_aggregation.bit=8", "secure_aggregation.bit: unknown key; did you mean 'bits'"),
        ("secure_aggregation={threshold=0.6, drop_outs=1}", "expected threshold or drop_outs, which say the same"),
        ("secure_aggregation=3", "secure_aggregation: expected true, false or a section, got 3"),
        (
            "secure_aggregation.drop_out_at=late",
            "secure_aggregation.drop_out_at: expected 'keys', 'shares', 'train' or",
        ),
    ],
)
def test_a_bad_value_is_named(override: str, message: str):
    with pytest.raises(Mistake, match=message):
        read("hospital-heart", [override])


def test_noise_is_not_shared_with_a_run_without_it():
    names = {read("hospital-heart", given).release for given in ([], [ON], ["secure_aggregation.bits=20"])}
    assert len(names) == 3
    assert read("hospital-heart", ["secure_aggregation=false"]).release in names

"""Sites that are not in step: the schedule, and FedBuff against a simulation event by event."""

import heapq
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from fedsim.experiments.arms import GLOBAL, Job, run_job
from fedsim.flower.adapter import Adapter
from fedsim.flower.grid import node_of
from fedsim.mistakes import Mistake, RunFailed
from fedsim.planning.checks import refuse, strategy_faults
from fedsim.planning.noise import noise_for
from fedsim.planning.participation import most_rounds, share_of_sites, sites_of_round
from fedsim.randomness import stream
from fedsim.strategy.arrivals import Arrivals, durations
from strategies.fedavg import FedAvg
from strategies.fedbuff import FedBuff
from tests.nodes import arrays, good, grid_of
from tests.strategy.test_local_rules import ROUNDS, STEPS, WEIGHTS, Hospital, Vector, hospitals, same, trained  # noqa: F401

SPREAD = "training.duration_spread=1.0"
NAMES = ["cleveland", "hungarian", "switzerland", "va_long_beach"]


# The schedule.


@given(
    seed=st.integers(0, 10**6),
    sites=st.integers(1, 8),
    k=st.integers(1, 8),
    concurrency=st.integers(1, 8),
    spread=st.sampled_from([0.0, 0.5, 2.0]),
)
def test_every_site_works_as_long_as_it_takes_and_on_one_thing(seed, sites, k, concurrency, spread):
    """Reconstructed from the flushes: who worked when, from the version he began with to his answer."""
    chosen = Arrivals(seed, sites, min(k, sites), min(concurrency, sites), spread)
    takes, flushes = durations(seed, sites, spread), [chosen.flush(number) for number in range(1, 30)]
    times = [0.0, *(flush.time for flush in flushes)]
    assert all(earlier <= later for earlier, later in pairwise(times))
    began_before = dict.fromkeys(range(sites), -1)
    for flush in flushes:
        assert len(flush.begun) == chosen.k
        assert list(flush.begun) == sorted(flush.begun)
        for site, version in flush.begun.items():
            assert began_before[site] < version < flush.number  # never in a buffer and at work at once
            began_before[site] = flush.number - 1
            assert times[version] + takes[site] <= flush.time + 1e-9  # it began when its version was there, or later
            assert flush.staleness(site) == flush.number - 1 - version >= 0


@given(seed=st.integers(0, 100), sites=st.integers(1, 8), concurrency=st.integers(1, 8))
def test_no_more_sites_are_at_work_than_may_be(seed: int, sites: int, concurrency: int):
    """With k = 1 each answer is a flush, and a site begins at the flush of its version."""
    chosen = Arrivals(seed, sites, 1, min(concurrency, sites), 1.0)
    flushes = [chosen.flush(number) for number in range(1, 40)]
    for now in range(len(flushes)):
        at_work = [
            site for flush in flushes[now:] for site, version in flush.begun.items() if version <= now < flush.number
        ]
        assert len(at_work) == len(set(at_work)) <= chosen.concurrency


def test_the_versions_that_are_kept_are_those_still_worked_with():
    chosen = Arrivals(3, 12, 2, 9, 1.5)
    flushes = [chosen.flush(number) for number in range(1, 60)]
    for place, flush in enumerate(flushes):
        later = {
            version for after in flushes[place + 1 :] for version in after.begun.values() if version < flush.number
        }
        assert later <= flush.in_use
        assert max(flush.in_use, default=0) < flush.number
    assert max(flush.staleness(site) for flush in flushes for site in flush.begun) >= 4


def test_sites_of_one_speed_are_in_step():
    chosen = Arrivals(0, 4, 4, 4, 0.0)
    assert [(chosen.flush(n).time, dict(chosen.flush(n).begun)) for n in (1, 2)] == [
        (1.0, dict.fromkeys(range(4), 0)),
        (2.0, dict.fromkeys(range(4), 1)),
    ]
    some = [Arrivals(0, 6, 2, 2, 0.0).flush(number) for number in range(1, 9)]  # answers of one instant come together
    assert [(flush.time, set(flush.begun.values())) for flush in some] == [(n, {n - 1}) for n in range(1, 9)]


def test_a_schedule_follows_from_the_seed_and_the_number_alone():
    one, other = Arrivals(7, 9, 3, 5, 1.0), Arrivals(7, 9, 3, 5, 1.0)
    assert one.flush(20) == other.flush(20)
    assert [one.flush(n) for n in (3, 1, 2)] == [other.flush(n) for n in (3, 1, 2)]
    assert one.flush(20) != Arrivals(8, 9, 3, 5, 1.0).flush(20)


def test_who_is_free_is_as_likely_to_begin_as_any_other():
    """Sites of one speed, one at work at a time; the chi-square test's false-alarm rate is 1e-6."""
    chosen = Arrivals(0, 20, 1, 1, 0.0)
    times = Counter(site for number in range(1, 4001) for site in chosen.flush(number).begun)
    assert stats.chisquare([times[site] for site in range(20)]).pvalue > 1e-6


def test_fast_sites_answer_more_often():
    chosen, takes = Arrivals(1, 10, 2, 10, 1.0), durations(1, 10, 1.0)
    times = Counter(site for number in range(1, 500) for site in chosen.flush(number).begun)
    assert times[int(takes.argmin())] > 3 * times[int(takes.argmax())]


def test_durations_have_the_stated_spread_and_median():
    logs = np.log(durations(0, 20_000, 0.7))
    assert abs(np.median(logs)) < 0.03
    assert logs.std() == pytest.approx(0.7, rel=0.03)
    assert (durations(0, 5, 0.0) == 1).all()
    assert (durations(0, 5, 0.7) == durations(0, 8, 0.7)[:5]).all()


@pytest.mark.parametrize(("k", "concurrency"), [(5, 4), (0, 4), (2, 5), (2, 0)])
def test_more_sites_than_there_are_can_not_be_waited_for(k: int, concurrency: int):
    with pytest.raises(ValueError, match=r"(k|concurrency): expected a number from 1 to the 4 sites there are, got"):
        Arrivals(0, 4, k, concurrency, 1.0)


# FedBuff, event by event.

SPEEDS = np.array([1.0, 1.3, 1.4, 2.0])  # so that who is behind does not hang on the draw


@pytest.fixture
def speeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedsim.strategy.arrivals.durations", lambda seed, sites, spread: SPEEDS)


def event_by_event(
    hospitals: list[Hospital],  # noqa: F811
    k: int,
    concurrency: int,
    eta: float,
    lie: Callable[[int, Vector], Vector],
) -> tuple[Vector, int]:
    """Train each site when it begins; return the model after some server steps, and the largest staleness."""
    takes, random = SPEEDS, stream(0, "arrivals")
    x, version, now, most = np.zeros(31), 0, 0.0, 0
    events: list[tuple[float, int, int, Vector]] = []
    buffer: list[tuple[int, int, Vector]] = []
    while version < ROUNDS:
        idle = sorted({0, 1, 2, 3} - {event[1] for event in events} - {site for site, _, _ in buffer})
        while idle and len(events) < concurrency:
            site = idle.pop(random.integers(len(idle)))
            change = hospitals[site].descend(x, STEPS, lambda g, w, step: g) - x
            heapq.heappush(events, (now + takes[site], site, version, lie(site, change)))
        now, site, began, change = heapq.heappop(events)
        buffer.append((site, version - began, change))
        if len(buffer) == k:
            whole = sum(WEIGHTS[site] for site, _, _ in buffer)
            x = x + eta * sum(WEIGHTS[site] / whole * change / np.sqrt(1 + tau) for site, tau, change in buffer)
            most = max(most, *(tau for _, tau, _ in buffer))
            buffer, version = [], version + 1
    return x, most


@pytest.mark.parametrize("engine", ["serial", "cohort"])
@pytest.mark.parametrize(("k", "concurrency", "eta"), [(1, 4, 1.0), (2, 4, 0.8), (3, 4, 1.0), (2, 2, 1.0), (2, 3, 1.0)])
@pytest.mark.usefixtures("speeds")
def test_fedbuff_is_algorithm_1(scenario, hospitals, engine, k, concurrency, eta):  # noqa: F811
    expected, most = event_by_event(hospitals, k, concurrency, eta, lambda site, change: change)
    settings = [f"strategy={{ name='fedbuff', k={k}, concurrency={concurrency}, eta={eta} }}", SPREAD]
    same(trained(scenario, *settings, engine=engine)[GLOBAL], expected)
    assert most >= 1 or concurrency == 2


@pytest.mark.usefixtures("speeds")
def test_attackers_turn_around_what_they_changed_in_the_models_they_began_with(scenario, hospitals):  # noqa: F811
    expected, _ = event_by_event(hospitals, 3, 4, 1.0, lambda site, change: -2 * change)
    assert len(set(Arrivals(0, 4, 3, 4, 1.0).flush(2).begun.values())) == 2  # not all began with one
    attack = ["attack.name=sign-flip", "attack.factor=2", "attack.share=1.0"]
    settings = ["strategy={ name='fedbuff', k=3 }", SPREAD, *attack]
    same(trained(scenario, *settings)[GLOBAL], expected)


def test_with_all_sites_in_step_it_is_fedavg(scenario):
    same(trained(scenario, "strategy.name=fedbuff", "strategy.k=4")[GLOBAL], trained(scenario)[GLOBAL])


@pytest.mark.whole
@pytest.mark.parametrize("private", [False, True])
def test_serial_and_cohort_agree_on_sites_that_are_not_in_step(scenario, private: bool):
    settings = ["strategy.name=fedbuff", SPREAD, "training.sampling_rate=0.5", "training.rounds=6"]
    one, other = (trained(scenario, *settings, private=private, engine=engine) for engine in ("serial", "cohort"))
    np.testing.assert_allclose(other[GLOBAL], one[GLOBAL], rtol=1e-4, atol=1e-6)


@pytest.mark.whole
@pytest.mark.usefixtures("speeds")
def test_a_site_pays_when_it_answers_and_the_busiest_keeps_the_budget(scenario):
    chosen = scenario("strategy.name=fedbuff", SPREAD, "training.rounds=9")
    found = run_job(chosen, Job("federated", True, 0), lambda number: None)
    whole = Arrivals(0, 4, 2, 4, 1.0)
    expected = [(n, NAMES[site]) for n in range(1, 10) for site in whole.flush(n).begun]
    assert [(entry.round, entry.site) for entry in found.ledger.entries] == expected
    most = max(Counter(site for _, site in expected).values())
    assert most_rounds(chosen, 0, NAMES) == most < 9
    spent = {name: found.ledger.epsilon(name) for name in NAMES}
    assert 0.97 < max(spent.values()) <= 1.0
    assert min(spent.values()) < 0.9
    assert found.notes == []
    assert noise_for(chosen, 0, "federated") < noise_for(scenario("training.rounds=9"), 0, "federated")


def test_the_other_arms_do_as_much_as_the_buffer_takes(scenario):
    chosen = scenario("strategy.name=fedbuff", SPREAD)
    assert sites_of_round(chosen, 0, NAMES, 3) == list(Arrivals(0, 4, 2, 4, 1.0).flush(3).begun)
    assert share_of_sites(chosen, NAMES) == 0.5


@pytest.mark.whole
@pytest.mark.parametrize("faults", [["faults.drop_out=0.4"], ["faults.spoiled=0.3"], ["faults.crash=0.3"]])
@pytest.mark.usefixtures("speeds")
def test_who_fails_is_left_out_and_the_schedule_goes_on(scenario, faults):
    chosen = scenario("strategy={ name='fedbuff', k=3 }", SPREAD, "training.rounds=8", *faults)
    found = run_job(chosen, Job("federated", True, 0), lambda number: None)
    assert found.notes
    assert len(found.ledger.entries) == 3 * 8
    assert all(value.isfinite().all() for value in found.models[GLOBAL].values())


def test_time_is_written_down_where_sites_differ_in_speed(scenario):
    buffered = run_job(scenario("strategy.name=fedbuff", SPREAD), Job("federated", False, 0), lambda number: None)
    assert buffered.curve["time"].tolist() == [Arrivals(0, 4, 2, 4, 1.0).flush(n).time for n in (1, 2)]
    slowest = durations(0, 4, 1.0).max()
    for strategy in ("strategy.name=fedavg", "strategy={ class='flwr.serverapp.strategy:FedAvg' }"):
        in_step = run_job(scenario(strategy, SPREAD), Job("federated", False, 0), lambda number: None)
        assert in_step.curve["time"].tolist() == pytest.approx([slowest, 2 * slowest])
    assert "time" not in run_job(scenario(), Job("federated", False, 0), lambda number: None).curve


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["strategy.k=5"], "strategy.k: expected a number from 1 to the 4 sites there are, got 5"),
        (["strategy.concurrency=5"], "strategy.concurrency: expected a number from 1 to the 4"),
        (["training.sites_per_round=2"], "training.sites_per_round: expected none beside fedbuff"),
        (["faults.joins_late.cleveland=2"], "faults.joins_late: expected none beside fedbuff"),
    ],
)
def test_what_does_not_go_together_is_said_before_anything_is_run(scenario, overrides, message):
    with pytest.raises(Mistake, match=message):
        refuse(strategy_faults(scenario("strategy.name=fedbuff", *overrides), 4, nn.Linear(30, 1)))


def test_a_buffer_of_failures_leaves_the_model_but_a_run_of_failures_fails(scenario):
    chosen = ["strategy={ name='fedbuff', k=1 }", "training.rounds=8"]
    found = run_job(scenario(*chosen, "faults.drop_out=0.5"), Job("federated", False, 0), lambda number: None)
    assert 0 < len(found.notes) < 8
    assert len(found.curve) == 8
    with pytest.raises(RunFailed, match="round 8: no site sent a usable model"):
        run_job(scenario(*chosen, "faults.drop_out=0.9999"), Job("federated", False, 0), lambda number: None)


# In the adapter.


def test_in_a_server_app_of_ones_own_it_needs_arrivals():
    with pytest.raises(ValueError, match=r"strategy FedBuff: expected arrivals beside it, such as Arrivals\("):
        Adapter(FedBuff())
    with pytest.raises(Mistake, match="strategy FedBuff: expected the 5 sites of its arrivals, got 4 nodes"):
        Adapter(FedBuff(), arrivals=Arrivals(0, 5, 2, 4, 1.0)).start(grid_of(good), arrays(), num_rounds=1)


def test_in_a_server_app_of_ones_own_it_runs():
    """Sites that answer with site + 1 whatever they get: what they changed is that less the model they began with."""
    arrivals = Arrivals(0, 4, 2, 4, 1.0)
    adapter = Adapter(FedBuff(), arrivals=arrivals)
    found = adapter.start(grid=grid_of(good), initial_arrays=arrays(), num_rounds=7).arrays["b"].numpy()
    x = [0.0]
    for number in range(1, 8):
        flush = arrivals.flush(number)
        changes = [(site + 1 - x[v]) / np.sqrt(number - v) for site, v in flush.begun.items()]
        x.append(x[-1] + sum(changes) / 2)
    np.testing.assert_allclose(found, x[-1], rtol=1e-5)
    assert set(adapter._models) <= arrivals.flush(7).in_use


@pytest.mark.parametrize("gone", [0, 1])
def test_under_privacy_the_denominator_is_the_whole_buffer(gone: int):
    """M5."""
    arrivals, grid = Arrivals(0, 4, 2, 4, 0.0), grid_of(good)
    adapter = Adapter(FedBuff(), {node_of(s): 1.0 for s in range(4)}, fixed_denominator=True, arrivals=arrivals)
    replies = list(grid.send_and_receive(adapter.configure_train(1, arrays(), ConfigRecord(), grid)))
    new, _ = adapter.aggregate_train(1, replies[gone:])
    np.testing.assert_allclose(new["b"].numpy(), sum(s + 1 for s in list(arrivals.flush(1).begun)[gone:]) / 2)


def test_a_strategy_that_waits_for_all_is_told_that_nothing_is_stale():
    class Told(FedAvg):
        reports = ("staleness",)

        def aggregate(self, center, updates, weights, state, reports):
            assert torch.equal(reports["staleness"], torch.zeros(4))
            return super().aggregate(center, updates, weights, state)

    Adapter(Told()).start(grid=grid_of(good), initial_arrays=arrays(), num_rounds=1)

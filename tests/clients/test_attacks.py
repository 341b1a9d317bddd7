"""Attacks and faults: what attackers send, who they are, and that everybody else's answers are left alone."""

import re

import numpy as np
import pytest
import torch

from clients.attacks import ALIE, IPM, Backdoor, FreeRider, Gaussian, LabelFlip, MinMax, Scaled, SignFlip, hidden
from fedsim.data.federation import Examples
from fedsim.experiments.arms import GLOBAL, Job, run_job
from fedsim.mistakes import Mistake
from fedsim.planning.misbehaviour import attack_of, attackers_of
from fedsim.randomness import stream
from fedsim.scenario import catalog
from fedsim.scenario.files import read

NAMES = list(catalog.titles("attacks"))
SITES = [f"site{number}" for number in range(20)]


def setting(attackers: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    center = torch.randn(6, generator=random)
    return center, center + 0.5 + 0.2 * torch.randn(attackers, 6, generator=random)


def forged(attack, attackers: int = 5, sites: int = 20) -> torch.Tensor:
    center, honest = setting(attackers)
    before = honest.clone()
    found = attack.forge(center, honest, sites, stream(0, "attack"))
    assert torch.equal(honest, before)
    return found


@pytest.mark.parametrize("attackers", [1, 2, 5])
@pytest.mark.parametrize("name", [name for name in NAMES if hasattr(catalog.load("attacks", name), "forge")])
def test_every_attacker_sends_a_model(name: str, attackers: int):
    found = forged(catalog.load("attacks", name)(), attackers)
    assert found.shape == (attackers, 6)
    assert found.isfinite().all()


def test_every_attack_poisons_or_forges_and_has_a_source():
    for name in NAMES:
        kind = catalog.load("attacks", name)
        assert hasattr(kind, "forge") or hasattr(kind, "poison")
        assert re.search(r"https://|see ``", kind.__doc__), name


def test_what_is_forged_is_what_the_papers_say():
    center, honest = setting()
    mean, std = honest.mean(0), honest.std(0, correction=0)
    torch.testing.assert_close(forged(SignFlip(2.0)), center - 2 * (honest - center))
    torch.testing.assert_close(forged(Scaled(3.0)), center + 3 * (honest - center))
    torch.testing.assert_close(forged(Backdoor(factor=4.0)), center + 4 * (honest - center))
    torch.testing.assert_close(forged(FreeRider()), center.expand(5, -1))
    torch.testing.assert_close(forged(IPM(0.5)), (center - 0.5 * (mean - center)).expand(5, -1))
    torch.testing.assert_close(forged(ALIE(z=1.2)), (mean - 1.2 * std).expand(5, -1))
    torch.testing.assert_close(forged(ALIE()), (mean - hidden(20, 5) * std).expand(5, -1))


def test_alie_hides_as_in_the_papers_example():
    """50 workers, 24 of them corrupted: s = 2, z = 1.43."""
    assert hidden(50, 24) == pytest.approx(1.43, abs=0.01)


def test_gaussian_noise_has_the_standard_deviation_that_is_asked_for():
    center = torch.zeros(20_000)
    found = Gaussian(0.3).forge(center, torch.ones(3, 20_000), 9, stream(0, "attack"))
    assert float(found.std()) == pytest.approx(0.3, rel=0.02)  # 60 000 numbers: 0.3 % is one standard error
    assert not torch.equal(found[0], found[1])


def test_min_max_goes_as_far_as_no_honest_model_is_from_another():
    _, honest = setting()
    point = forged(MinMax())[0]
    limit = torch.cdist(honest, honest).max()
    assert float((honest - point).norm(dim=1).max()) == pytest.approx(float(limit), rel=1e-4)
    assert torch.nn.functional.cosine_similarity(point - honest.mean(0), -honest.std(0, correction=0), dim=0) > 0.999


def test_flipped_labels_are_turned_around():
    rows = Examples(torch.zeros(4, 2), torch.tensor([0, 1, 2, 9]))
    assert LabelFlip().poison(rows, 10, stream(0, "poison")).target.tolist() == [9, 8, 7, 0]
    rows = Examples(torch.zeros(2, 2), torch.tensor([0.0, 1.0]))
    assert LabelFlip().poison(rows, 2, stream(0, "poison")).target.tolist() == [1.0, 0.0]


def test_a_backdoor_puts_its_trigger_into_a_share_of_the_rows():
    rows = Examples(torch.zeros(4000, 1, 2, 3), torch.zeros(4000))
    found = Backdoor(size=2, value=5.0, target=1, rate=0.25).poison(rows, 2, stream(0, "poison"))
    chosen = found.target == 1
    assert float(chosen.float().mean()) == pytest.approx(0.25, abs=0.03)  # four standard errors
    assert (found.inputs[chosen].flatten(1)[:, :2] == 5).all()
    assert (found.inputs[chosen].flatten(1)[:, 2:] == 0).all()
    assert (found.inputs[~chosen] == 0).all()
    with pytest.raises(ValueError, match=r"attack.target: expected a class below 2, got 2"):
        Backdoor(target=2).poison(rows, 2, stream(0, "poison"))


def attack(*overrides: str):
    return read("hospital-heart", ["attack.name=sign-flip", *overrides])


def test_a_larger_share_of_attackers_holds_a_smaller_one():
    few, many = (attackers_of(attack(f"attack.share={share}"), 3, SITES) for share in (0.2, 0.5))
    assert (len(few), len(many)) == (4, 10)
    assert few < many
    assert few != attackers_of(attack("attack.share=0.2"), 4, SITES)
    assert attackers_of(attack('attack.sites=["site3", "site1"]'), 0, SITES) == {1, 3}
    assert attackers_of(read("hospital-heart"), 0, SITES) == frozenset()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "expected either sites or share beside name"),
        (["attack.share=0.2", 'attack.sites=["site1"]'], "expected either sites or share beside name"),
        (["attack.share=1.5"], "attack.share: expected a number <= 1, got 1.5"),
        (
            ["attack.name=sign-flop", "attack.share=0.1"],
            "expected the name of an attack, got 'sign-flop'; did you mean",
        ),
        (
            ["attack.share=0.1", "attack.factr=2"],
            "attack.factr: sign-flip has no such hyperparameter; did you mean 'factor'",
        ),
        (["attack.share=0.1", "attack.factor=-2"], r"attack: factor: expected a number in \(0, inf\), got -2"),
        (['attack.sites=["site"]'], "expected sites of this federation, got 'site'"),
    ],
)
def test_a_wrong_attack_is_explained(overrides: list[str], message: str):
    with pytest.raises(Mistake, match=message):
        attack_of(attack(*overrides))
        attackers_of(attack(*overrides), 0, SITES)


def run(scenario, *overrides: str, private: bool = False):
    return run_job(scenario("training.rounds=2", *overrides), Job("federated", private, 0), lambda: None)


def weights(found) -> torch.Tensor:
    return found.models[GLOBAL]["weight"].flatten()


@pytest.mark.parametrize("engine", ["serial", "cohort"])
def test_a_free_rider_stops_its_weight_from_moving(scenario, engine: str):
    """In one round three of four honest weights move the model: 186 of 276."""
    one = ["training.rounds=1", f"engine={engine}"]
    alone = [
        weights(run(scenario, *one, "attack.name=free-rider", f"attack.sites={[*others]}".replace("'", '"')))
        for others in [["cleveland"], ["hungarian", "switzerland", "va_long_beach"]]
    ]
    torch.testing.assert_close(alone[0] + alone[1], weights(run(scenario, *one)), rtol=1e-4, atol=1e-6)


def test_attacks_are_the_same_on_both_engines_and_differ_from_none(scenario):
    clean = weights(run(scenario))
    for name in NAMES:
        chosen = [f"attack.name={name}", "attack.share=0.5"]
        one, other = (weights(run(scenario, *chosen, f"engine={engine}")) for engine in ("serial", "cohort"))
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(one, clean, atol=1e-4), name


def test_a_backdoor_is_noted_with_its_success(scenario):
    clean = run(scenario, "attack.name=backdoor", "attack.sites=[]").notes
    much = run(
        scenario, "attack.name=backdoor", "attack.share=0.5", "attack.value=5.0", "attack.factor=20.0", "attack.size=8"
    ).notes
    shares = [float(re.search(r"backdoor works on ([\d.]+)%", notes[-1])[1]) for notes in (clean, much)]
    assert shares[1] > 90


def test_an_attack_under_privacy_is_charged_like_an_honest_site(scenario):
    clean = run(scenario, private=True).ledger
    found = run(scenario, "attack.name=sign-flip", "attack.share=0.5", private=True).ledger
    assert found.entries == clean.entries


def test_dropping_out_is_drawn_for_each_site_and_round(scenario):
    notes = run_job(
        scenario("training.rounds=50", "faults.drop_out=0.3"), Job("federated", False, 0), lambda: None
    ).notes
    assert all(note.endswith("was left out: failed: dropped out") for note in notes)
    assert 40 <= len(notes) <= 80  # 200 draws at 0.3: 60, standard deviation 6.5
    assert len({note.split(" was")[0].split(": ")[1] for note in notes}) == 4


def test_a_crashed_site_does_not_come_back(scenario):
    notes = run_job(
        scenario("training.rounds=5", "faults.crash=0.25", "faults.crash_round=3"),
        Job("federated", False, 0),
        lambda: None,
    ).notes
    assert [note[:8] for note in notes] == ["round 3:", "round 4:", "round 5:"]
    assert len({note[8:] for note in notes}) == 1


def test_nan_is_set_aside_and_named(scenario):
    found = run(scenario, "faults.spoiled=0.25", "training.rounds=1")
    assert len(found.notes) == 1
    assert "expected finite numbers, got 31 NaN or Inf" in found.notes[0]
    assert weights(found).isfinite().all()


@pytest.mark.parametrize("engine", ["serial", "cohort"])
def test_a_straggler_takes_fewer_steps_and_is_charged_for_those(scenario, engine: str):
    found = run(scenario, "faults.straggler=0.5", f"engine={engine}", private=True)
    by_site: dict[str, set[int]] = {}
    for entry in found.ledger.entries:
        by_site.setdefault(entry.site, set()).add(entry.mechanism.steps)
    assert sorted(map(sorted, by_site.values())) == [[1], [1], [2], [2]]


def test_faults_and_attacks_shape_what_is_released():
    """They are in the name of the noise, so that two variants share none."""
    assert attack("attack.share=0.2").release != read("hospital-heart").release
    assert read("hospital-heart", ["faults.spoiled=0.1"]).release != read("hospital-heart").release
    np.testing.assert_equal(read("hospital-heart").release, read("hospital-heart").release)

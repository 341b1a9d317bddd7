"""The private look: what it costs, that no more can be told from it, and that nothing that was spent is forgotten."""

import copy
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import beta

from fedsim.mistakes import Mistake
from fedsim.privacy.discrete_laplace import system_random
from fedsim.privacy.looks import Account, Look, account_of, epsilon_of, noisy, shared_out
from tests.cases import others_whole
from tests.privacy.test_discrete_laplace import source

SHAPES = {"age": (3, 11), "sex": (3, 4)}


def look(key: str, epsilon: str = "1", when: str = "2026-01-01T00:00:00+00:00") -> Look:
    return Look(key, when, tuple(shared_out(Fraction(epsilon), SHAPES)))


@pytest.mark.parametrize("count", [1, 2, 3, 7, 60])
@pytest.mark.parametrize("epsilon", ["1", "0.1", "2.5"])
def test_the_shares_of_the_histograms_add_up_to_the_epsilon_exactly(count: int, epsilon: str):
    releases = shared_out(Fraction(epsilon), {f"c{number}": (2, 3) for number in range(count)})
    assert sum(release.epsilon for release in releases) == Fraction(epsilon)
    assert len({release.epsilon for release in releases}) == 1
    assert len(releases) == count


def test_every_count_gets_noise_of_its_own():
    (release,) = shared_out(Fraction(1, 20), {"age": (30, 20)})
    counts = np.arange(600).reshape(30, 20)
    noise = noisy(counts, release, source("own")) - counts
    assert noise.shape == (30, 20)
    assert noise.dtype.kind == "i"
    flat = noise.ravel().astype(float)
    assert abs(np.corrcoef(flat[:-1], flat[1:])[0, 1]) < 0.25  # six standard deviations
    assert len(np.unique(noise)) > 50
    assert (noise < 0).any()
    assert noisy.__defaults__ == (system_random,)


def proven(count_with: int, count_without: int, trials: int, alpha: float) -> float:
    """Return a lower bound on epsilon from how often an event came, with and without a row."""
    least_with = beta.ppf(alpha, count_with, trials - count_with + 1)
    most_without = beta.ppf(1 - alpha, count_without + 1, trials - count_without)
    return math.log(least_with / most_without)


@pytest.mark.parametrize("epsilon", others_whole(["1", "2"]))
def test_an_attacker_proves_no_more_than_the_epsilon_of_a_look(epsilon: str):
    """The likelihood ratio of the event that tells most: the row's bins of all histograms are above what they were.

    With half of the noise, or with the whole epsilon for each histogram, the bound would be far above the claim; the
    false alarm rate is 2e-6.
    """
    releases = shared_out(Fraction(epsilon), {"age": (1, 1), "sex": (1, 1)})
    trials = 6000
    came = {}
    for rows in (0, 1):
        below = source("audit", epsilon, rows)
        counts = np.full((1, 1), rows)
        came[rows] = sum(
            all(int(noisy(counts, release, below)[0, 0]) >= 1 for release in releases) for _ in range(trials)
        )
    bound = proven(came[1], came[0], trials, 1e-6)
    assert bound <= float(epsilon)
    assert bound > 0.6 * float(epsilon)  # the attack has teeth


def test_an_account_adds_up_all_looks_and_comes_back_from_its_file():
    account = Account("t.csv").charged(look("a", "0.1")).charged(look("b", "0.2"))
    assert account.epsilon == Fraction("0.3")
    document = account.as_json()
    assert document["epsilon"] == {"each site": 0.3}
    assert (document["unit"], document["neighbours"], document["delta"]) == ("record", "add-or-remove-one", 0)
    assert [entry["round"] for entry in document["entries"]] == [1, 1, 2, 2]
    assert {entry["kind"] for entry in document["entries"]} == {"noisy-histogram"}
    assert {entry["mechanism"]["rng"] for entry in document["entries"]} == {"secure"}
    assert sum(Fraction(entry["mechanism"]["epsilon"]) for entry in document["entries"]) == Fraction("0.3")
    assert account_of(document, "x") == account


def test_two_accounts_of_a_table_hold_each_look_once():
    first = Account("t.csv").charged(look("a", when="2026-01-01T00:00:00+00:00"))
    both = first.charged(look("b", "2", when="2026-01-02T00:00:00+00:00"))
    other = first.charged(look("c", "4", when="2026-01-03T00:00:00+00:00"))
    merged = both.with_all_of(other)
    assert [seen.key for seen in merged.looks] == ["a", "b", "c"]
    assert merged.epsilon == 7
    assert other.with_all_of(both) == merged


@pytest.mark.parametrize("damage", ["entries", "epsilon", "share", "text", "more", "list"])
def test_a_changed_account_is_refused_and_not_begun_anew(damage: str):
    document = copy.deepcopy(Account("t.csv").charged(look("a")).as_json())
    if damage == "entries":
        document["entries"].pop()
    elif damage == "epsilon":
        document["epsilon"]["each site"] = 0.5
    elif damage == "share":
        document["entries"][0]["mechanism"]["epsilon"] = "1/0"
    elif damage == "text":
        document["entries"] = "none"
    elif damage == "more":
        document["entries"][0]["note"] = "x"
    else:
        document["entries"] = [[]]
    with pytest.raises(Mistake, match=r"x: expected the ledger .* nothing is released"):
        account_of(document, "x")


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("0.5", Fraction(1, 2)), (".25", Fraction(1, 4)), ("100", 100)])
def test_an_epsilon_is_read_exactly(text: str, value: Fraction):
    assert epsilon_of(text) == value


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e3", "101", "0.00001", "1/3", "0.12345678901", "", "x"])
def test_what_is_no_epsilon_is_refused(text: str):
    with pytest.raises(Mistake, match="--epsilon: expected a number from"):
        epsilon_of(text)

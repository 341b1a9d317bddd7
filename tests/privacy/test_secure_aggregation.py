import hashlib
from collections.abc import Iterable

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedsim.privacy import secure_aggregation, shamir
from fedsim.privacy.secure_aggregation import Party, Refused, Terms, unmasked_sum

SITES = range(1, 6)


class Round:
    """A round of five sites with a threshold of three, in which sites drop out before some step."""

    def __init__(self, size: int = 40, number: int = 1, terms: Terms | None = None) -> None:
        self.terms = terms or Terms(number, 5, 3)
        self.parties = {site: Party(site, self.terms) for site in SITES}
        self.values = {site: np.random.default_rng(site).integers(0, 2**64, size, np.uint64) for site in SITES}

    def run(self, drop: dict[int, Iterable[int]]) -> np.ndarray:
        """Return the server's sum; ``drop`` is {step: sites that are gone before it}."""
        self.keys = {site: self.parties[site].advertise() for site in self._left(SITES, drop, 0)}
        sent = {site: self.parties[site].share(self.keys) for site in self._left(self.keys, drop, 1)}
        self.masked = {
            site: self.parties[site].mask(self.values[site], {o: sent[o][site] for o in sent if o != site})
            for site in self._left(sent, drop, 2)
        }
        left = self._left(self.masked, drop, 3)
        self.unmaskings = {site: self.parties[site].unmask([*self.masked]) for site in left}
        return unmasked_sum(self.terms, self.keys, self.masked, self.unmaskings)

    def expected(self) -> np.ndarray:
        return np.sum([self.values[site] for site in self.masked], axis=0, dtype=np.uint64)

    @staticmethod
    def _left(sites: Iterable[int], drop: dict[int, Iterable[int]], step: int) -> list[int]:
        return [site for site in sites if site not in drop.get(step, ())]


def test_the_sum_is_exact_when_all_answer():
    """G7: second check of five."""
    one = Round()
    np.testing.assert_array_equal(one.run({}), one.expected())


@pytest.mark.parametrize("step", range(4))
@pytest.mark.parametrize("gone", [(2,), (1, 5)])
def test_the_sum_of_those_who_answered_is_exact_when_up_to_two_of_five_drop_out(step: int, gone: tuple[int, ...]):
    """G7: third check, before each of the four steps."""
    one = Round()
    np.testing.assert_array_equal(one.run({step: gone}), one.expected())
    assert len(one.masked) == (5 if step == 3 else 5 - len(gone))


def test_sites_may_drop_out_at_different_steps():
    one = Round()
    np.testing.assert_array_equal(one.run({2: (4,), 3: (1,)}), one.expected())


@pytest.mark.parametrize("step", range(4))
def test_below_the_threshold_nothing_is_revealed(step: int):
    """G7: fourth check."""
    with pytest.raises(Refused, match="expected"):
        Round().run({step: (1, 2, 3)})


@pytest.mark.parametrize(("sites", "threshold"), [(5, 2), (4, 2), (5, 6), (2, 2), (5, 0)])
def test_terms_under_which_a_server_could_learn_a_vector_are_refused(sites: int, threshold: int):
    with pytest.raises(ValueError, match="a threshold above half"):
        Terms(1, sites, threshold)


def test_a_server_that_asks_for_both_kinds_of_shares_is_refused():
    """Once a site was counted as there, nobody says its key, and the other way round."""
    one = Round()
    one.run({})
    with pytest.raises(Refused, match="each is taken once"):
        one.parties[1].unmask([1, 2, 3])


def test_a_server_that_lists_strangers_or_leaves_the_asked_site_out_is_refused():
    with pytest.raises(Refused, match="took part"):
        _unmask_of(Round(), [1, 2, 3, 9])
    with pytest.raises(Refused, match="took part"):
        _unmask_of(Round(), [2, 3, 4])


def _unmask_of(one: Round, answered: list[int]) -> None:
    keys = {site: one.parties[site].advertise() for site in SITES}
    sent = {site: one.parties[site].share(keys) for site in SITES}
    one.parties[1].mask(one.values[1], {other: sent[other][1] for other in SITES if other != 1})
    one.parties[1].unmask(answered)


def test_no_mask_is_used_twice():
    """Neither within a round, nor for the same sites in the next, nor a vector masked twice."""
    first, second = Round(number=1), Round(number=2)
    second.values = first.values
    seen = set()
    for one in (first, second):
        one.run({})
        seen |= {hashlib.sha256((one.masked[site] - one.values[site]).tobytes()).digest() for site in SITES}
    assert len(seen) == 10
    with pytest.raises(Refused, match="each is taken once"):
        first.parties[1].mask(first.values[2], {})


def test_the_round_goes_into_the_masks():
    """Even with the same keys, as a broken source of randomness would give."""
    masks = []
    for number in (1, 2):
        one = Round(terms=Terms(number, 5, 3))
        one.parties = {site: Party(site, one.terms, np.random.default_rng(site).bytes) for site in SITES}
        one.run({})
        masks.append(one.masked[1] - secure_aggregation._stream(one.parties[1]._own_mask, 40))
    assert not (masks[0] == masks[1]).any()


def test_what_the_server_sees_of_one_site_is_uniform():
    """G7: first check. Chi-square over the bytes of five masked vectors of zeros, p > 1e-6 together; nor are two alike.

    These masks come from the operating system, so the stated rate is that of false alarms in every run.
    """
    one = Round(size=20_000)
    one.values = {site: np.zeros(20_000, np.uint64) for site in SITES}
    one.run({})
    for masked in one.masked.values():
        counts = np.bincount(masked.view(np.uint8), minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-6 / 5
    halves = [masked / 2**64 for masked in one.masked.values()]
    assert np.abs(np.corrcoef(halves) - np.eye(5)).max() < 6 / np.sqrt(20_000)


def test_nothing_in_clear_follows_from_the_vectors():
    """G7: fifth check. With the same randomness and other vectors, keys, shares and unmaskings are the same bytes."""
    seen = []
    for size in (0, 1):
        one = Round()
        one.parties = {site: Party(site, one.terms, np.random.default_rng(site).bytes) for site in SITES}
        one.values = {site: value * np.uint64(size) for site, value in one.values.items()}
        one.run({3: (4,)})
        seen.append((repr(one.keys), repr(one.unmaskings), {site: len(m) for site, m in one.masked.items()}))
    assert seen[0] == seen[1]


def test_without_its_own_mask_a_vector_still_hides_behind_the_pairs():
    """What a server has that took off the own mask, as it must: uniform, too."""
    one = Round(size=20_000)
    one.values = {site: np.zeros(20_000, np.uint64) for site in SITES}
    one.run({})
    left = one.masked[3] - secure_aggregation._stream(one.parties[3]._own_mask, 20_000)
    assert stats.chisquare(np.bincount(left.view(np.uint8), minlength=256)).pvalue > 1e-6


def test_shares_reach_nobody_but_their_holder():
    one = Round()
    keys = {site: one.parties[site].advertise() for site in SITES}
    sent = {site: one.parties[site].share(keys) for site in SITES}
    swapped = {other: sent[other][1] for other in SITES if other != 1} | {2: sent[2][3]}
    with pytest.raises(Refused, match="shares of site 2 that can't be read"):
        one.parties[1].mask(one.values[1], swapped)


def test_no_two_messages_are_encrypted_under_one_key(monkeypatch: pytest.MonkeyPatch):
    """All have the same nonce: two of one key, such as there and back, would give away how their shares differ."""
    keys = []

    def watched(key: bytes) -> ChaCha20Poly1305:
        keys.append(key)
        return ChaCha20Poly1305(key)

    monkeypatch.setattr(secure_aggregation, "ChaCha20Poly1305", watched)
    for number in (1, 2):
        one = Round(terms=Terms(number, 5, 3))
        one.parties = {site: Party(site, one.terms, np.random.default_rng(site).bytes) for site in SITES}
        public = {site: one.parties[site].advertise() for site in SITES}
        for site in SITES:
            one.parties[site].share(public)
    assert len(keys) == 2 * 5 * 4 == len(set(keys))


@pytest.mark.parametrize("others", [0, 1])
def test_no_vector_is_masked_for_fewer_sites_than_the_threshold(others: int):
    """With nobody to share masks with there is the own mask alone, which the other sites' shares take off."""
    one = Round()
    keys = {site: one.parties[site].advertise() for site in SITES}
    sent = {site: one.parties[site].share(keys) for site in SITES}
    few = {other: sent[other][1] for other in [2, 3][:others]}
    with pytest.raises(Refused, match=f"expected at least 3 sites, got {others + 1}"):
        one.parties[1].mask(one.values[1], few)


def test_keys_that_come_twice_are_refused():
    one = Round()
    keys = {site: one.parties[site].advertise() for site in SITES}
    with pytest.raises(Refused, match="distinct keys"):
        one.parties[1].share(keys | {3: keys[2]})


def test_a_tampered_threshold_of_shares_does_not_pass_for_a_secret():
    shares = shamir.split(bytes(range(32)), [1, 2, 3, 4], 3, np.random.default_rng(0).bytes)
    with pytest.raises(ValueError, match="too few"):
        shamir.combine({holder: shares[holder] for holder in (1, 2)})


@given(st.binary(min_size=32, max_size=32), st.integers(1, 6), st.integers(0, 2**32))
def test_any_threshold_of_shares_gives_the_secret_back(secret: bytes, threshold: int, seed: int):
    random = np.random.default_rng(seed)
    shares = shamir.split(secret, [1, 2, 5, 6, 8, 9], threshold, random.bytes)
    chosen = random.choice([*shares], threshold, replace=False)
    assert shamir.combine({int(holder): shares[int(holder)] for holder in chosen}) == secret


def test_one_share_less_is_as_likely_for_any_secret():
    """The polynomial's coefficients are fresh: a holder's share differs each time, for one and the same secret."""
    found = {shamir.split(bytes(32), [1, 2, 3], 2, np.random.default_rng(seed).bytes)[1] for seed in range(50)}
    assert len(found) == 50


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32])
def test_fewer_shares_than_the_threshold_are_uniform_whatever_the_secret(secret: bytes):
    """Over all numbers below the prime: coefficients as short as a secret would let a share show its size.

    Kolmogorov-Smirnov of 400 splits for each of two holders, p > 1e-7.
    """
    random = np.random.default_rng(1)
    found = [shamir.split(secret, [1, 2, 3], 3, random.bytes) for _ in range(400)]
    for holder in (1, 2):
        values = [int.from_bytes(shares[holder], "big") / shamir.PRIME for shares in found]
        assert stats.kstest(values, "uniform").pvalue > 1e-7


def test_a_party_goes_on_from_what_it_kept():
    """On a real node each step may be a process of its own."""
    one, random = Round(), {site: np.random.default_rng(site) for site in SITES}
    kept = {site: Party(site, one.terms, random[site].bytes).secrets for site in SITES}

    def again(site: int) -> Party:
        return Party(site, one.terms, random[site].bytes, kept[site])

    def step(site: int, do):
        party = again(site)
        found = do(party)
        kept[site] = party.secrets
        return found

    keys = {site: step(site, lambda party: party.advertise()) for site in SITES}
    sent = {site: step(site, lambda party: party.share(keys)) for site in SITES}
    masked = {
        site: step(site, lambda p, site=site: p.mask(one.values[site], {o: sent[o][site] for o in SITES if o != site}))
        for site in (1, 2, 4)
    }
    told = {site: step(site, lambda party: party.unmask([1, 2, 4])) for site in (1, 2, 4)}
    expected = np.sum([one.values[site] for site in masked], axis=0, dtype=np.uint64)
    np.testing.assert_array_equal(unmasked_sum(one.terms, keys, masked, told), expected)
    with pytest.raises(Refused, match="each is taken once"):
        again(1).unmask([1, 2, 4])


def test_more_keys_than_sites_that_were_asked_are_refused():
    """The threshold is above half of those that hold shares only if no more than were asked hold some."""
    one = Round(terms=Terms(1, 4, 3))
    keys = {site: one.parties[site].advertise() for site in SITES}
    with pytest.raises(Refused, match="of the sites that were asked"):
        one.parties[1].share(keys)

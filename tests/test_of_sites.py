"""Facts about all sites take no memory for each, and say the same as a list or a dictionary of them."""

import math

import pytest

from fedsim.of_sites import Alike, MadeNames, OfSites, largest, total


@pytest.mark.parametrize("count", [1, 9, 10, 11, 101])
def test_made_names_are_those_of_a_list(count: int):
    width = len(str(count - 1))
    listed = [f"site-{number:0{width}}" for number in range(count)]
    names = MadeNames(count)
    assert list(names) == listed == sorted(listed)
    assert names == listed
    assert names == MadeNames(count)
    assert names != MadeNames(count + 1)
    assert [names[-1], names[:3], len(names)] == [listed[-1], listed[:3], count]
    assert [names.index(name) for name in listed] == list(range(count))
    assert all(name in names for name in listed)


@pytest.mark.parametrize("stranger", ["site-7", "site-007", "site-12", "site-+1", "site-²", "hospital", "", 3])
def test_what_is_no_made_name_is_found_nowhere(stranger: object):
    names = MadeNames(12)
    assert stranger not in names
    with pytest.raises(ValueError, match="expected the name of a site"):
        names.index(stranger)  # type: ignore[arg-type]
    with pytest.raises(IndexError):
        names[12]


def test_a_fact_is_made_when_it_is_asked_for():
    asked: list[int] = []

    def fact(site: int) -> int:
        asked.append(site)
        return site * site

    facts = OfSites(range(2, 1_000_002), fact)
    assert len(facts) == 1_000_000
    assert facts[7] == 49
    assert asked == [7]
    assert facts.get(1) is None
    assert facts.get(1_000_002) is None
    assert asked == [7]


@pytest.mark.parametrize("number", [32.0, 0.1, 1e-9 / 3])
def test_sums_have_the_bits_of_adding_up_one_by_one(number: float):
    listed = dict.fromkeys(range(1001), number)
    alike = Alike(range(1001), number)
    assert dict(alike) == listed
    assert total(alike) == total(listed) == sum(listed.values())
    assert math.isclose(total(alike), 1001 * number)
    assert largest(alike) == largest(listed) == number


def test_the_largest_of_different_numbers():
    assert largest({"a": 1.0, "b": 3.0, "c": 2.0}) == 3.0
    assert total({"a": 1.0, "b": 3.0, "c": 2.0}) == 6.0

import pytest

from clients.files import read_table
from clients.texts import ALPHABET, LONGEST_ROLES, WINDOW, longest_roles, windows_of


def test_each_character_is_followed_by_the_next_one_also_from_window_to_window():
    text = "To be, or not to be: that is the question.\n" * 3
    inputs, following = windows_of(text)
    assert inputs.shape == following.shape == (3, WINDOW)
    assert "".join(ALPHABET[number] for number in inputs.ravel()) == text[: 3 * WINDOW]
    assert "".join(ALPHABET[number] for number in following.ravel()) == text[1 : 3 * WINDOW + 1]


def test_another_character_is_refused_by_its_name():
    with pytest.raises(ValueError, match="expected characters of the alphabet, got '7'"):
        windows_of("seven 7" * 10)


def test_the_longest_roles_are_those_that_say_most():
    roles = longest_roles()
    assert len(roles) == LONGEST_ROLES
    assert "hamlet, ham" in roles
    assert set("".join(roles.values())) <= set(ALPHABET)
    told = read_table("shakespeare_roles.csv.gz", keep_default_na=False)
    lengths = told["text"].str.len().add(1).groupby([told["play"], told["role"]]).sum()
    assert sorted(map(len, roles.values())) == sorted(lengths)[-LONGEST_ROLES:]

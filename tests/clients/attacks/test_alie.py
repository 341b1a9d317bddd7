import pytest

from clients.attacks.alie import hidden


def test_alie_hides_as_in_the_papers_example():
    """50 workers, 24 of them corrupted: s = 2, z = 1.43."""
    assert hidden(50, 24) == pytest.approx(1.43, abs=0.01)

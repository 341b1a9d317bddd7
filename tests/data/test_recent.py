"""The memory of what was made last finds it by comparison, and forgets the oldest."""

from fedsim.data.recent import Recent


def test_equal_keys_find_the_same_value_and_others_make_their_own():
    made: list[object] = []

    def make() -> object:
        made.append(object())
        return made[-1]

    memory = Recent[list[int], object](size=2)
    first = memory.get([1], make)
    assert memory.get([1], make) is first
    assert memory.get([2], make) is not first
    assert memory.get([1], make) is first  # asked for again, so that [2] is the oldest now
    memory.get([3], make)
    assert memory.get([1], make) is first
    assert len(made) == 3
    memory.get([2], make)
    assert len(made) == 4


def test_what_can_not_be_made_is_not_kept():
    memory = Recent[str, int](size=1)
    for _ in range(2):
        try:
            memory.get("key", lambda: 1 // 0)
        except ZeroDivisionError:
            continue
    assert memory.get("key", lambda: 7) == 7

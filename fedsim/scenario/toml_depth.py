"""Check how deep the keys and values of a TOML text are, and how long its numbers, before it is parsed.

The parser's time rises with the square of the number of parts of a dotted key, it calls itself for
each array in an array, and Python can't write a hexadecimal number of 10,000 digits in a message.
Dots and brackets in strings and comments cost nothing.
"""

import re

from fedsim.mistakes import Mistake

MOST_DOTS = 4
"""Between the parts of a key; the deepest key of a scenario has three: data.ranges.age.unit."""

MOST_NESTED = 32
"""Arrays and inline tables in each other."""

MOST_LETTERS = 1000
"""Of a number, or of a key without quotes."""

_TEXT = re.compile(
    r'''
    """ (?: [^"\\] | \\. | "(?!"") )*+ "{3,5}     # may end in two quotes of its own
    | \'\'\' .*? '{3,5}
    | " (?: [^"\\\n] | \\[^\n] )*+ "
    | ' [^'\n]* '
    | \# [^\n]*
    | ["'] .*                                     # never closed: the parser gets no further either
    ''',
    re.VERBOSE | re.DOTALL,
)
_LONG_WORD = re.compile(rf"[\w.+-]{{{MOST_LETTERS + 1}}}")
_VALUE_OR_MARK = re.compile(r"=[^,\[\]{}]*|[,\[\]{}]")


def check_depth(text: str, name: str) -> None:
    """Check that no key and no value of a TOML text is too deep, and no number too long.

    Args:
        text: It may be no TOML; then it is for the parser to say so.
        name: The name of the file in messages.

    Raises:
        Mistake: The first place where one is.
    """
    nested = 0
    for number, line in enumerate(_without_strings(text).split("\n"), start=1):
        dots = _most_dots_in_a_key(line)
        if dots > MOST_DOTS:
            hint = "a name with dots in it stands in quotes"
            raise Mistake(f"{name}:{number}: expected TOML with at most {MOST_DOTS} dots in a key, got {dots}; {hint}")

        if _LONG_WORD.search(line):
            expected = f"TOML with numbers and keys of at most {MOST_LETTERS:,} characters"
            raise Mistake(f"{name}:{number}: expected {expected}, got more")

        for mark in re.findall(r"[\[\]{}]", line):
            nested = nested + 1 if mark in "[{" else max(0, nested - 1)
            if nested > MOST_NESTED:
                expected = f"TOML with at most {MOST_NESTED} lists or sections in each other"
                raise Mistake(f"{name}:{number}: expected {expected}, got more")


def _without_strings(text: str) -> str:
    """Put a letter in place of each string and comment; the lines stay as many."""
    return _TEXT.sub(lambda found: "\n" * found[0].count("\n") or "s", text)


def _most_dots_in_a_key(line: str) -> int:
    """Count the dots of the deepest key in a line without strings; a number in an array counts as one."""
    if line.count(".") <= MOST_DOTS:
        return 0
    return max(key.count(".") for key in _VALUE_OR_MARK.split(line))

"""Dots and brackets cost nothing in strings and comments; keys and values that are too deep are refused."""

import contextlib
import json
import tomllib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedsim.mistakes import Mistake
from fedsim.scenario.toml_depth import MOST_DOTS, MOST_LETTERS, MOST_NESTED, check_depth

DOTS = "export.2024.01.31.v1.2.final.csv"
DEEPEST = ".".join("a" * (MOST_DOTS + 1))
TOO_DEEP = f"{DEEPEST}.a"

ALLOWED = {
    "a file's name": f'path = "{DOTS}"',
    "a literal string": f"path = '{DOTS}'",
    "an empty string before it": f"""a = ["", '', "{DOTS}"]""",
    "quotes that are escaped": rf'path = "\"{DOTS}\\" # {DOTS}',
    "a quote of the other kind": f"""a = ["it's", 'say "{DOTS}', "{DOTS}"]""",
    "a comment": f"a = 1 # {DOTS} {DOTS}",
    "a comment alone": f"# Eight sentences. {DOTS} [[[[[",
    "a quote in a comment": f"""a = 1 # it's "{DOTS}\nb = '{DOTS}'""",
    "a number sign in a string": f'a = "# it\'s" # {DOTS}',
    "codes in a list": 'codes = ["I10.1", "I10.2", "I10.3", "I10.4", "I10.5", "E11.1", "E11.2", "E11.3", "E11.9"]',
    "a list over many lines": f"codes = [\n  \"{DOTS}\", # {DOTS}\n  '{DOTS}',\n]",
    "numbers": "a = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.5e3]",
    "numbers by name": "a = { b = 0.1, c = 0.2, d = 0.3, e = 0.4, f = 0.5, g = 0.6, h = 0.7 }",
    "short keys in a section": "a = { b.c = 1, b.d = 2, b.e = 3, b.f = 4, b.g = 5, b.h = 6, b.i = 7 }",
    "a quoted key": f'"{DOTS}" = 1',
    "a literal key": f"'{DOTS}' = 1",
    "a quoted key of a section": f'[data.ranges."{DOTS}"]\nlow = 0.5',
    "a quoted key inside": f'ranges = {{ "{DOTS}" = [0.5, 1.5], "{DOTS}.b" = ["a.b.c.d.e.f.g"] }}',
    "many lines of text": f'about = """\n{DOTS}\n  it\'s "quoted" [[[ {DOTS}""" # {DOTS}',
    "many lines of literal text": f"about = '''\n{DOTS}\n  \"it's\" [[[ {DOTS}'''",
    "quotes at the end of text": f'about = """{DOTS}"""""\nb = """\\""" {DOTS}"""',
    "quotes at the end of literal text": f"about = '''{DOTS}'''''\nb = '{DOTS}'",
    "dates": "a = [1979-05-27T07:32:00.999, 1979-05-27T07:32:00.999, 07:32:00.5]",
    "the deepest key": f"{DEEPEST} = 1",
    "the deepest section": f"[{DEEPEST}]\n{DEEPEST} = 1",
    "the deepest list": f"a = {'[' * MOST_NESTED}{']' * MOST_NESTED}",
    "many lists beside each other": f"a = [{'[], ' * 500}]\nb = {{ c = [{{}}, {{}}] }}",
    "the longest number": f"a = {'1' * MOST_LETTERS}",
    "a long text": f'a = "{"x" * 5000}"',
    "lines of Windows": f'a = "{DOTS}"\r\n# {DOTS}\r\nb = 1\r\n',
}


@pytest.mark.parametrize("name", ALLOWED)
def test_dots_outside_keys_are_free(name: str):
    check_depth(ALLOWED[name], "x.toml")
    tomllib.loads(ALLOWED[name])


REFUSED = {
    "a key": (f"{TOO_DEEP} = 1", 1),
    "a key with blanks": (f"\n{TOO_DEEP.replace('.', ' . ')} = 1", 2),
    "a key with quotes": ("""a."b".'c'.d."e.f".g.h = 1""", 1),
    "a section": (f"a = 1\n\n[{TOO_DEEP}]", 3),
    "a list of sections": (f"[[{TOO_DEEP}]]", 1),
    "inside a section": (f"x = {{ a = 1.5, {TOO_DEEP} = 2 }}", 1),
    "inside a list": (f"x = [\n  {{ {TOO_DEEP} = 2 }}\n]", 2),
    "after a comment": (f"# it's\n{TOO_DEEP} = 1 # '", 2),
    "after a string": (f'a = "\\"" # "\n{TOO_DEEP} = 1', 2),
    "after lines of text": (f'a = """\n"\n\\"""\n"""\n{TOO_DEEP} = 1', 5),
    "after literal text": (f"a = '''\n\"\"\"\n'''\n{TOO_DEEP} = 1", 4),
    "without a value": (TOO_DEEP, 1),
    "a key of nothing but dots": ("." * 100_000, 1),
    "before a string that isn't closed": (f'{TOO_DEEP}."', 1),
    "deep lists": (f"a = {'[' * (MOST_NESTED + 1)}", 1),
    "deep lists over lines": ("a = " + "[\n" * 200, MOST_NESTED + 1),
    "deep sections": (f"a = {'{a=' * (MOST_NESTED + 1)}", 1),
    "both": (f"a = {'[{a=' * MOST_NESTED}", 1),
    "a hexadecimal number": (f"a = 0x{'f' * MOST_LETTERS}", 1),
    "a decimal number": (f"\na = {'9' * (MOST_LETTERS + 1)}", 2),
    "a long key": (f"{'a' * (MOST_LETTERS + 1)} = 1", 1),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_too_deep_is_refused_with_its_line(name: str):
    text, line = REFUSED[name]
    with pytest.raises(Mistake, match=rf"^x\.toml:{line}: expected .*, got ") as caught:
        check_depth(text, "x.toml")
    assert len(str(caught.value)) < 200


LETTERS = st.text(alphabet="a.\"'\\#[]{}=, \n", max_size=30)
PIECES = ['"""', "'''", '"', "'", "\\", '\\"', "#", "\n", ".", "a", " = ", "[", "]", "{", "}", ",", "1.5", TOO_DEEP]


@pytest.mark.whole
@settings(max_examples=600, deadline=None)
@given(st.lists(st.sampled_from(PIECES) | LETTERS, max_size=14).map("".join))
@example(f'a = """"{TOO_DEEP}"""\n')
@example(f"a = ''\n'{TOO_DEEP}' = 1")
def test_the_parser_never_meets_a_deep_key(text: str):
    """Of a text that passes the check the parser reads no deep key, nor before it stops at an error."""
    try:
        check_depth(text, "x.toml")
    except Mistake:
        return
    parts = []
    parse = tomllib._parser.parse_key  # type: ignore[attr-defined]

    def parse_and_count(src: str, pos: int) -> tuple[int, tuple[str, ...]]:
        pos, key = parse(src, pos)
        parts.append(len(key))
        return pos, key

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(tomllib.TOMLDecodeError):
        patch.setattr(tomllib._parser, "parse_key", parse_and_count)  # type: ignore[attr-defined]
        tomllib.loads(text)
    assert max(parts, default=0) <= MOST_DOTS + 1


STRINGS = st.text(alphabet="ab.\"'\\#[]{}=,\n é", max_size=40)


def written(text: str, way: str) -> str:
    """Write a text in one of TOML's ways; in the plainest where that way can't hold it."""
    if way == "literal" and "'" not in text and "\n" not in text:
        return f"'{text}'"
    if way == "literal lines" and "'" not in text:
        return f"'''\n{text}'''"
    if way == "lines":
        escaped = text.replace("\\", "\\\\").replace('"""', '""\\"')
        return f'"""\n{escaped}' + ('\\n"""' if escaped.endswith('"') else '"""')
    return json.dumps(text)


@pytest.mark.whole
@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            STRINGS,
            st.lists(st.tuples(STRINGS, st.sampled_from(["literal", "lines", "literal lines", "basic"])), max_size=4),
            st.text(alphabet="ab.\"'#[]{} ", max_size=30),
            st.booleans(),
        ),
        max_size=5,
    )
)
def test_strings_keys_and_comments_of_any_kind_are_free(lines: list):
    """Whatever stands in strings, in quoted keys and in comments, the check lets it pass."""
    text = ""
    for number, (key, values, comment, over_lines) in enumerate(lines):
        between = f", # {comment}\n" if over_lines else ", "
        listed = "".join(written(value, way) + between for value, way in values)
        text += f'"{number}".{json.dumps(key)} = [{listed}] # {comment}\n'
    tomllib.loads(text)
    check_depth(text, "x.toml")


@pytest.mark.whole
@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(list(ALLOWED)), max_size=4),
    st.integers(min_value=MOST_DOTS + 1, max_value=40),
)
def test_a_deep_key_is_found_after_lines_of_any_kind(names: list[str], dots: int):
    text = "".join(f"{ALLOWED[name]}\n" for name in names)
    line = text.count("\n") + 1
    with pytest.raises(
        Mistake, match=f"^x.toml:{line}: expected TOML with at most {MOST_DOTS} dots in a key, got {dots};"
    ):
        check_depth(f"{text}a{'.a' * dots} = 1\n", "x.toml")

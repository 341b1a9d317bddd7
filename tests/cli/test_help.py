"""The help as a user reads it: every command, every argument and option, at 80 columns."""

import re
from importlib.metadata import version

import pytest
import typer
from click import Argument, Context, Group, Option
from typer.testing import CliRunner

from fedsim.cli import options
from fedsim.cli.commands import app
from fedsim.cli.help import OLD_NAMES
from fedsim.scenario import catalog

GROUP = typer.main.get_command(app)
assert isinstance(GROUP, Group)
COMMANDS = list(GROUP.commands)
GROUPS = {name: group for name, group in GROUP.commands.items() if isinstance(group, Group)}
HELPS = [
    [],
    *([command] for command in COMMANDS),
    *([name, own] for name, group in GROUPS.items() for own in group.commands),
]
WIDTH = 80


def rendered(*words: str) -> str:
    """Return what fedsim prints for some words."""
    ran = CliRunner(env={"COLUMNS": str(WIDTH), "TERMINAL_WIDTH": str(WIDTH)}).invoke(
        app, list(words), prog_name="fedsim"
    )
    assert ran.exit_code == 0, ran.output
    return ran.output


def described(text: str, section: str) -> dict[str, str]:
    """Return {name of an argument or option: its description} of a section of a help text."""
    found: dict[str, str] = {}
    body = re.search(rf"^{section}:\n(.*?)(?:\n\n|\Z)", text, re.DOTALL | re.MULTILINE)
    assert body, f"no section {section} in\n{text}"
    for line in body[1].splitlines():
        if entry := re.match(r"  (\S.*?)(?:  +(.*))?$", line):
            name = entry[1]
            found[name] = entry[2] or ""
        else:
            found[name] = f"{found[name]} {line.strip()}".strip()
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_every_argument_and_option_is_described(command: str):
    text = rendered(command, "--help")
    parameters = GROUP.commands[command].get_params(Context(GROUP.commands[command]))
    shown = described(text, "Options")
    for option in [each for each in parameters if isinstance(each, Option)]:
        description = next(said for name, said in shown.items() if option.opts[-1] in re.split(r"[ ,]+", name))
        assert re.match(r"[A-Za-z]", description), f"{command} {option.opts[-1]}: {description!r}"
        assert len(description.split()) >= 3
    arguments = [each for each in parameters if isinstance(each, Argument)]
    if arguments:
        shown = described(text, "Arguments")
        assert len(shown) == len(arguments)
        assert all(len(description.split()) >= 3 for description in shown.values()), shown


@pytest.mark.parametrize("words", HELPS)
def test_no_help_has_remnants_of_markup_or_long_lines(words: list[str]):
    text = rendered(*words, "--help")
    assert " ." not in text.replace(" .toml", "")
    assert "\\[" not in text
    assert "(default" not in text
    assert "..." not in re.sub(r"\w+\.\.\.|,\.\.\.|\[ARGS\]\.\.\.", "", text), "a sentence is cut"
    assert max(map(len, text.splitlines())) <= WIDTH
    assert text == rendered(*words, "-h")
    assert text.count("Arguments:") <= 1
    assert "Positional arguments" not in text


@pytest.mark.parametrize("words", HELPS)
def test_every_help_ends_in_examples_whose_options_exist(words: list[str]):
    text = rendered(*words, "--help")
    examples = text.partition("Examples:\n")[2]
    assert examples.strip()
    for line in re.sub(r" \\\n +", " ", examples).strip().splitlines():
        program, command, *rest = line.split()
        assert program == "fedsim"
        assert command in COMMANDS
        found = GROUP.commands[command]
        if isinstance(found, Group) and not rest[0].startswith("-"):
            found = found.commands[rest[0]]
        known = {name for each in found.params for name in each.opts} | {"--help"}
        assert {word for word in rest if word.startswith("--")} <= known


def test_what_is_asked_for_by_default_is_said():
    assert "[default: runs/SCENARIO-DATE]" in " ".join(rendered("run", "-h").split()).replace("SCENARIO- ", "SCENARIO-")
    assert "runs/audit-NAME or runs/story-NAME-DATE]" in " ".join(rendered("audit", "-h").split())
    assert "[default: FILE.ranges.toml]" in " ".join(rendered("run", "-h").split())
    assert "[default: runs/tournament]" in " ".join(rendered("compare", "-h").split())


def test_kinds_are_listed_in_full():
    listed = " ".join(rendered("list", "--help").split())
    assert all(kind in listed for kind in catalog.KINDS)
    shown = " ".join(rendered("show", "--help").split())
    assert all(kind in shown for kind in options.KINDS)


def test_the_version_is_that_of_the_distribution():
    assert rendered("--version") == f"fedsim {version('fedsim-flower')}\n"


def test_every_command_is_in_the_help_with_its_whole_first_sentence():
    text = " ".join(rendered("--help").split())
    for name, command in GROUP.commands.items():
        assert f"{name} {str(command.callback.__doc__).splitlines()[0]}" in text


def test_old_names_of_options_are_not_shown():
    for command, names in OLD_NAMES.items():
        text = rendered(command, "--help")
        for old, new in names.items():
            assert not re.search(rf"{old}\b", text)
            assert re.search(rf"{new}\b", text)


def test_the_shell_completes_commands_names_and_kinds():
    assert "--install-completion" in rendered("--help")
    assert options.scenarios("hospital-h") == ["hospital-heart", "hospital-heart-complete"]
    assert options.strategies("fedavg,kru") == ["fedavg,krum"]
    for words, expected in (
        ("fedsim au", "audit"),
        ("fedsim run hospital-heart-", "hospital-heart-complete"),
        ("fedsim list str", "strategies"),
        ("fedsim show atta", "attack"),
    ):
        environment = {
            "_FEDSIM_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }
        ran = CliRunner(env=environment).invoke(app, [], prog_name="fedsim")
        assert expected in ran.output.split(), ran.output

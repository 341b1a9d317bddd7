"""The help of commands: every argument with its description, examples at the end, and old names of options."""

import inspect
import re
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import click
from typer.core import TyperCommand
from typer.models import ArgumentInfo

_EXAMPLE_WIDTH = 74  # of 80, less the indentation and the backslash
_DEFAULT_IN_BRACKETS = re.compile(r"\[default: \(([^()]*)\)")

OLD_NAMES = {
    "compare": {"--target": "--reach"},
    "look": {"--out": "--page"},
    "privacy": {"--q": "--sampling-rate", "--sigma": "--noise-multiplier"},
    "show": {"--out": "--picture"},
}
"""{command: {old or other name of an option: its name}}. They work; help doesn't list them.

``--out`` is a directory in the help, so the file that ``look`` writes has a name of its own, too.
"""


class Command(TyperCommand):
    """A command whose arguments keep their descriptions, and that knows the old names of its options.

    Click 8.5 gives arguments a description of its own, and with it overwrites the one that typer had set before.
    """

    def __init__(self, *args: Any, callback: Callable[..., Any] | None = None, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(*args, callback=callback, **kwargs)
        if callback is not None:
            _describe_arguments(self.params, callback)

    def format_arguments(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write nothing: click 8.5 writes arguments here, and ``format_options`` does so under every version."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the arguments and the options, each with its description."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                section = "Arguments" if isinstance(parameter, click.Argument) else "Options"
                name, description = record
                sections[section].append((name, _without_escapes(description)))
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words of the command line, old names replaced by today's."""
        old_names = OLD_NAMES.get(self.name or "", {})
        return super().parse_args(ctx, [_renamed(word, old_names) for word in args])


def _without_escapes(description: str) -> str:
    """Return ``[default: runs/NAME]`` without the backslash and parentheses that typer puts there for rich."""
    return _DEFAULT_IN_BRACKETS.sub(r"[default: \1", description.replace("\\[", "["))


def examples(*commands: str) -> str:
    """Return the end of a command's help: its examples, whose lines are not to be joined."""
    lines = ["\b", "Examples:"]
    for command in commands:
        lines.extend(_folded(f"fedsim {command}"))
    return "\n".join(lines)


def _folded(line: str) -> list[str]:
    """Return a command in lines that fit the help, each but the last ending in a backslash, as a shell takes it."""
    pieces = textwrap.wrap(
        line,
        _EXAMPLE_WIDTH,
        initial_indent="  ",
        subsequent_indent="      ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [f"{piece} \\" for piece in pieces[:-1]] + pieces[-1:]


def _describe_arguments(parameters: Sequence[click.Parameter], callback: Callable[..., Any]) -> None:
    declared = inspect.signature(callback, eval_str=True).parameters
    for parameter in parameters:
        if not isinstance(parameter, click.Argument) or parameter.name not in declared:
            continue
        for declaration in getattr(declared[parameter.name].annotation, "__metadata__", ()):
            if isinstance(declaration, ArgumentInfo):
                parameter.help = declaration.help  # pyright: ignore[reportAttributeAccessIssue]  before click 8.5


def _renamed(word: str, old_names: dict[str, str]) -> str:
    """Return ``--sampling-rate=.5`` for ``--q=.5``, and other words as they are."""
    name, equals, value = word.partition("=")
    return f"{old_names.get(name, name)}{equals}{value}"

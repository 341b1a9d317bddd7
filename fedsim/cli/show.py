"""``fedsim list`` and ``fedsim show``: the names there are, and what is behind one."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from fedsim.cli import options
from fedsim.cli.output import print_json, print_table, print_text, waiting
from fedsim.cli.run import print_run
from fedsim.mistakes import Mistake
from fedsim.scenario import catalog

EXAMPLES = (
    "show hospital-heart",
    "show task hospital/heart --picture heart.png",
    "show krum",
    "show my_tasks.py:falls",
    "show runs/hospital-heart-20260131-120000 --json",
)
LIST_EXAMPLES = ("list", "list strategies", "list attacks --json")
_LISTED = ", ".join(catalog.KINDS)


def _complete_kinds(incomplete: str) -> list[str]:
    return [kind for kind in catalog.KINDS if kind.startswith(incomplete)]


def _complete_things(incomplete: str) -> list[str]:
    names = [*options.KINDS]
    for kind in catalog.KINDS:
        names.extend(catalog.titles(kind))
    return [name for name in names if name.startswith(incomplete)]


def list_names(
    kind: Annotated[
        str | None, typer.Argument(help=f"One of {_LISTED}; by default all.", autocompletion=_complete_kinds)
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """List scenarios, tasks, strategies, attacks, engines, audits, privacy units and trackers."""
    if kind is not None and kind not in catalog.KINDS:
        raise Mistake(f"list: expected one of {_LISTED}, got {kind!r}")
    kinds = [kind] if kind else catalog.KINDS
    listed = {each: catalog.titles(each) for each in kinds}
    if as_json:
        documents = {}
        for each, titles in listed.items():
            documents[each] = [{"name": name, "title": title} for name, title in titles.items()]
        print_json(documents[kind] if kind else documents)
        return
    for each, titles in listed.items():
        heading = None if kind else each
        table = Table(title=heading, title_justify="left", show_header=False, box=None, pad_edge=False)
        for name, title in titles.items():
            table.add_row(escape(name), escape(title))
        print_table(table)


def show(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KIND] [NAME]",
            help="A scenario, task, strategy, attack, engine or run directory; by default the newest run. KIND is "
            f"{', '.join(options.KINDS[:-1])} or {options.KINDS[-1]}, needed only where two have one name.",
            autocompletion=_complete_things,
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the sites of a scenario or task into this PNG file."),
    ] = None,
    task: options.TaskCode = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what a scenario asks for, what a task holds, what a strategy does, or what a run gave."""
    kind, name = _kind_and_name(words or ["run"])
    if name is None or (Path(name) / "scenario.toml").exists():
        if task is not None:
            raise Mistake(f"--task: expected a scenario beside it, got {name or 'a run'}")
        _show_run(name, picture, as_json)
        return

    with waiting(quiet=False, as_json=as_json):
        from fedsim.cli import cards

        scenario_changes = options.code_from(task)
        card = cards.card(name, kind, scenario_changes)
    values = dict(card.values)
    text = card.text
    if picture is not None:
        if card.contents is None:
            raise Mistake(f"--picture: expected a scenario or task whose sites have rows to draw, got {name}")
        from fedsim.cli.pictures import draw

        draw(picture, card.title, card.contents)
        values["picture"] = str(picture)
        text = f"{text}\n\npicture: {picture}"
    if as_json:
        print_json(values)
    else:
        print_text(text)


def _kind_and_name(words: list[str]) -> tuple[str | None, str | None]:
    """Return the kind, if it is said, and the name; no name means the newest run."""
    if words == ["run"]:
        return "run", None
    if len(words) == 1:
        return None, words[0]
    if len(words) == 2 and words[0] in options.KINDS:
        return words[0], words[1]
    raise Mistake(f"show: expected [{'|'.join(options.KINDS)}] NAME, got {' '.join(words)}")


def _show_run(name: str | None, picture: Path | None, as_json: bool) -> None:
    if picture is not None:
        raise Mistake(f"--picture: expected a scenario or task whose sites have rows to draw, got {name or 'a run'}")
    with waiting(quiet=False, as_json=as_json):
        from fedsim.results.run_directory import load, newest

        finished = load(name or newest())
    print_run(finished, as_json)

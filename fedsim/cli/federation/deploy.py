"""``fedsim deploy``: federations of real sites, each with its own rows, policy and ledger."""

from pathlib import Path
from typing import Annotated

import typer

from fedsim.cli import options
from fedsim.cli.help import Command, examples
from fedsim.cli.output import print_json, print_lines, print_places, waiting
from fedsim.scenario.changes import with_strategy

SENTENCE = "Train at real sites, which keep their rows: plan it, see it work, look at a site's ledger."

PLAN_EXAMPLES = (
    "deploy plan hospital-heart federation --site cleveland --site hungarian --server fl.example.org",
    "deploy plan hospital-heart federation --site north --site south --epsilon 2 --set training.rounds=50",
)

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, epilog=examples("deploy demo", PLAN_EXAMPLES[0]))


@app.callback()
def _group() -> None:
    """Train at real sites, which keep their rows: plan it, see it work, look at a site's ledger."""


@app.command(
    "plan",
    cls=Command,
    short_help="Write what a server and its sites need, and what to type.",
    epilog=examples(*PLAN_EXAMPLES),
)
def plan(
    scenario: Annotated[
        str, typer.Argument(help="A scenario's name, or a .toml file.", autocompletion=options.scenarios)
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The directory to make.")],
    sites: Annotated[
        list[str], typer.Option("--site", metavar="NAME", help="The name of a site. Give it once for each site.")
    ],
    server: Annotated[
        str, typer.Option(metavar="HOST", help="The name or address by which the sites reach the server.")
    ] = "localhost",
    port: Annotated[int, typer.Option(metavar="PORT", help="Where the server listens.", min=1, max=65535)] = 9092,
    epsilon: options.Epsilon = None,
    changes: options.Changes = None,
    strategy: options.StrategyCode = None,
) -> None:
    """Write what a server and its sites need: certificates, keys, policies, services, an app, and what to type.

    The model is trained once, at the sites, without any other arm. Noise is secure: no seed repeats it.
    """
    with waiting(quiet=True, as_json=False):
        import json

        from fedsim.experiments.on_flower.deployment_plan import write_plan
        from fedsim.scenario.files import read

        own = [f"deployment.sites={json.dumps(sites, ensure_ascii=False)}", 'arms=["federated"]', "seeds=1"]
        overrides = [*own, *(changes or [])]
        if strategy is not None:
            overrides.insert(0, with_strategy(strategy))
        if read(scenario, overrides, epsilon).private:
            overrides.insert(0, "privacy.rng=secure")
        write_plan(read(scenario, overrides, epsilon), folder, server, port)
    print_places({"what to do": folder / "README.md", "server": folder / "server", "sites": folder / "sites"})


@app.command(
    "demo",
    cls=Command,
    short_help="See it work with four sites on this machine.",
    epilog=examples("deploy demo", "deploy demo --out federation"),
)
def demo(
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="The directory to make."),
    ] = Path("federation"),
) -> None:
    """Run a SuperLink and four real sites on this machine, kill one in the middle of a round, and see it end well.

    It takes two to three minutes. Each site is a process with its own patients, policy, key and ledger.
    """
    with waiting(quiet=True, as_json=False):
        from fedsim.experiments.on_flower import deployment_demo

        print_lines(["This takes two to three minutes: each message starts a process at its site."])
        rehearsed = deployment_demo.rehearse(out, lambda sentence: print_lines([sentence]))
        notes = deployment_demo.about(rehearsed.run)["notes"]
    print_lines(["The training ended well. What was out of the ordinary:", *(f"  {note}" for note in notes)])
    site = next(iter(rehearsed.sites.values()))
    print_places({"report": rehearsed.run / "report.html", "what left a site": f"fedsim deploy status {site}"})


@app.command("ledger", cls=Command, epilog=examples("deploy ledger /srv/heart/fedsim-ledger --site cleveland"))
def ledger(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The directory to make.")],
    site: Annotated[str, typer.Option(metavar="NAME", help="The name of the site.")],
) -> None:
    """Begin the ledger of a site, once: what was spent stays spent."""
    with waiting(quiet=True, as_json=False):
        from fedsim.site import own_ledger

        own_ledger.begin(folder, site)
    print_places({"ledger": folder / own_ledger.NAME})


@app.command("status", cls=Command, epilog=examples("deploy status /srv/heart", "deploy status /srv/heart --json"))
def status(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a site: with its policy and ledger.")],
    as_json: options.AsJson = False,
) -> None:
    """Say what has left a site, and how much of its budget is spent."""
    with waiting(quiet=True, as_json=as_json):
        from fedsim.site.status import status_of

        found = status_of(folder)
    if as_json:
        print_json(found.as_json())
    else:
        print_lines(found.sentences())

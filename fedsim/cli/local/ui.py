"""``fedsim ui``: a page on this machine that lists, compares and follows runs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from fedsim.cli.output import print_lines, waiting

EXAMPLES = ("ui", "ui studies/runs --port 8800", "ui --open")


def ui(
    runs: Annotated[Path, typer.Argument(metavar="[RUNS]", help="The folder of runs.")] = Path("runs"),
    port: Annotated[
        int, typer.Option(metavar="PORT", help="The port of this machine; 0 for any free one.", min=0, max=65535)
    ] = 8765,
    in_browser: Annotated[
        bool, typer.Option("--open/--no-browser", help="Open the page in the browser, or only print its address.")
    ] = False,
) -> None:
    """Show all runs on a local page: filter and compare them, follow one under way, open its report.

    Only this machine can reach the page, and nothing is changed by it. Ctrl-C ends it.
    """
    with waiting(quiet=False, as_json=False):
        from fedsim.ui import folders, server

        folders.check_place(runs)
        listening = server.opened(port)
    address = f"http://{server.ADDRESS}:{listening.getsockname()[1]}/"
    print_lines([f"Showing {runs} at {address}", "Ctrl-C ends it."])
    sys.stdout.flush()  # also into a pipe, whose reader wants the address now
    if in_browser:
        import webbrowser

        webbrowser.open(address)
    server.serve(runs, listening)
    print_lines(["Ended."])

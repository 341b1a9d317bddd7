"""``fedsim privacy``: the epsilon of a noise, or the noise of an epsilon."""

from typing import Annotated

import typer

from fedsim.cli import options
from fedsim.cli.output import print_json, print_text

EXAMPLES = (
    "privacy --sampling-rate 0.01 --noise-multiplier 1 --steps 1000 --delta 1e-5",
    "privacy --sampling-rate 0.01 --epsilon 2 --steps 1000 --delta 1e-5",
)


def privacy(
    sampling_rate: Annotated[
        float, typer.Option(metavar="NUMBER", help="The probability that a row joins a step, in (0, 1].")
    ],
    steps: Annotated[int, typer.Option(metavar="NUMBER", help="How many steps, over all rounds.")],
    delta: Annotated[
        float, typer.Option(metavar="NUMBER", help="The delta that is promised beside epsilon, from 1e-12 to below 1.")
    ],
    noise_multiplier: Annotated[
        float | None,
        typer.Option(metavar="NUMBER", help="The noise over the clip: asks for its epsilon."),
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="The epsilon to keep: asks for the least noise.")
    ] = None,
    neighbours: Annotated[
        str, typer.Option(metavar="RELATION", help="add-or-remove-one or replace-one.")
    ] = "add-or-remove-one",
    runs: Annotated[
        int, typer.Option(metavar="NUMBER", help="How many such trainings on the same records, all together.")
    ] = 1,
    as_json: options.AsJson = False,
) -> None:
    """Compute epsilon for a noise, or the noise for an epsilon, under DP-SGD with Poisson sampling."""
    from fedsim.privacy.calculator import answer

    found = answer(
        sampling_rate,
        steps,
        delta,
        noise_multiplier,
        epsilon,
        neighbours,  # pyright: ignore[reportArgumentType]  it checks that
        runs,
    )
    if as_json:
        print_json(found.values)
    else:
        print_text(found.text)

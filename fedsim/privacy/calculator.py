"""What ``fedsim privacy`` answers: epsilon for a noise, or the noise for an epsilon."""

import math
import textwrap
from dataclasses import asdict, dataclass, replace
from typing import Any

from fedsim.mistakes import Mistake
from fedsim.privacy.accounting import HOPELESS, Guarantee, Neighbours, Segment, guarantee, noise_multiplier
from fedsim.privacy.tiers import caution


@dataclass(frozen=True)
class Answer:
    """A training's mechanism, how many of its kind, what all guarantee together, and the epsilon that was aimed at."""

    mechanism: Segment
    runs: int
    guarantee: Guarantee
    target: float | None

    @property
    def values(self) -> dict[str, Any]:
        """The answer as one flat JSON object."""
        aimed = {} if self.target is None else {"target_epsilon": self.target}
        weak = bool(caution(self.guarantee.epsilon))
        return {**asdict(self.guarantee), **asdict(self.mechanism), "runs": self.runs, "weak": weak, **aimed}

    @property
    def text(self) -> str:
        """The answer in lines of at most 80 columns."""
        did, promised = self.mechanism, self.guarantee
        together = f"{self.runs}  (all of them together; choosing one is covered)\n" if self.runs > 1 else ""
        weak = caution(promised.epsilon)
        return (
            f"epsilon           {promised.epsilon:.6g}  (an upper bound)\n"
            f"delta             {promised.delta:g}\n"
            f"neighbours        {promised.neighbours}\n"
            f"noise multiplier  {did.noise_multiplier:g}\n"
            f"sampling rate     {did.sampling_rate:g}  (Poisson)\n"
            f"steps             {did.steps}\n"
            + (f"trainings         {together}" if together else "")
            + (f"take care         {weak}\n" if weak else "")
            + textwrap.fill(f"accountant        {promised.accountant}", 80, subsequent_indent=18 * " ")
        )


def privacy(
    *,
    sampling_rate: float,
    steps: int,
    delta: float,
    noise_multiplier: float | None = None,
    epsilon: float | None = None,
    neighbours: Neighbours = "add-or-remove-one",
    runs: int = 1,
) -> Answer:
    """Compute epsilon for a noise, or the noise for an epsilon, under DP-SGD with Poisson sampling.

    Args:
        sampling_rate: The probability that a row joins a step, in (0, 1].
        steps: How many steps, over all rounds.
        delta: The delta that is promised beside epsilon.
        noise_multiplier: The noise over the clip: asks for its epsilon.
        epsilon: The epsilon to keep: asks for the least noise.
        neighbours: ``add-or-remove-one`` or ``replace-one``.
        runs: How many such trainings on the same records, all together.

    Returns:
        ``mechanism`` with its ``noise_multiplier``, and ``guarantee`` with its ``epsilon``; ``text`` has both in words.

    Raises:
        Mistake: A value is out of its range, or not exactly one of ``noise_multiplier`` and ``epsilon`` is given.
    """
    return answer(sampling_rate, steps, delta, noise_multiplier, epsilon, neighbours, runs)


def answer(
    sampling_rate: float,
    steps: int,
    delta: float,
    sigma: float | None,
    target: float | None,
    neighbours: Neighbours,
    runs: int = 1,
) -> Answer:
    """Answer for a noise multiplier ``sigma``, or for a ``target`` epsilon the least noise that keeps it.

    Of several trainings of this kind on the same records, ``runs``, epsilon is that of all together (composition): it
    covers choosing one of them by what they released.

    Raises:
        Mistake: A value is out of its range, or not exactly one of ``sigma`` and ``target`` is given.
    """
    if runs < 1:
        raise Mistake(f"runs: expected a whole number >= 1, got {runs if runs > -(10**20) else 'less'}")
    if sigma is not None and target is None:
        noise = sigma
    elif target is not None and sigma is None:
        noise = noise_multiplier(target, sampling_rate, runs * steps, delta, neighbours)
    else:
        raise Mistake(
            f"privacy: expected --noise-multiplier or --epsilon, got {'neither' if sigma is None else 'both'}"
        )
    mechanism = Segment(sampling_rate, noise, steps)
    promised = guarantee([replace(mechanism, steps=runs * steps)], delta, neighbours)
    if math.isinf(promised.epsilon):
        raise Mistake(f"privacy: expected a mechanism that promises something, got an epsilon above {HOPELESS:g}")
    return Answer(mechanism, runs, promised, target)

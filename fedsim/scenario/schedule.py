"""The learning rate of a round: a public, pure function of the schedule, the round and how many rounds there are.

It knows nothing of rows, figures or sites: all sites, arms and engines step with the same rate in a round.
Warm-up: Goyal et al. 2017, https://arxiv.org/abs/1706.02677, section 2.2. Cosine: Loshchilov, Hutter 2017,
https://arxiv.org/abs/1608.03983, equation 5, without restarts.
"""

import math

from fedsim.scenario.schema import Optimizer, Schedule, Training

SMALLEST_FACTOR = 1e-6
"""No rate falls below this share of the full one: strategies divide by it."""


def factor_of(schedule: Schedule, round_number: int, rounds: int) -> float:
    """Return the factor of the learning rate in a round, in [SMALLEST_FACTOR, 1].

    Args:
        schedule: The schedule.
        round_number: The number of the round, from 1 on.
        rounds: How many rounds are planned; a training that is stopped earlier has the same factors until then.

    Raises:
        ValueError: There is no such round.
    """
    if not 1 <= round_number <= rounds:
        raise ValueError(f"round: expected a number from 1 to {rounds}, got {round_number}")
    warmup = schedule.warmup_rounds
    if round_number <= warmup:
        return round_number / (warmup + 1)

    rounds_since = round_number - warmup - 1  # 0 in the first round with the full rate
    if schedule.name == "step":
        times = rounds_since // (schedule.every or rounds)
        return max(SMALLEST_FACTOR, schedule.factor**times)
    if schedule.name == "cosine":
        last = rounds - warmup - 1
        share = rounds_since / last if last else 0.0  # of the way to the last round
        fallen = schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * share)) / 2
        return max(SMALLEST_FACTOR, fallen)
    return 1.0


def optimizer_in(training: Training, round_number: int) -> Optimizer:
    """Return the optimizer of a round: the scenario's, with the learning rate of that round."""
    if training.schedule.is_flat:
        return training.optimizer
    factor = factor_of(training.schedule, round_number, training.rounds)
    return training.optimizer.model_copy(update={"lr": training.optimizer.lr * factor})

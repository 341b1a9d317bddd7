"""DP-SGD at one site: Opacus' optimizer with the guards it lacks.

Abadi, Chu, Goodfellow, McMahan, Mironov, Talwar, Zhang, "Deep Learning with Differential Privacy", CCS 2016,
https://arxiv.org/abs/1607.00133, Algorithm 1, with Poisson sampling.
"""

import torch
from opacus.optimizers import DPOptimizer

from fedsim.mistakes import Mistake
from fedsim.privacy.ledger import Mechanism
from fedsim.privacy.norms import largest_square, square_norms, summed_by
from fedsim.randomness import Normals, Random, Words


class SiteOptimizer(DPOptimizer):
    """One step: clip each row's gradient to ``clip``, sum, add Gaussian noise, divide by a public number.

    Beyond Opacus: a row whose gradient is not finite counts as zero, so that it neither spoils the model nor shows;
    norms are float64, since in float32 that of ten million numbers is too small by a 4000th, and the row would count
    for more than the clip; the noise comes from a named 128-bit stream; and it counts its own noise draws, for the
    ledger. Set ``rows`` to the size of the batch before each step: every layer must have as many gradients. Set
    ``person`` to the number of each row's person, int64 (rows,), and the sum of a person's gradients is clipped in
    place of each row's; a person with a row that counts as zero elsewhere counts as zero.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        noise_multiplier: float,
        clip: float,
        expected_batch: float,
        noise: Words,
    ) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=clip,
            expected_batch_size=expected_batch,  # pyright: ignore[reportArgumentType]  it divides by it, no more
            loss_reduction="mean",
        )
        self._noise = Normals([noise], self.params[0].device)
        self._draws = 0
        self.rows = 0
        self.person: torch.Tensor | None = None

    def clip_and_accumulate(self) -> None:
        """Set the gradients of rows that are not finite to zero, then clip each row, or each person, and sum."""
        gradients = self.grad_samples  # each (rows, ...)
        if {len(gradient) for gradient in gradients} != {self.rows}:
            counts = sorted({len(gradient) for gradient in gradients})
            raise Mistake(
                f"task: expected a gradient for each of {self.rows} rows in every layer, got {counts}: "
                "a layer sees a row more than once, so clipping would not bound what one row does"
            )
        squares = _squares(gradients)  # (rows,)
        sound = squares <= largest_square(gradients[0])  # no NaN is
        if self.person is not None:
            # From here on, what was said of rows is said of persons.
            gradients = [summed_by(self.person, gradient) for gradient in gradients]  # each (persons, ...)
            squares = _squares(gradients)  # (persons,)
            unsound_rows = summed_by(self.person, (~sound).to(squares))
            sound = (squares <= largest_square(gradients[0])) & (unsound_rows == 0)
        for gradient in gradients:
            gradient[~sound] = 0.0
        squares = squares.masked_fill(~sound, 0.0)

        # As Opacus does it, with one unit in the last place more for what scaling a float loses.
        bounds = squares.sqrt() * (1 + torch.finfo(gradients[0].dtype).eps) + 1e-6
        factor = (float(self.max_grad_norm) / bounds).clamp(max=1.0).to(gradients[0].dtype)
        for parameter, gradient in zip(self.params, gradients, strict=True):
            parameter.summed_grad = torch.einsum("i,i...", factor, gradient)  # pyright: ignore[reportAttributeAccessIssue]

    def add_noise(self) -> None:
        """Add noise of ``noise_multiplier * clip`` to every coordinate of the sum."""
        std = float(self.noise_multiplier) * float(self.max_grad_norm)
        draw = torch.empty(1, sum(parameter.numel() for parameter in self.params), device=self.params[0].device)
        self._noise.fill(draw)
        for parameter, part in zip(self.params, draw[0].split([p.numel() for p in self.params]), strict=True):
            total: torch.Tensor = parameter.summed_grad  # pyright: ignore[reportAttributeAccessIssue]
            parameter.grad = total.view_as(parameter) + std * part.view_as(parameter)
        self._draws += 1

    def mechanism(self, sampling_rate: float, rng: Random) -> Mechanism:
        """Return what was done so far, read off what was used."""
        return Mechanism(
            sampling_rate=sampling_rate,
            noise_multiplier=float(self.noise_multiplier),
            clip=float(self.max_grad_norm),
            expected_batch=float(self.expected_batch_size),  # pyright: ignore[reportArgumentType]
            steps=self._draws,
            rng=rng,
        )


def _squares(gradients: list[torch.Tensor]) -> torch.Tensor:
    """Compute squared norms over all parameters, float64 (rows,), given gradients (rows, ...)."""
    return torch.stack([square_norms(gradient) for gradient in gradients]).sum(0)

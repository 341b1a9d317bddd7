"""The next character or word at each position of a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsim.outcomes.metric import Metric, Rate
from fedsim.outcomes.outcome import Outcome, PublicRange

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

PADDING = -1
"""The target of a position that does not count."""

TOKEN_ACCURACY = Metric(
    "token_accuracy",
    "share of tokens named rightly",
    "higher",
    0.0,
    1.0,
    meaning=("The accuracy is the share of tokens that the model names rightly from those before them."),
)
PERPLEXITY = Metric("perplexity", "perplexity", "lower", 1.0, np.inf)
TOKEN_LOSS = Metric("token_loss", "log loss of a token", "lower", 0.0, np.inf)

_LONGEST_LOSS = 200.0  # beyond it, a perplexity would be more than any figure of a training
ROWS = Rate("row_accuracy", "share of a row's tokens named rightly", "rows", "higher", 0.0, 1.0)


class NextToken(Outcome):
    """Targets are numbers of tokens, int64 (rows, positions), or -1 where a position does not count.

    Outputs are logits, (rows, positions, tokens). A row's loss is the mean over the positions that count, so that long
    texts weigh as much as short ones.
    """

    name = "next-token"
    in_words = "the next token of a text"
    outputs_in_words = "logits (rows, positions, tokens)"
    metrics = (TOKEN_ACCURACY, PERPLEXITY, TOKEN_LOSS)
    row_rate = ROWS
    predicts = False
    is_whole = True
    summary_columns = ("tokens",)
    about_rows = ("Tokens",)

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:  # noqa: D102
        from torch.nn.functional import cross_entropy

        at_positions = cross_entropy(outputs.mT, target, reduction="none", ignore_index=PADDING)  # (rows, positions)
        counted = (target != PADDING).sum(1).clamp(min=1)
        return at_positions.sum(1) / counted

    def fault_of(self, target: np.ndarray) -> str | None:  # noqa: D102
        if target.ndim != 2:
            return "a target of shape (rows, positions)"
        if not (target >= PADDING).all():
            return "a target of token numbers from 0 on, or -1"
        return None if (target != PADDING).any(1).all() else "a token to predict in each row"

    def fault_of_outputs(self, outputs: Tensor, target: Tensor) -> str | None:  # noqa: D102
        fits = outputs.ndim == 3 and outputs.shape[:2] == target.shape and outputs.shape[2] > target.max()
        return None if fits else self.outputs_in_words

    def said(self, outputs: Tensor, target: Tensor) -> np.ndarray:
        """Return, for each position, the log likelihood of its token and whether it is named, (rows, positions, 2)."""
        log_likelihoods = outputs.log_softmax(2)
        of_token = log_likelihoods.gather(2, target.clamp(min=0)[:, :, None])[:, :, 0]
        is_named = (outputs.argmax(2) == target).to(of_token)
        stacked = of_token.new_empty(*of_token.shape, 2)
        stacked[:, :, 0] = of_token
        stacked[:, :, 1] = is_named
        return stacked.cpu().numpy().astype(np.float64)

    def values(self, target: np.ndarray, predicted: np.ndarray, scale: float) -> dict[str, float | None]:  # noqa: D102
        counts = target != PADDING
        loss = -float(predicted[:, :, 0][counts].mean())
        return {
            "token_accuracy": float(predicted[:, :, 1][counts].mean()),
            "perplexity": float(np.exp(min(loss, _LONGEST_LOSS))),
            "token_loss": loss,
        }

    def row_figures(self, target: np.ndarray, predicted: np.ndarray) -> np.ndarray:  # noqa: D102
        counts = target != PADDING
        return (predicted[:, :, 1] * counts).sum(1) / counts.sum(1)

    def summary(self, target: np.ndarray, range: PublicRange | None) -> dict[str, object]:  # noqa: D102
        return {"tokens": int((target != PADDING).sum())}

    def constant(self, targets: Sequence[np.ndarray], learned: np.ndarray) -> np.ndarray | None:
        """Return nothing: an answer here has a likelihood for each token, which depends on what is asked."""
        return None

    def answer_in_words(self, answers: pd.Series) -> str:  # noqa: D102
        return "always answering the most common token"

    def about(self, target: np.ndarray, range: PublicRange | None) -> dict[str, Any]:  # noqa: D102
        tokens = int((target != PADDING).sum())
        return {"tokens": tokens, "about": f"{tokens} tokens"}

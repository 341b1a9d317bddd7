"""Attention of many sites at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedsim.engines.stack.layers import Linear
from fedsim.training.dropout import Draws, attention, dropped, merged_mask


class Attention(nn.Module):
    """``nn.MultiheadAttention`` with queries, keys and values of one size.

    Args:
        layer: The layer to replace.
        into: The Linear layer that gives queries, keys and values, one after another.
        out: The Linear layer of the outputs.
        draws: The random numbers by which it drops.
    """

    def __init__(self, layer: nn.MultiheadAttention, into: Linear, out: Linear, draws: Draws) -> None:
        super().__init__()
        self.heads = layer.num_heads
        self.batch_first = layer.batch_first  # nn.TransformerEncoder asks for it
        self.dropout = layer.dropout
        self.into = into
        self.out = out
        self.draws = draws

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Compute attention as ``nn.MultiheadAttention`` does; ``is_causal`` is a hint beside its mask."""
        projected = self._projected(query, key, value)
        mask = merged_mask(attn_mask, key_padding_mask, len(projected[0]), projected[0])

        def drop(weights: Tensor) -> Tensor:
            return dropped(weights, self.draws, self.dropout)

        outputs, weights = attention(*projected, self.heads, mask, drop if self.dropout else None, need_weights)
        outputs = self.out(outputs)
        if not self.batch_first:
            outputs = outputs.transpose(0, 1)
        if weights is None or not need_weights:
            return outputs, None
        return outputs, weights.mean(1) if average_attn_weights else weights

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, (rows, places, features) each."""
        inputs = [query]
        if key is not query:
            inputs.append(key)
        if value is not key:
            inputs.append(value)
        if not self.batch_first:
            inputs = [values.transpose(0, 1) for values in inputs]

        # One use of one layer: all three see all places, and what nobody asks for has no gradient.
        of_all = self.into(inputs[0] if len(inputs) == 1 else torch.cat(inputs, 1))
        queries, keys, values = of_all.chunk(3, 2)
        if len(inputs) == 1:
            return queries, keys, values
        places = [each.shape[1] for each in inputs]
        at_key = 0 if key is query else 1
        at_value = at_key if value is key else len(inputs) - 1
        return (
            queries.split(places, 1)[0],
            keys.split(places, 1)[at_key],
            values.split(places, 1)[at_value],
        )

"""Recurrent layers of many sites at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedsim.engines.stack.layers import Linear, NoRule


class Recurrent(nn.Module):
    """A GRU or LSTM, torch's or Opacus', with ``batch_first`` and one direction: two Linear layers in each layer."""

    def __init__(self, layer: nn.GRU | nn.LSTM, steps: list[tuple[Linear, Linear]]) -> None:
        super().__init__()
        self.lstm, self.hidden = "LSTM" in type(layer).__name__, layer.hidden_size
        self.seen = nn.ModuleList(seen for seen, _ in steps)
        self.kept = nn.ModuleList(kept for _, kept in steps)

    def forward(self, inputs: Tensor, start: None = None) -> tuple[Tensor, Tensor | tuple[Tensor, Tensor]]:
        """Return the last layer's outputs (rows, time, hidden) and every layer's last state, as torch's own."""
        if start is not None:
            raise NoRule("a recurrent layer with an initial state")
        ends = []
        for seen, kept in zip(self.seen, self.kept, strict=True):
            projected = seen(inputs).unbind(1)
            state = (inputs.new_zeros(len(inputs), self.hidden),) * (2 if self.lstm else 1)
            outputs = []
            for own in projected:
                state = (_lstm if self.lstm else _gru)(own, kept(state[0]), *state)
                outputs.append(state[0])
            inputs = torch.stack(outputs, 1)
            ends.append(state)
        last = [torch.stack(parts) for parts in zip(*ends, strict=True)]
        return inputs, (last[0], last[1]) if self.lstm else last[0]


def _gru(seen: Tensor, kept: Tensor, state: Tensor) -> tuple[Tensor]:
    """Return the next state of a GRU as torch defines it, with the reset gate after the product."""
    seen_gates, seen_new = seen.split([2 * state.shape[1], state.shape[1]], 1)
    kept_gates, kept_new = kept.split([2 * state.shape[1], state.shape[1]], 1)
    reset, update = (seen_gates + kept_gates).sigmoid().chunk(2, 1)
    new = (seen_new + reset * kept_new).tanh()
    return (new + update * (state - new),)


def _lstm(seen: Tensor, kept: Tensor, state: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Return the next state and cell of an LSTM."""
    into, forget, new, out = (seen + kept).chunk(4, 1)
    cell = forget.sigmoid() * cell + into.sigmoid() * new.tanh()
    return out.sigmoid() * cell.tanh(), cell

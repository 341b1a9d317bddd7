"""Recurrent layers of many sites at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedsim.engines.stack.layers import Linear, NoRule


class Recurrent(nn.Module):
    """A GRU or LSTM of torch or Opacus, with ``batch_first`` and one direction.

    Each layer consists of two Linear layers: the first multiplies the inputs, the second the hidden
    state.

    Args:
        layer: The layer to replace.
        steps: For each of its layers, the Linear layer of the inputs and that of the hidden state.
    """

    def __init__(self, layer: nn.GRU | nn.LSTM, steps: list[tuple[Linear, Linear]]) -> None:
        super().__init__()
        self.lstm = "LSTM" in type(layer).__name__
        self.hidden = layer.hidden_size
        self.seen = nn.ModuleList(of_inputs for of_inputs, _ in steps)
        self.kept = nn.ModuleList(of_state for _, of_state in steps)

    def forward(
        self,
        inputs: Tensor,
        start: None = None,
    ) -> tuple[Tensor, Tensor | tuple[Tensor, Tensor]]:
        """Compute the last layer's outputs (rows, time, hidden), and every layer's last state."""
        if start is not None:
            raise NoRule("a recurrent layer with an initial state")

        cell = _lstm if self.lstm else _gru
        last_states = []
        for of_inputs, of_state in zip(self.seen, self.kept, strict=True):
            zeros = inputs.new_zeros(len(inputs), self.hidden)
            state = (zeros, zeros) if self.lstm else (zeros,)
            outputs = []
            for from_inputs in of_inputs(inputs).unbind(1):  # at each time (rows, gates * hidden)
                state = cell(from_inputs, of_state(state[0]), *state)
                outputs.append(state[0])
            inputs = torch.stack(outputs, 1)  # (rows, time, hidden)
            last_states.append(state)

        last = [torch.stack(states) for states in zip(*last_states, strict=True)]
        if self.lstm:
            return inputs, (last[0], last[1])
        return inputs, last[0]


def _gru(from_inputs: Tensor, from_state: Tensor, state: Tensor) -> tuple[Tensor]:
    """Compute the next state of a GRU as torch defines it.

    The reset gate multiplies the product of state and weight, not the state itself.
    """
    hidden = state.shape[1]
    gates_of_inputs, new_of_inputs = from_inputs.split([2 * hidden, hidden], 1)
    gates_of_state, new_of_state = from_state.split([2 * hidden, hidden], 1)
    reset, update = (gates_of_inputs + gates_of_state).sigmoid().chunk(2, 1)
    new = (new_of_inputs + reset * new_of_state).tanh()
    return (new + update * (state - new),)


def _lstm(
    from_inputs: Tensor,
    from_state: Tensor,
    state: Tensor,
    cell: Tensor,
) -> tuple[Tensor, Tensor]:
    """Compute the next state and cell of an LSTM."""
    into, forget, new, out = (from_inputs + from_state).chunk(4, 1)
    cell = forget.sigmoid() * cell + into.sigmoid() * new.tanh()
    return out.sigmoid() * cell.tanh(), cell

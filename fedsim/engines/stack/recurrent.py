"""Recurrent layers of many sites at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from fedsim.engines.stack.layers import Linear, NoRule

State = tuple[Tensor, ...]


class Recurrent(nn.Module):
    """An RNN, GRU or LSTM of torch or Opacus, of several layers and in one or two directions.

    Each direction of a layer consists of two Linear layers: the first multiplies the inputs, the
    second the hidden state.

    Args:
        layer: The layer to replace.
        steps: For each of its layers and directions, the Linear layer of the inputs and that of the
            hidden state.
        drop: Drops some of the inputs of every layer but the first; None where nothing is dropped.
    """

    def __init__(
        self,
        layer: nn.RNNBase,
        steps: list[tuple[Linear, Linear]],
        drop: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.lstm = "LSTM" in type(layer).__name__
        self.hidden = layer.hidden_size
        self.directions = 2 if layer.bidirectional else 1
        self.batch_first = layer.batch_first
        self.seen = nn.ModuleList(of_inputs for of_inputs, _ in steps)
        self.kept = nn.ModuleList(of_state for _, of_state in steps)
        self.drop = drop
        self._cell = _cell_of(layer)

    def forward(
        self,
        inputs: Tensor,
        start: Tensor | tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | tuple[Tensor, Tensor]]:
        """Compute the last layer's outputs, and every layer's last state.

        Outputs are (rows, time, directions * hidden), or (time, rows, ...) where inputs are so;
        states are (layers * directions, rows, hidden).
        """
        if not isinstance(inputs, Tensor) or inputs.dim() != 3:
            raise NoRule("a recurrent layer whose inputs are no batch of sequences of one length")
        if not self.batch_first:
            inputs = inputs.transpose(0, 1)
        starts = self._starts(inputs, start)
        last_states = []
        of_directions: list[Tensor] = []
        for number, (of_inputs, of_state) in enumerate(zip(self.seen, self.kept, strict=True)):
            backwards = number % self.directions == 1
            if not backwards:
                if number and self.drop is not None:
                    inputs = self.drop(inputs)
                of_directions = []

            state = starts(number)
            outputs = []
            over_time = of_inputs(inputs).unbind(1)  # at each time (rows, gates * hidden)
            for from_inputs in reversed(over_time) if backwards else over_time:
                state = self._cell(from_inputs, of_state(state[0]), *state)
                outputs.append(state[0])
            if backwards:
                outputs.reverse()
            of_directions.append(torch.stack(outputs, 1))  # (rows, time, hidden)
            last_states.append(state)
            if len(of_directions) == self.directions:
                inputs = of_directions[0] if self.directions == 1 else torch.cat(of_directions, 2)

        last = [torch.stack(states) for states in zip(*last_states, strict=True)]
        outputs_in_order = inputs if self.batch_first else inputs.transpose(0, 1)
        if self.lstm:
            return outputs_in_order, (last[0], last[1])
        return outputs_in_order, last[0]

    def _starts(
        self,
        inputs: Tensor,
        start: Tensor | tuple[Tensor, Tensor] | None,
    ) -> Callable[[int], State]:
        """Return the function from the number of a layer and direction to its first state."""
        if start is None:
            zeros = inputs.new_zeros(len(inputs), self.hidden)
            return lambda number: (zeros, zeros) if self.lstm else (zeros,)
        given: Sequence[Tensor] = start if isinstance(start, tuple) else (start,)
        return lambda number: tuple(states[number] for states in given)


class Cell(nn.Module):
    """An RNNCell, GRUCell or LSTMCell.

    Args:
        layer: The layer to replace.
        of_inputs: The Linear layer of the inputs.
        of_state: The Linear layer of the hidden state.
    """

    def __init__(self, layer: nn.RNNCellBase, of_inputs: Linear, of_state: Linear) -> None:
        super().__init__()
        self.lstm = isinstance(layer, nn.LSTMCell)
        self.hidden = layer.hidden_size
        self.of_inputs = of_inputs
        self.of_state = of_state
        self._cell = _cell_of(layer)

    def forward(
        self,
        inputs: Tensor,
        start: Tensor | tuple[Tensor, Tensor] | None = None,
    ) -> Tensor | tuple[Tensor, ...]:
        """Compute the next state, (rows, hidden), of inputs (rows, features); of an LSTM its cell, too."""
        zeros = inputs.new_zeros(len(inputs), self.hidden)
        if start is None:
            start = (zeros, zeros) if self.lstm else zeros
        state = start if isinstance(start, tuple) else (start,)
        after = self._cell(self.of_inputs(inputs), self.of_state(state[0]), *state)
        return after if self.lstm else after[0]


def _cell_of(layer: nn.RNNBase | nn.RNNCellBase) -> Callable[..., State]:
    """Return the function that computes the next state of a layer."""
    name = type(layer).__name__
    if "LSTM" in name:
        return _lstm
    if "GRU" in name:
        return _gru
    return partial(_rnn, torch.relu if layer.nonlinearity == "relu" else torch.tanh)  # type: ignore[attr-defined]


def _rnn(
    activation: Callable[[Tensor], Tensor],
    from_inputs: Tensor,
    from_state: Tensor,
    state: Tensor,
) -> tuple[Tensor]:
    """Compute the next state of a plain recurrent net."""
    return (activation(from_inputs + from_state),)


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

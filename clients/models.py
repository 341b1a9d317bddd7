"""The models of the tasks.

Each treats a row alone, and is made of layers that the cohort engine can stack.
"""

import torch
from torch import Tensor, nn

from fedsim.data.own_table.models import model_of


def linear(inputs: int) -> nn.Module:
    """Make logistic or linear regression, the same model as for the user's own table."""
    return model_of("linear", 1)(inputs)


def network(inputs: int) -> nn.Module:
    """Make a network with a hidden layer of 64 for a binary outcome.

    It is large enough to learn hundreds of rows by heart.
    """
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 1))


class Recurrent(nn.Module):
    """A GRU and a linear readout of its last state: (rows, time, inputs) to (rows, 1)."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.recurrent = nn.GRU(inputs, units, batch_first=True)
        self.readout = linear(units)

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the outputs (rows, 1) for inputs (rows, time, inputs)."""
        states, _ = self.recurrent(inputs)  # (rows, time, units)
        return self.readout(states[:, -1])


def convolutional(outputs: int) -> nn.Module:
    """Make a network of five convolutions and two linear layers for grey images.

    It maps (rows, 1, 28, 28) to (rows, outputs).
    """
    return model_of("cnn", outputs)(1, 28, 28)


def convolutional_in_time(signals: int, outputs: int) -> nn.Module:
    """Make a network of two convolutions along time, a mean over time and a linear layer.

    It maps (rows, signals, moments) to (rows, outputs).
    """
    return nn.Sequential(
        nn.Conv1d(signals, 32, kernel_size=5, padding=2),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(32, 64, kernel_size=5, padding=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(64, outputs),
    )


class Characters(nn.Module):
    """Names the next character at each place from the last ``context`` ones, as in Bengio et al. 2003, JMLR 3.

    It maps int64 (rows, places) to logits (rows, places, characters). Before a row begins there are zeros.
    """

    def __init__(self, characters: int, units: int, context: int) -> None:
        super().__init__()
        self.characters = nn.Embedding(characters, 16)
        self.nothing = nn.ConstantPad1d((context - 1, 0), 0.0)
        self.before = nn.Conv1d(16, units, context)
        self.scores = nn.Linear(units, characters)

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the logits."""
        embedded = self.characters(inputs).mT  # (rows, 16, places)
        read = self.before(self.nothing(embedded)).relu()  # (rows, units, places): a place's units see nothing after it
        return self.scores(read.mT)


class Views(nn.Module):
    """Features of each view of a row by the same network: (rows, views, ...) to (rows, views, features)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the features."""
        # View by view: folded into the rows, views would be rows of their own to whatever looks at rows one by one.
        return torch.stack([self.network(view) for view in inputs.unbind(1)], 1)


def narrow(inputs: int, width: int) -> nn.Module:
    """Make a linear autoencoder: the best of them is what PCA gives."""
    return nn.Sequential(nn.Linear(inputs, width), nn.Linear(width, inputs))

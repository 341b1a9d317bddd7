"""Layers written as ONNX compute what PyTorch computes."""

import numpy as np
import pytest
import torch
from torch import nn

from clients import models, synthetic
from fedsim.data.own_table.models import model_of
from fedsim.exporting.graph import FLOAT, Graph
from fedsim.exporting.layers import outputs_of
from fedsim.exporting.predict import outputs_of as run
from fedsim.mistakes import Mistake


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(3, 4, num_layers=2, batch_first=True)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        states, _ = self.recurrent(inputs)
        return states[:, 2]


class Guide(nn.Module):
    """The form of network that docs/own-images.md shows."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 5, stride=2, padding=2)
        self.norm = nn.GroupNorm(2, 8)
        self.second = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.last = nn.Linear(16 * 7 * 7, 1)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(self.first(rows)).relu()
        return self.last(torch.relu(self.second(hidden)).flatten(1))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv1d(4, 4, 3, padding=1)
        self.norm = nn.LayerNorm([4, 7], elementwise_affine=False)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        hidden = rows + nn.functional.gelu(self.body(rows))
        return self.norm(hidden * torch.sigmoid(hidden) + torch.tanh(nn.functional.silu(rows))).flatten(1)


MODELS = {
    "linear": (nn.Linear(5, 2), (5,)),
    "mlp": (model_of("mlp", 3)(5), (5,)),
    "mlp of images": (model_of("mlp", 3)(1, 6, 6), (1, 6, 6)),
    "network": (models.network(7), (7,)),
    "cnn": (models.convolutional(10), (1, 28, 28)),
    "lenet": (synthetic.lenet(3, 32, 32), (3, 32, 32)),
    "gru": (models.Recurrent(4, 6), (20, 4)),
    "gru of classes": (synthetic.Recurrent(20, 8), (20, 8)),
    "lstm": (Recurrent(), (5, 3)),
    "guide": (Guide(), (1, 28, 28)),
    "residual": (Residual(), (4, 7)),
    "more": (
        nn.Sequential(
            nn.Conv2d(2, 4, 3),
            nn.GroupNorm(1, 4, affine=False),
            nn.LeakyReLU(0.2),
            nn.AvgPool2d(2, 2, 1),
            nn.SiLU(),
            nn.Dropout2d(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.LayerNorm(4),
            nn.GELU("tanh"),
        ),
        (2, 9, 9),
    ),
    "others": (nn.Sequential(nn.Linear(4, 4, bias=False), nn.Tanh(), nn.Dropout(), nn.Sigmoid()), (4,)),
}


@pytest.mark.parametrize("name", MODELS)
def test_layers(name: str):
    model, shape = MODELS[name]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(torch.randn(value.shape, generator=generator) / 2)
    inputs = torch.randn((9, *shape), generator=generator)

    graph = Graph()
    value = outputs_of(model, graph.input("inputs", FLOAT, shape, ""))
    with torch.no_grad():
        wanted = model.eval()(inputs).numpy()
    graph.output(value, "outputs", FLOAT, wanted.shape[1:], "")
    got = run(graph.finished({}).SerializeToString(), {"inputs": inputs.numpy()})["outputs"]
    assert np.abs(got - wanted).max() <= 1e-5 * max(1, np.abs(wanted).max())


@pytest.mark.parametrize(
    "layer", [nn.PReLU(), nn.AdaptiveAvgPool2d(2), nn.GRU(4, 2, batch_first=True, bidirectional=True)]
)
def test_other_layers_are_refused(layer: nn.Module):
    with pytest.raises(Mistake, match="expected a"):
        outputs_of(nn.Sequential(layer), Graph().input("inputs", FLOAT, [4, 4], ""))

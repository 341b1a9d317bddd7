"""Models with the layers that people use, on rows of 16 numbers, and how each of them is trained."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

FAST, ANY, SERIAL = "fast rule", "any module", "one site after another"


@dataclass(frozen=True)
class Architecture:
    """A model.

    Attributes:
        layer: The layer or architecture that it shows, as docs/layers.md names it.
        make: Makes it.
        cohort: How the cohort engine trains it.
        serial: How the serial engine computes its rows' gradients.
    """

    layer: str
    make: Callable[[], nn.Module]
    cohort: str
    serial: str = "opacus"


class Shaped(nn.Module):
    """Turns (rows, 16) into (rows, *shape), or into numbers of ten words."""

    def __init__(self, *shape: int, words: bool = False) -> None:
        super().__init__()
        self.shape = shape
        self.words = words

    def forward(self, inputs: Tensor) -> Tensor:
        shaped = inputs.reshape(inputs.shape[0], *self.shape)
        return (shaped.abs() * 3).long().clamp(max=9) if self.words else shaped


class Call(nn.Module):
    """Calls a layer in its own way: ``call(layer, inputs)``."""

    def __init__(self, layer: nn.Module, call: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer = layer
        self.call = call

    def forward(self, inputs: Tensor) -> Tensor:
        return self.call(self.layer, inputs)


def first(layer: Any, inputs: Tensor) -> Tensor:
    return layer(inputs)[0]


def sequence(*layers: nn.Module, features: int) -> nn.Module:
    """Put a layer over four places of four numbers between a flat input and a Linear layer."""
    return nn.Sequential(Shaped(4, 4), *layers, nn.Flatten(), nn.Linear(features, 1))


def image(*layers: nn.Module, features: int, channels: int = 1) -> nn.Module:
    side = {1: (4, 4), 4: (2, 2)}[channels]
    return nn.Sequential(Shaped(channels, *side), *layers, nn.Flatten(), nn.Linear(features, 1))


class TiedWords(nn.Module):
    """A language model whose outputs are multiplied by the weights of its words."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(10, 4)
        self.mix = nn.Linear(4, 4)
        self.out = nn.Linear(4, 10, bias=False)
        self.out.weight = self.words.weight

    def forward(self, inputs: Tensor) -> Tensor:
        words = Shaped(16, words=True)(inputs)
        return self.out(self.mix(self.words(words)).tanh()).logsumexp(2).mean(1, keepdim=True)


class ByHand(nn.Module):
    """Uses the weight of a layer without calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(10, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        states = self.words(Shaped(16, words=True)(inputs))
        return functional.linear(states, self.words.weight).logsumexp(2).mean(1, keepdim=True)


class Own(nn.Module):
    """Has a parameter that belongs to no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(16))
        self.out = nn.Linear(16, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.out((inputs * self.scale).sin())


class LowRank(nn.Module):
    """A frozen Linear layer with two trained matrices beside it, of low rank (LoRA)."""

    def __init__(self, base: nn.Linear, own: bool) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.own = own
        if own:
            self.down = nn.Parameter(0.3 * torch.randn(2, base.in_features))
            self.up = nn.Parameter(0.3 * torch.randn(base.out_features, 2))
        else:
            self.down, self.up = nn.Linear(base.in_features, 2, bias=False), nn.Linear(2, base.out_features, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.own:
            return self.base(inputs) + inputs @ self.down.mT @ self.up.mT
        return self.base(inputs) + self.up(self.down(inputs))


class Positions(nn.Module):
    """Adds a constant table of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.linspace(-1, 1, 16).reshape(4, 4))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.table


class Two(nn.Module):
    """Passes two tensors to a layer, by place and by name."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()
        self.out = nn.Linear(8, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        shut, _ = self.gate(inputs[:, :8], other=inputs[:, 8:].tanh())
        return self.out(shut)


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 8))

    def forward(self, inputs: Tensor, other: Tensor) -> tuple[Tensor, None]:
        return inputs * (other * self.scale).sigmoid(), None


class Masked(nn.Module):
    """Attention with a causal mask as large as a batch may be, and with places that don't count."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, dropout=dropout, batch_first=True)
        self.out = nn.Linear(16, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        states = Shaped(4, 4)(inputs)
        mask = torch.ones(4, 4, dtype=torch.bool, device=inputs.device).triu(1)
        shut = states[:, :, 0] > 1
        shut[:, 0] = False
        values, _ = self.attention(states, states, states, attn_mask=mask, key_padding_mask=shut, need_weights=False)
        return self.out(values.flatten(1))


class Across(nn.Module):
    """Attention from one sequence to another, without ``batch_first``."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2)
        self.out = nn.Linear(8, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        states = Shaped(4, 4)(inputs).transpose(0, 1)
        values, weights = self.attention(states[:2], states[2:], states[2:].tanh())
        return self.out(values.transpose(0, 1).flatten(1)) + weights.square().sum((1, 2))[:, None]


def frozen(model: nn.Module, *names: str) -> nn.Module:
    for name, value in model.named_parameters():
        if any(name.startswith(each) for each in names):
            value.requires_grad_(False)
    return model


def encoder(dropout: float = 0.0, norm_first: bool = False, layers: int = 1) -> nn.Module:
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout, batch_first=True, norm_first=norm_first)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


def twice(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(16, 8), layer, nn.Linear(8, 8), layer, nn.Linear(8, 1))


def cell(kind: Any) -> nn.Module:
    return nn.Sequential(Call(kind(16, 4), lambda layer, inputs: _state(layer(inputs))), nn.Linear(4, 1))


def _state(state: Any) -> Tensor:
    return state[0] if isinstance(state, tuple) else state


ARCHITECTURES = {
    "Linear": Architecture("Linear", lambda: nn.Linear(16, 1), FAST),
    "Conv2d": Architecture("Conv2d", lambda: image(nn.Conv2d(1, 3, 3, padding=1), features=48), FAST),
    "Conv1d": Architecture("Conv1d", lambda: sequence(nn.Conv1d(4, 3, 2, padding=1), nn.Tanh(), features=15), FAST),
    "depthwise Conv1d": Architecture(
        "Conv1d with groups", lambda: sequence(nn.Conv1d(4, 4, 2, groups=4), features=12), ANY
    ),
    "depthwise Conv2d": Architecture(
        "Conv2d with groups", lambda: image(nn.Conv2d(4, 8, 1, groups=4), nn.Tanh(), features=32, channels=4), ANY
    ),
    "grouped Conv2d": Architecture(
        "Conv2d with groups",
        lambda: image(nn.Conv2d(4, 4, 2, padding=1, groups=2, bias=False), features=36, channels=4),
        ANY,
    ),
    "Conv2d, same": Architecture(
        "Conv2d with padding same", lambda: image(nn.Conv2d(1, 2, 3, padding="same"), features=32), ANY
    ),
    "Conv2d, reflected": Architecture(
        "Conv2d with a padding mode",
        lambda: image(nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"), features=32),
        ANY, "vmap",
    ),
    "Conv3d": Architecture(
        "Conv3d", lambda: nn.Sequential(Shaped(1, 2, 2, 4), nn.Conv3d(1, 2, 2), nn.Flatten(), nn.Linear(6, 1)), ANY
    ),
    "ConvTranspose2d": Architecture(
        "ConvTranspose1d, 2d, 3d", lambda: image(nn.ConvTranspose2d(1, 2, 2), features=50), ANY
    ),
    "Embedding": Architecture(
        "Embedding",
        lambda: nn.Sequential(Shaped(16, words=True), nn.Embedding(10, 3), nn.Flatten(), nn.Linear(48, 1)),
        FAST,
    ),
    "Embedding with padding": Architecture(
        "Embedding with padding_idx",
        lambda: nn.Sequential(Shaped(16, words=True), nn.Embedding(10, 3, 1), nn.Flatten(), nn.Linear(48, 1)),
        FAST, "vmap",
    ),
    "EmbeddingBag": Architecture(
        "EmbeddingBag",
        lambda: nn.Sequential(Shaped(16, words=True), nn.EmbeddingBag(10, 3), nn.Linear(3, 1)), ANY, "vmap",
    ),
    "LayerNorm": Architecture("LayerNorm", lambda: sequence(nn.LayerNorm(4), features=16), FAST),
    "RMSNorm": Architecture("RMSNorm", lambda: sequence(nn.RMSNorm(4), features=16), ANY),
    "GroupNorm": Architecture("GroupNorm", lambda: sequence(nn.GroupNorm(2, 4), features=16), FAST),
    "InstanceNorm": Architecture(
        "InstanceNorm1d, 2d, 3d", lambda: sequence(nn.InstanceNorm1d(4, affine=True), features=16), ANY
    ),
    "PReLU": Architecture("PReLU", lambda: nn.Sequential(nn.Linear(16, 8), nn.PReLU(8), nn.Linear(8, 1)), ANY),
    "PReLU twice": Architecture("PReLU", lambda: twice(nn.PReLU(8, 0.6)), ANY),
    "Bilinear": Architecture(
        "Bilinear",
        lambda: nn.Sequential(Call(nn.Bilinear(8, 8, 4), lambda layer, rows: layer(rows[:, :8], rows[:, 8:])),
                              nn.Linear(4, 1)),
        ANY, "vmap",
    ),
    "RNN": Architecture(
        "RNN", lambda: sequence(Call(nn.RNN(4, 3, batch_first=True), first), features=12), FAST, "row by row"
    ),
    "GRU": Architecture("GRU", lambda: sequence(Call(nn.GRU(4, 3, batch_first=True), first), features=12), FAST),
    "LSTM": Architecture("LSTM", lambda: sequence(Call(nn.LSTM(4, 3, 2, batch_first=True), first), features=12), FAST),
    "bidirectional LSTM": Architecture(
        "RNN, GRU, LSTM, bidirectional",
        lambda: sequence(Call(nn.LSTM(4, 3, 2, batch_first=True, bidirectional=True), first), features=24), FAST,
    ),
    "bidirectional GRU, time first": Architecture(
        "RNN, GRU, LSTM, bidirectional",
        lambda: sequence(
            Call(
                nn.GRU(4, 3, bidirectional=True),
                lambda layer, rows: first(layer, rows.transpose(0, 1)).transpose(0, 1),
            ),
            features=24,
        ),
        FAST,
    ),
    "LSTM with dropout": Architecture(
        "RNN, GRU, LSTM with dropout",
        lambda: sequence(Call(nn.LSTM(4, 3, 2, batch_first=True, dropout=0.4), first), features=12), FAST, "vmap",
    ),
    "GRUCell": Architecture("RNNCell, GRUCell, LSTMCell", lambda: cell(nn.GRUCell), FAST, "row by row"),
    "LSTMCell": Architecture("RNNCell, GRUCell, LSTMCell", lambda: cell(nn.LSTMCell), FAST, "row by row"),
    "RNNCell": Architecture("RNNCell, GRUCell, LSTMCell", lambda: cell(nn.RNNCell), FAST, "row by row"),
    "MultiheadAttention": Architecture("MultiheadAttention", Masked, FAST, "vmap"),
    "attention with dropout": Architecture("MultiheadAttention", lambda: Masked(0.3), FAST, "vmap"),
    "attention across": Architecture("MultiheadAttention", Across, FAST, "vmap"),
    "TransformerEncoderLayer": Architecture(
        "TransformerEncoderLayer, TransformerEncoder",
        lambda: sequence(nn.TransformerEncoderLayer(4, 2, 8, 0.2, batch_first=True), features=16), FAST, "vmap",
    ),
    "TransformerEncoder": Architecture(
        "TransformerEncoderLayer, TransformerEncoder",
        lambda: sequence(Positions(), encoder(norm_first=True, layers=2), features=16), FAST, "vmap",
    ),
    "Dropout": Architecture(
        "Dropout, Dropout1d, 2d, 3d",
        lambda: nn.Sequential(nn.Dropout(0.3), nn.Linear(16, 8), nn.Dropout(), nn.Linear(8, 1)), FAST,
    ),
    "Dropout2d": Architecture(
        "Dropout, Dropout1d, 2d, 3d",
        lambda: image(nn.Conv2d(1, 4, 3), nn.Dropout2d(0.4), features=16), FAST,
    ),
    "a parameter of its own": Architecture("a parameter that a module uses itself", Own, ANY),
    "two inputs": Architecture("a module with several inputs and outputs", Two, ANY, "vmap"),
    "tied weights": Architecture("layers that share a parameter", TiedWords, ANY),
    "a weight used by hand": Architecture("a layer's weight, used without calling it", ByHand, ANY, "vmap"),
    "frozen backbone": Architecture(
        "frozen parameters", lambda: frozen(nn.Sequential(nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 1)), "0."), FAST
    ),
    "frozen bias": Architecture(
        "frozen parameters beside trained ones",
        lambda: frozen(nn.Sequential(nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 1)), "0.bias", "2.weight"), ANY,
    ),
    "LoRA": Architecture(
        "LoRA by Linear layers",
        lambda: nn.Sequential(LowRank(nn.Linear(16, 8), False), nn.Tanh(), LowRank(nn.Linear(8, 1), False)), FAST,
    ),
    "LoRA, own parameters": Architecture(
        "LoRA by parameters",
        lambda: nn.Sequential(LowRank(nn.Linear(16, 8), True), nn.Tanh(), nn.Linear(8, 1)), ANY,
    ),
    "AlphaDropout": Architecture(
        "AlphaDropout, functional.dropout", lambda: nn.Sequential(nn.AlphaDropout(0.2), nn.Linear(16, 1)), SERIAL,
        "vmap",
    ),
}  # fmt: skip

"""Twenty-five architectures that people bring, small, each with rows and the loss of its kind of outcome."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from clients.text import BertConfig, SentenceEncoder
from fedsim.data.federation import Examples
from fedsim.data.inputs import Input
from fedsim.outcomes import outcome_of
from fedsim.outcomes.own import OwnKind, OwnMetric
from fedsim.scenario.schema import Adapt
from fedsim.strategy.trainable import trainable
from fedsim.training.adapt import adapted
from fedsim.training.batch_norm import without_batch_norm
from fedsim.training.by_name import ByName
from fedsim.training.losses import RowLosses

FAST, ANY, BOTH = "fast rules", "any module", "fast rules and any module"
SERIAL = "one site after another"
WORDS = 12
"""How many different words, or characters, there are."""

Make = Callable[[int, torch.Generator], Tensor]
"""Makes the inputs or targets of some rows from random numbers."""


@dataclass(frozen=True)
class Architecture:
    """An architecture.

    Attributes:
        title: What it is, as docs/architectures.md names it.
        model: Makes it.
        inputs: Makes inputs, (rows, ...).
        target: Makes targets, (rows, ...).
        losses: The loss of each row.
        stacked: How the cohort engine trains it.
        rows: How the serial engine computes its rows' gradients.
    """

    title: str
    model: Callable[[], nn.Module]
    inputs: Make
    target: Make
    losses: RowLosses
    stacked: str
    rows: str

    def examples(self, rows: int, seed: int) -> Examples:
        random = torch.Generator().manual_seed(seed)
        return Examples(self.inputs(rows, random), self.target(rows, random))


def numbers(*shape: int) -> Make:
    return lambda rows, random: torch.randn(rows, *shape, generator=random)


def words(*shape: int, count: int = WORDS) -> Make:
    return lambda rows, random: torch.randint(count, (rows, *shape), generator=random)


def labels(*shape: int) -> Make:
    return lambda rows, random: torch.randint(2, (rows, *shape), generator=random).float()


def survived(rows: int, random: torch.Generator) -> Tensor:
    """Return the interval in which each row was last seen, of four, and whether the event came then."""
    when = torch.randint(4, (rows, 1), generator=random)
    return torch.cat([when, torch.randint(2, (rows, 1), generator=random)], 1).float()


def hazards(outputs: Tensor, target: Tensor) -> Tensor:
    """Return each row's loss by the discrete hazards of intervals: the sum over those that it was at risk in."""
    intervals = torch.arange(outputs.shape[1])
    when, event = target[:, :1], target[:, 1:]
    at_risk = (intervals <= when).float()
    came = (intervals == when).float() * event
    return (functional.binary_cross_entropy_with_logits(outputs, came, reduction="none") * at_risk).sum(1)


def pixels(outputs: Tensor, target: Tensor) -> Tensor:
    """Return each image's loss: the mean over its points."""
    return functional.binary_cross_entropy_with_logits(outputs[:, 0], target, reduction="none").mean((1, 2))


def right(target: object, predicted: object) -> float:
    return 0.0


SEGMENTS = OwnKind("segments", pixels, [OwnMetric("segmented", right, low=0, high=1)])
BINARY, CLASSES, NUMBER = (outcome_of(kind).losses for kind in ("binary", "classes", "number"))
MULTI, NEXT, ITSELF = (outcome_of(kind).losses for kind in ("multi-label", "next-token", "reconstruction"))


class Residual(nn.Module):
    """A block of a ResNet, with GroupNorm in the place of BatchNorm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.first_norm = nn.GroupNorm(2, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second_norm = nn.GroupNorm(2, channels)

    def forward(self, inputs: Tensor) -> Tensor:
        inner = self.first_norm(self.first(inputs)).relu()
        return (inputs + self.second_norm(self.second(inner))).relu()


class Last(nn.Module):
    """The last state of a recurrent layer, read by a Linear layer."""

    def __init__(self, recurrent: nn.RNNBase, outputs: int) -> None:
        super().__init__()
        self.recurrent = recurrent
        self.out = nn.Linear(recurrent.hidden_size * (2 if recurrent.bidirectional else 1), outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.out(self.recurrent(inputs)[0][:, -1])


class Loop(nn.Module):
    """A cell that the model itself moves from one place to the next."""

    def __init__(self, cell: nn.GRUCell | nn.LSTMCell) -> None:
        super().__init__()
        self.cell = cell
        self.out = nn.Linear(cell.hidden_size, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        state = None
        for place in range(inputs.shape[1]):
            state = self.cell(inputs[:, place], state)
        return self.out(state[0] if isinstance(state, tuple) else state)


class Text(nn.Module):
    """Words through some layers to their mean, or through a bag."""

    def __init__(self, embed: nn.Module, layers: nn.Module, width: int, outputs: int) -> None:
        super().__init__()
        self.embed = embed
        self.layers = layers
        self.out = nn.Linear(width, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        states = self.layers(self.embed(inputs))
        return self.out(states.mean(1) if states.ndim == 3 else states)


class ByHand(nn.Module):
    """A causal transformer without a layer of torch's: all its parameters are used directly."""

    def __init__(self, width: int = 8, places: int = 6) -> None:
        super().__init__()
        self.words = nn.Parameter(0.3 * torch.randn(WORDS, width))
        self.places = nn.Parameter(0.1 * torch.randn(places, width))
        self.asked = nn.Parameter(0.3 * torch.randn(width, width))
        self.keys = nn.Parameter(0.3 * torch.randn(width, width))
        self.values = nn.Parameter(0.3 * torch.randn(width, width))
        self.wide = nn.Parameter(0.3 * torch.randn(width, 2 * width))
        self.back = nn.Parameter(0.3 * torch.randn(2 * width, width))
        self.scores = nn.Parameter(0.3 * torch.randn(width, WORDS))

    def forward(self, inputs: Tensor) -> Tensor:
        states = self.words[inputs] + self.places
        likeness = (states @ self.asked) @ (states @ self.keys).mT / states.shape[-1] ** 0.5
        later = torch.ones(states.shape[1], states.shape[1], dtype=torch.bool).triu(1)
        states = states + likeness.masked_fill(later, -torch.inf).softmax(-1) @ (states @ self.values)
        return (states + (states @ self.wide).relu() @ self.back) @ self.scores


class Tied(nn.Module):
    """A language model whose outputs are multiplied by the weights of its words."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 6)
        self.recurrent = nn.GRU(6, 6, batch_first=True)
        self.out = nn.Linear(6, WORDS, bias=False)
        self.out.weight = self.words.weight

    def forward(self, inputs: Tensor) -> Tensor:
        return self.out(self.recurrent(self.words(inputs))[0])


class Pooled(nn.Module):
    """Attention of one learned question to all places."""

    def __init__(self) -> None:
        super().__init__()
        self.question = nn.Parameter(torch.randn(1, 1, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.out = nn.Linear(8, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        asked = self.question.expand(inputs.shape[0], 1, 8)
        return self.out(self.attention(asked, inputs, inputs, need_weights=False)[0][:, 0])


class Pairs(nn.Module):
    """Two halves of a row, each with each."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Bilinear(6, 6, 4)
        self.out = nn.Linear(4, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.out(self.both(inputs[:, :6], inputs[:, 6:]).tanh())


class ImageAndTable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.table = nn.Linear(5, 3)
        self.out = nn.Linear(6, 4)

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        return self.out(torch.cat([self.image(image), self.table(table).relu()], 1))


class WordsAndMask(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 6)
        self.mix = nn.Linear(6, 6)
        self.out = nn.Linear(6, 3)

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        counted = mask[:, :, None].float()
        states = self.mix(self.words(words)).tanh() * counted
        return self.out(states.sum(1) / counted.sum(1).clamp(min=1))


class UNet(nn.Module):
    """One step down and one up, with what was before beside it; it names each point of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Conv2d(1, 4, 3, padding=1)
        self.down = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.after = nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, inputs: Tensor) -> Tensor:
        before = self.before(inputs).relu()
        below = self.down(before).relu()
        return self.after(torch.cat([before, self.up(below).relu()], 1))


class LowRank(nn.Module):
    """A frozen Linear layer and two small trained matrices beside it (LoRA)."""

    def __init__(self, base: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(0.3 * torch.randn(rank, base.in_features))
        self.up = nn.Parameter(0.1 * torch.randn(base.out_features, rank))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.base(inputs) + inputs @ self.down.mT @ self.up.mT


IMAGE_AND_TABLE = (Input("image", (1, 6, 6)), Input("table", (5,)))
WORDS_AND_MASK = (Input("words", (5,), whole=WORDS), Input("mask", (5,), mask=True))


def words_and_mask(rows: int, random: torch.Generator) -> Tensor:
    masked = torch.rand(rows, 5, generator=random) < 0.7
    return torch.cat([torch.randint(WORDS, (rows, 5), generator=random).float(), masked.float()], 1)


def resnet() -> nn.Module:
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)]
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), Residual(4), Residual(4), *head)


def separable() -> nn.Module:
    """Make depthwise and pointwise convolutions in turn, as MobileNet has them."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 1),
        nn.Conv2d(4, 4, 3, groups=4, bias=False),
        nn.GroupNorm(1, 4),
        nn.ReLU6(),
        nn.Conv2d(4, 6, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )


def signals() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 4, 3),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(4, 4, 3, dilation=2),
        nn.GELU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def volumes() -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(81, 1))


def autoencoder() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 2, stride=2),
        nn.Tanh(),
        nn.Conv2d(3, 4, 3),
        nn.Tanh(),
        nn.ConvTranspose2d(4, 3, 3),
        nn.Tanh(),
        nn.ConvTranspose2d(3, 1, 2, stride=2),
    )


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.1, batch_first=True)
    layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    return Text(nn.Embedding(WORDS, 8), layers, 8, 3)


def backbone() -> nn.Module:
    frozen = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten())
    return nn.Sequential(frozen.requires_grad_(False), nn.Linear(16, 3))


def batch_norm() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    return without_batch_norm(model)


def low_rank() -> nn.Module:
    return nn.Sequential(LowRank(nn.Linear(12, 10)), nn.ReLU(), LowRank(nn.Linear(10, 3)))


def adapted_encoder() -> nn.Module:
    """Make LoRA on an encoder of MiniLM's form; B is not zero, so that A has gradients, too."""
    encoder = SentenceEncoder(BertConfig(WORDS, 8, 2, 2, 12, 6), 1)
    model = adapted(encoder, Adapt(method="lora", rank=2, modules=["query", "value"], also=["head"]))
    for name, value in trainable(model).items():
        if "lora_B" in name:
            nn.init.normal_(value, std=0.3)
    return model


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 8), nn.RMSNorm(8), nn.PReLU(8), nn.Dropout(0.2), nn.Linear(8, 1))


SQUARE, TABLE, SERIES, TEXT = numbers(1, 6, 6), numbers(12), numbers(6, 8), words(6)
THREE, YES, AMOUNT, FOLLOWING = words(count=3), labels(), numbers(), words(6)

ARCHITECTURES = {
    "resnet": Architecture("ResNet with GroupNorm", resnet, SQUARE, THREE, CLASSES, FAST, "opacus"),
    "separable": Architecture("depthwise separable convolutions", separable, SQUARE, THREE, CLASSES, BOTH, "opacus"),
    "signals": Architecture("Conv1d over signals", signals, numbers(2, 14), THREE, CLASSES, FAST, "opacus"),
    "volumes": Architecture("Conv3d over volumes", volumes, numbers(1, 4, 4, 4), YES, BINARY, BOTH, "opacus"),
    "autoencoder": Architecture(
        "autoencoder with ConvTranspose2d", autoencoder, numbers(1, 8, 8), numbers(64), ITSELF, BOTH, "opacus"
    ),
    "encoder": Architecture("nn.TransformerEncoder with dropout", encoder, TEXT, THREE, CLASSES, FAST, "vmap"),
    "by hand": Architecture(
        "causal transformer by hand, with parameters of its own", ByHand, TEXT, FOLLOWING, NEXT, ANY, "opacus"
    ),
    "tied": Architecture("language model with a GRU and tied weights", Tied, TEXT, FOLLOWING, NEXT, SERIAL, "opacus"),
    "lstm": Architecture(
        "bidirectional LSTM",
        lambda: Last(nn.LSTM(8, 4, bidirectional=True, batch_first=True), 3),
        SERIES,
        THREE,
        CLASSES,
        FAST,
        "opacus",
    ),
    "gru": Architecture(
        "GRU of two layers with dropout",
        lambda: Last(nn.GRU(8, 4, 2, dropout=0.3, batch_first=True), 1),
        SERIES,
        AMOUNT,
        NUMBER,
        FAST,
        "vmap",
    ),
    "rnn": Architecture(
        "RNN", lambda: Last(nn.RNN(8, 5, batch_first=True), 1), SERIES, AMOUNT, NUMBER, FAST, "row by row"
    ),
    "gru cell": Architecture(
        "loop over a GRUCell", lambda: Loop(nn.GRUCell(8, 4)), SERIES, YES, BINARY, FAST, "row by row"
    ),
    "lstm cell": Architecture(
        "loop over an LSTMCell", lambda: Loop(nn.LSTMCell(8, 4)), SERIES, YES, BINARY, FAST, "row by row"
    ),
    "pooled": Architecture("MultiheadAttention that pools places", Pooled, SERIES, YES, BINARY, ANY, "opacus"),
    "bag": Architecture(
        "EmbeddingBag", lambda: Text(nn.EmbeddingBag(WORDS, 6), nn.Identity(), 6, 3), TEXT, THREE, CLASSES, BOTH, "vmap"
    ),
    "padding": Architecture(
        "Embedding with padding_idx",
        lambda: Text(nn.Embedding(WORDS, 6, 0), nn.LayerNorm(6), 6, 3),
        TEXT,
        THREE,
        CLASSES,
        FAST,
        "vmap",
    ),
    "pairs": Architecture("Bilinear", Pairs, TABLE, YES, BINARY, BOTH, "vmap"),
    "perceptron": Architecture(
        "perceptron with RMSNorm, PReLU and dropout", perceptron, TABLE, AMOUNT, NUMBER, BOTH, "opacus"
    ),
    "backbone": Architecture(
        "frozen convolutions and a trained head", backbone, SQUARE, THREE, CLASSES, FAST, "opacus"
    ),
    "batch norm": Architecture("BatchNorm, replaced by GroupNorm", batch_norm, SQUARE, THREE, CLASSES, FAST, "opacus"),
    "low rank": Architecture("LoRA by hand on a frozen base", low_rank, TABLE, labels(3), MULTI, ANY, "opacus"),
    "minilm": Architecture("LoRA on MiniLM's form, tiny", adapted_encoder, TEXT, YES, BINARY, FAST, "opacus"),
    "two inputs": Architecture(
        "an image and a table by name",
        lambda: ByName(ImageAndTable(), IMAGE_AND_TABLE),
        numbers(41),
        survived,
        hazards,
        FAST,
        "opacus",
    ),
    "words and mask": Architecture(
        "words and their mask by name",
        lambda: ByName(WordsAndMask(), WORDS_AND_MASK),
        words_and_mask,
        THREE,
        CLASSES,
        FAST,
        "opacus",
    ),
    "unet": Architecture(
        "U-Net that names each point (a kind of its own)",
        UNet,
        numbers(1, 6, 6),
        labels(6, 6),
        SEGMENTS.losses,
        BOTH,
        "opacus",
    ),
}

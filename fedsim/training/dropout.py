"""Dropout whose random numbers come from each site's own stream, the same on every engine.

Each site has one generator in a round, seeded by ``Streams.layers``. Whenever a layer drops, it draws a uniform number
for each number of the site's rows in this step, in the order of the rows, and keeps what is not below its
probability. So the draws of a site depend neither on the sites beside it nor on how sites are cut into stacks, and a
model drops the same numbers whether its sites are trained one after another or together. This holds for ``nn.Dropout``
and its forms for channels, for recurrent layers and for attention. It doesn't for a model that calls
``functional.dropout`` itself or has an ``AlphaDropout``: such a model is trained one site after another, by torch's
global generator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_CHANNELS = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


class Draws:
    """The random numbers of one or several sites in one round.

    Args:
        seeds: The seed of each site, (sites,).
        device: The device of the tensors.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self._device = device
        self._counts: Sequence[int] = []
        self._places: Tensor | None = None
        self._rows = 0
        self._kept: list[Tensor] | None = None
        self._given: Iterator[Tensor] | None = None
        self._off = False
        self.restart(seeds)

    def restart(self, seeds: Sequence[int]) -> None:
        """Begin with new streams, one for each site."""
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def begin(self, counts: Sequence[int], rows: int, places: Tensor | None = None) -> None:
        """Begin a step.

        Args:
            counts: The number of rows of each site.
            rows: The number of rows in the batch, with those that only fill up.
            places: The places of the sites' rows in the batch; None where they stand close together.
        """
        self._counts = counts
        self._rows = rows
        self._places = places

    def keeps(self, shape: Sequence[int], probability: float) -> Tensor:
        """Decide what a layer keeps, bool (rows, *shape), where it drops with a probability."""
        if self._off:
            return torch.ones((), dtype=torch.bool, device=self._device)
        if self._given is not None:
            return next(self._given)
        drawn = []
        for generator, count in zip(self._generators, self._counts, strict=True):
            drawn.append(torch.rand(count, *shape, generator=generator))
        kept = (torch.cat(drawn) >= probability).to(self._device)
        if self._places is not None:
            filled = kept.new_zeros(self._rows, *shape)
            kept = filled.index_copy_(0, self._places, kept)
        if self._kept is not None:
            self._kept.append(kept)
        return kept

    @contextmanager
    def recorded(self) -> Iterator[list[Tensor]]:
        """Keep what is decided meanwhile, (rows, ...) each."""
        kept: list[Tensor] = []
        self._kept = kept
        try:
            yield kept
        finally:
            self._kept = None

    @contextmanager
    def off(self) -> Iterator[None]:
        """Keep everything meanwhile."""
        self._off = True
        try:
            yield
        finally:
            self._off = False

    @contextmanager
    def given(self, decisions: Sequence[Tensor]) -> Iterator[None]:
        """Decide meanwhile as was decided before."""
        self._given = iter(decisions)
        try:
            yield
        finally:
            self._given = None


class SiteDropout(nn.Module):
    """``nn.Dropout`` or one of its forms for channels, by each site's own stream."""

    def __init__(self, draws: Draws, probability: float, channels: bool = False) -> None:
        super().__init__()
        self.draws = draws
        self.probability = probability
        self.channels = channels

    def forward(self, inputs: Tensor) -> Tensor:
        """Drop some of the inputs, (rows, ...), and make the others larger in return."""
        if not self.training or not self.probability:
            return inputs
        return dropped(inputs, self.draws, self.probability, self.channels)


def dropped(inputs: Tensor, draws: Draws, probability: float, channels: bool = False) -> Tensor:
    """Drop numbers of inputs (rows, ...), or whole channels of (rows, channels, ...)."""
    shape = list(inputs.shape[1:])
    if channels:
        shape[1:] = [1] * (len(shape) - 1)
    factor = draws.keeps(shape, probability).to(inputs.dtype)
    if probability < 1:
        factor = factor / (1 - probability)
    return inputs * factor


def draws_by_site(module: nn.Module) -> bool:
    """Tell whether a module is one that drops by each site's stream, once it is replaced."""
    if isinstance(module, nn.MultiheadAttention):
        return module.dropout > 0
    if isinstance(module, nn.RNNBase):
        return module.dropout > 0
    return _is_dropout(module) and module.p > 0  # type: ignore[operator]


def _is_dropout(module: nn.Module) -> bool:
    return type(module) in (nn.Dropout, *_CHANNELS)


def replacement(module: nn.Module, draws: Draws) -> SiteDropout:
    """Return what stands for an ``nn.Dropout`` or one of its forms for channels."""
    probability = float(module.p)  # type: ignore[arg-type]
    return SiteDropout(draws, probability, isinstance(module, _CHANNELS)).train(module.training)


def with_site_dropout(module: nn.Module, draws: Draws) -> nn.Module:
    """Let a model's layers drop by each site's stream; change the model in place, and return it."""
    if _is_dropout(module):
        return replacement(module, draws)
    if draws_by_site(module):
        # The class is changed, and nothing else: parameters keep their names.
        own_class = _Attention if isinstance(module, nn.MultiheadAttention) else _Recurrent
        object.__setattr__(module, "__class__", own_class)
        module.draws = draws  # type: ignore[assignment]
    for name, child in module._modules.items():
        if child is not None:
            module._modules[name] = with_site_dropout(child, draws)
    return module


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: int,
    mask: Tensor | None,
    drop: Callable[[Tensor], Tensor] | None = None,
    weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Compute attention of several heads.

    Args:
        query: (rows, places, features).
        key: (rows, other places, features).
        value: (rows, other places, features).
        heads: The number of heads.
        mask: What is added to the weights' logits, float (rows or 1, heads or 1, places or 1, other places).
        drop: Drops some of the weights.
        weights: Whether to return the weights.

    Returns:
        The outputs (rows, places, features), and the weights (rows, heads, places, other places) or None.
    """
    rows, places, features = query.shape
    of_heads = [
        values.reshape(rows, values.shape[1], heads, features // heads).transpose(1, 2)
        for values in (query, key, value)
    ]
    if drop is None and not weights:
        outputs = functional.scaled_dot_product_attention(*of_heads, attn_mask=mask)
        shares = None
    else:
        logits = (of_heads[0] * (features // heads) ** -0.5) @ of_heads[1].mT
        if mask is not None:
            logits = logits + mask
        shares = logits.softmax(-1)
        if drop is not None:
            shares = drop(shares)
        outputs = shares @ of_heads[2]
    return outputs.transpose(1, 2).reshape(rows, places, features), shares


def merged_mask(
    attention_mask: Tensor | None,
    padding_mask: Tensor | None,
    rows: int,
    like: Tensor,
) -> Tensor | None:
    """Join the masks of ``nn.MultiheadAttention`` to one that is added to logits.

    Args:
        attention_mask: (places, other places) or (rows * heads, places, other places); bools forbid.
        padding_mask: (rows, other places); bools forbid.
        rows: The number of rows.
        like: A tensor of the type of the result.
    """
    merged = None
    if attention_mask is not None:
        merged = _added(attention_mask, like)
        merged = merged.unflatten(0, (rows, -1)) if merged.dim() == 3 else merged[None, None]
    if padding_mask is not None:
        padding = _added(padding_mask, like)[:, None, None]
        merged = padding if merged is None else merged + padding
    return merged


def _added(mask: Tensor, like: Tensor) -> Tensor:
    """Return a mask as what is added to logits."""
    if mask.dtype != torch.bool:
        return mask.to(like)
    return torch.zeros(mask.shape, dtype=like.dtype, device=like.device).masked_fill(mask, -torch.inf)


class _Attention(nn.MultiheadAttention):
    """Attention that drops by each site's stream."""

    draws: Draws

    def forward(  # type: ignore[override]
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
        """Compute attention as ``nn.MultiheadAttention`` does."""
        if not self.training:
            return super().forward(
                query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
            )
        if not self._qkv_same_embed_dim or self.bias_k is not None or self.add_zero_attn:
            raise NotImplementedError("MultiheadAttention with dropout and kdim, vdim, add_bias_kv or add_zero_attn")
        inputs = [query, key, value]
        if not self.batch_first:
            inputs = [values.transpose(0, 1) for values in inputs]
        weights = self.in_proj_weight.chunk(3)
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        queries, keys, values_of_keys = (
            functional.linear(values, weight, bias)
            for values, weight, bias in zip(inputs, weights, biases, strict=True)
        )
        outputs, shares = attention(
            queries,
            keys,
            values_of_keys,
            self.num_heads,
            merged_mask(attn_mask, key_padding_mask, len(queries), queries),
            lambda values: dropped(values, self.draws, self.dropout),
        )
        outputs = functional.linear(outputs, self.out_proj.weight, self.out_proj.bias)
        if not self.batch_first:
            outputs = outputs.transpose(0, 1)
        if not need_weights or shares is None:
            return outputs, None
        return outputs, shares.mean(1) if average_attn_weights else shares


class _Recurrent(nn.RNNBase):
    """A recurrent layer of several layers that drops between them by each site's stream."""

    draws: Draws

    def forward(self, inputs: Tensor, start: Tensor | tuple[Tensor, Tensor] | None = None) -> tuple:  # type: ignore[override, type-arg]
        """Compute outputs and the last states as torch's layer does."""
        if self.proj_size or not isinstance(inputs, Tensor) or inputs.dim() != 3:
            raise NotImplementedError(f"{self.mode} with dropout and proj_size, or inputs that are no batch")
        compute: Any = getattr(torch, self.mode.lower())  # lstm, gru, rnn_tanh, rnn_relu
        directions = 2 if self.bidirectional else 1
        row_dim = 0 if self.batch_first else 1
        rows = inputs.shape[row_dim]
        of_lstm = self.mode == "LSTM"
        if start is None:
            zeros = inputs.new_zeros(self.num_layers * directions, rows, self.hidden_size)
            start = (zeros, zeros) if of_lstm else zeros

        last_states = []
        values = inputs
        for number in range(self.num_layers):
            if number and self.training:
                values = _dropped_in_time(values, row_dim, self.draws, self.dropout)
            places = slice(number * directions, (number + 1) * directions)
            state = tuple(states[places] for states in start) if of_lstm else start[places]  # type: ignore[index]
            weights = [getattr(self, name) for name in self._all_weights[number * directions]]
            if self.bidirectional:
                weights += [getattr(self, name) for name in self._all_weights[number * directions + 1]]
            values, *states = compute(
                values, state, weights, self.bias, 1, 0.0, self.training, self.bidirectional, self.batch_first
            )
            last_states.append(states)
        last = tuple(torch.cat(states) for states in zip(*last_states, strict=True))
        return values, last if of_lstm else last[0]


def _dropped_in_time(values: Tensor, row_dim: int, draws: Draws, probability: float) -> Tensor:
    """Drop numbers of (rows, time, features), or of (time, rows, features)."""
    if row_dim == 0:
        return dropped(values, draws, probability)
    return dropped(values.transpose(0, 1), draws, probability).transpose(0, 1)

"""A key-value cache that is written in place, without concatenation at each token. Imports transformers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer, EncoderDecoderCache

__all__ = ["rows_can_be_chosen", "with_room"]


class _RoomyLayer(DynamicLayer):
    """A dynamic layer whose states are views of tensors with room for all tokens to come."""

    def __init__(self, layer: DynamicLayer, more: int) -> None:
        super().__init__()
        keys, values = layer.keys, layer.values
        assert keys is not None and values is not None
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._length = keys.shape[-2]
        self._rooms = [torch.cat([x, x.new_empty(*x.shape[:2], more, x.shape[3])], dim=-2) for x in (keys, values)]
        self._look()

    def _look(self) -> None:
        self.keys, self.values = (room[:, :, : self._length] for room in self._rooms)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the new states behind the old ones."""
        start, self._length = self._length, self._length + key_states.shape[-2]
        for room, states in zip(self._rooms, (key_states, value_states), strict=True):
            room[:, :, start : self._length] = states
        self._look()
        assert self.keys is not None and self.values is not None
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows."""
        self._rooms = [room[indices] for room in self._rooms]
        self._look()


def rows_can_be_chosen(cache: Any) -> bool:
    """Whether every layer of the cache is a plain one, batch first, so that its rows can be repeated and dropped."""
    if isinstance(cache, EncoderDecoderCache):
        return rows_can_be_chosen(cache.self_attention_cache) and rows_can_be_chosen(cache.cross_attention_cache)
    return isinstance(cache, Cache) and all(type(layer) in (DynamicLayer, _RoomyLayer) for layer in cache.layers)


def with_room(cache: Any, more: int) -> Any:
    """The cache, its growing layers replaced by ones with room for ``more`` tokens; see :func:`rows_can_be_chosen`."""
    growing = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
    growing.layers = [_RoomyLayer(layer, more) if type(layer) is DynamicLayer else layer for layer in growing.layers]
    return cache

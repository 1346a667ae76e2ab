"""The plain, whole module inside a data-parallel wrapper or behind shards, or the reason why there is none.

Sampling, scoring and gradient engines call a model as often as a process's own responses need, and read its parameters.
Replicas (DDP) allow that at once. Under FSDP2 a process holds a part of each parameter, and every forward pass is a
collective operation; :func:`whole` puts the full parameters in their place while a block runs. Other ways to split or
replace parameters are recognised and refused.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from inspect import signature
from types import MethodType
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from kvar.rollouts.modes import check_module

__all__ = ["given_whole", "is_sharded", "standing_in", "unwrap", "whole"]

P = ParamSpec("P")
R = TypeVar("R")

_FULL: dict[int, nn.Parameter] = {}
"""id of a sharded parameter -> the full one that stands in its place now."""
_HELD: WeakKeyDictionary[nn.Module, dict[Any, nn.Parameter]] = WeakKeyDictionary()
"""Module -> its stand-ins, emptied after use and used again, since what is known of a model goes by its parameters."""


def unwrap(module: Any, role: str = "student") -> nn.Module:
    """The module inside a data-parallel wrapper (DataParallel, DDP, DeepSpeed's engine); FSDP2's own module as it is.

    Args:
        module: the model.
        role: its name in messages.

    Raises:
        TypeError: not a module.
        ValueError: a module that cannot be made whole on this process: compiled, split by FSDP1, DeepSpeed ZeRO-3 or
            tensor parallelism, or with parameters that have no values. The message names the part and the remedy.
    """
    check_module(module, role)
    if isinstance(module, nn.parallel.DistributedDataParallel | nn.DataParallel) or _is(module, "DeepSpeedEngine"):
        module = module.module
    for name, part in module.named_modules():
        reason = _unusable_module(part)
        if reason:
            raise ValueError(f"{role}.{name} {reason}" if name else f"{role} {reason}")
    shards = is_sharded(module)
    for name, parameter in module.named_parameters():
        reason = _unusable_parameter(parameter, shards)
        if reason:
            raise ValueError(f"{role}.{name} {reason}")
    return module


def _unusable_module(module: nn.Module) -> str | None:
    if hasattr(module, "_orig_mod"):
        return "is compiled by torch.compile: pass the plain module (its ._orig_mod) instead."
    if getattr(module, "_compiled_call_impl", None) is not None:
        return "is compiled in place by .compile(): measure a copy that is not compiled."
    if _is(module, "FullyShardedDataParallel"):
        return "is sharded by FSDP1, which cannot be gathered for a block: use FSDP2 (fsdp_version 2) or DDP."
    return None


def _unusable_parameter(parameter: nn.Parameter, shards: bool) -> str | None:
    if hasattr(parameter, "ds_id") or hasattr(parameter, "ds_status"):
        return "is a partition of DeepSpeed ZeRO-3: use ZeRO-2, FSDP2 or DDP, which can be made whole on each process."
    if parameter.is_meta:
        return "is on the meta device and has no values: load the weights, without offloading (device_map), first."
    if parameter.shape == (0,):
        return "is empty, as partitioned parameters are: use FSDP2 or DDP, or gather it before."
    if _is_distributed(parameter) and not (shards and _data_parallel(parameter)):
        return (
            "is split by tensor parallelism, whose forward pass takes all its processes at once: load the model "
            "without tp_plan, and use FSDP2 or DDP."
        )
    return None


def _is(module: nn.Module, name: str) -> bool:
    """Whether the module is of a class of that name, told without importing its library."""
    return any(base.__name__ == name for base in type(module).__mro__)


def _is_distributed(parameter: Tensor | None) -> bool:
    return hasattr(parameter, "full_tensor") and hasattr(parameter, "placements")


def _data_parallel(parameter: Any) -> bool:
    """Whether a DTensor is split once at most, along the last dimension of its mesh, as FSDP2 with replicas does it."""
    *others, last = parameter.placements
    return all(place.is_replicate() for place in others) and (last.is_shard() or not others)


def _shards(module: nn.Module) -> list[Any]:
    """The modules that FSDP2's ``fully_shard`` was applied to, outer ones first."""
    kind = getattr(sys.modules.get("torch.distributed.fsdp"), "FSDPModule", None)
    return [] if kind is None else [part for part in module.modules() if isinstance(part, kind)]


def is_sharded(module: Any) -> bool:
    """Whether FSDP2 splits the module now; false inside :func:`whole`."""
    return isinstance(module, nn.Module) and bool(_shards(module))


def standing_in(parameter: Any) -> Any:
    """The full parameter that stands in for a sharded one inside :func:`whole`; any other as it is."""
    return _FULL.get(id(parameter), parameter)


@contextmanager
def whole(model: Any, role: str = "student", *, as_trained: bool = False) -> Iterator[Any]:
    """Run a block with the plain module, whose parameters are full and whose forward pass needs no other process.

    Of a model under FSDP2 all parameters are gathered at the start: one exchange of all weights, after which each
    process holds a full copy of them in addition to its shards until the block ends (4 bytes a parameter in float32,
    without gradients or optimizer state). All processes must enter; inside, each may call the model as often as it
    likes. Afterwards the shards, which were not touched, are in their places again. Any other module is only
    unwrapped.

    Args:
        model: a module, wrapped, sharded or plain; anything else (None, a function that gives logits) is yielded as is.
        role: its name in messages.
        as_trained: cast full parameters as FSDP2's mixed precision casts them in training's forward pass; else they
            have the precision that the shards are kept in.

    Yields:
        the plain module.

    Raises:
        ValueError: see :func:`unwrap`.

    Example:
        >>> with whole(nn.DataParallel(nn.Linear(2, 1))) as plain:
        ...     type(plain).__name__
        'Linear'
    """
    if not isinstance(model, nn.Module):
        yield model
        return
    module = unwrap(model, role)
    shards = _shards(module)
    if not shards:
        yield module
        return
    for shard in shards:
        shard.reshard()  # the root's parameters stay gathered between a forward and its backward pass
    dtypes: dict[int, torch.dtype | None] = {}
    for shard in shards if as_trained else []:
        dtypes |= {id(p): shard._get_fsdp_state()._mp_policy.param_dtype for p in shard.parameters()}
    split = [(m, name, p) for m in module.modules() for name, p in m._parameters.items() if _is_distributed(p)]
    held, full = _HELD.setdefault(module, {}), {}
    for _, _, parameter in split:
        if id(parameter) not in full:  # tied parameters stay tied
            full[id(parameter)] = _gathered(parameter, dtypes.get(id(parameter)), held)
    hooks = [
        (registered, dict(registered))
        for m in module.modules()
        for registered in (m._forward_pre_hooks, m._forward_hooks)
        if any(map(_of_fsdp, registered.values()))
    ]
    methods = [(m, k, v) for m in shards for k, v in vars(m).items() if isinstance(v, MethodType) and _of_fsdp(v)]
    classes = [(shard, type(shard)) for shard in shards]
    try:
        _FULL.update(full)
        for owner, name, parameter in split:
            owner._parameters[name] = full[id(parameter)]
        for registered, before in hooks:
            for key in [key for key, hook in before.items() if _of_fsdp(hook)]:
                del registered[key]
        for owner, name, _ in methods:
            del owner.__dict__[name]
        for shard, kind in classes:
            shard.__class__ = kind.__bases__[1]  # fully_shard derives the class from FSDPModule and the module's own
        yield module
    finally:
        for shard, kind in classes:
            shard.__class__ = kind
        for owner, name, method in methods:
            owner.__dict__[name] = method
        for registered, before in hooks:
            kept = {k: hook for k, hook in before.items() if k in registered or _of_fsdp(hook)} | registered
            registered.clear()
            registered.update(kept)
        for owner, name, parameter in split:
            owner._parameters[name] = parameter
        for key, parameter in full.items():
            _FULL.pop(key, None)
            parameter.data = parameter.data.new_empty(0)


def given_whole(*roles: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function so that the arguments of these names, models, are made :func:`whole` while it runs."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        places = list(signature(function).parameters)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            given = dict(zip(places, args, strict=False)) | kwargs
            with ExitStack() as stack:
                models = {role: stack.enter_context(whole(given.get(role), role)) for role in roles if role in given}
                rest = [models.get(name, value) for name, value in zip(places, args, strict=False)]
                return function(*rest, *args[len(rest) :], **(kwargs | {k: models[k] for k in models if k in kwargs}))  # type: ignore[arg-type]

        return call

    return decorate


def _gathered(parameter: Any, dtype: torch.dtype | None, held: dict[Any, nn.Parameter]) -> nn.Parameter:
    """The full values of a DTensor, on the device of its mesh (shards may be kept on the CPU)."""
    with torch.no_grad():
        value = parameter.detach().to(parameter.device_mesh.device_type).full_tensor()
        value = value if dtype is None else value.to(dtype)
    full = held.setdefault((id(parameter), value.dtype), nn.Parameter(value, requires_grad=False))
    full.data = value
    full.requires_grad_(parameter.requires_grad)
    return full


def _of_fsdp(function: Callable[..., Any]) -> bool:
    """Whether FSDP2 made a hook or method; ``functools.wraps`` gives some of them the names of what they wrap."""
    function = getattr(function, "func", function)
    where = getattr(getattr(function, "__func__", function), "__globals__", {})
    return str(where.get("__name__", "")).startswith("torch.distributed.fsdp")

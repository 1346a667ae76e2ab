"""One forward pass of a language model over rollouts; encoder-decoder and causal models differ here only."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kvar.returns.precision import at_least_float32
from kvar.rollouts.policy import Policy
from kvar.rollouts.types import Rollouts

__all__ = [
    "chosen_log_probs",
    "forward_inputs",
    "is_encoder_decoder",
    "takes",
    "token_logits",
    "unrestricted_logits",
    "unwrapped",
]


def is_encoder_decoder(model: nn.Module) -> bool:
    """Whether ``model`` reads the prompt with an encoder (its config says so)."""
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


def token_logits(model: nn.Module, rollouts: Rollouts) -> Tensor:
    """Logits that scored each response token, from one forward pass, with gradient.

    Works alike for encoder-decoder models (prompt to the encoder, shifted response to the decoder) and causal ones
    (prompt and response packed without gaps, right-padded, so that no position is shifted by padding).

    Args:
        model: a transformers model, or any module with its ``config.is_encoder_decoder`` and call signature.
        rollouts: N prompts and responses of T tokens at most.

    Returns:
        (N, T, V) logits over the rollouts' action set (:class:`Policy`: cut to its size, minus infinity at forbidden
        tokens); ``[:, t]`` scored ``rollouts.tokens[:, t]``. Rows past a response's end are meaningless.

    Raises:
        ValueError: an empty prompt given to a causal model, or an encoder-decoder model without a decoder start token.
    """
    logits = unrestricted_logits(model, rollouts)
    return logits if rollouts.policy is None else rollouts.policy.restricted(logits)


def unrestricted_logits(model: nn.Module, rollouts: Rollouts) -> Tensor:
    """As :func:`token_logits`, with the logits of all V tokens that the model gives, actions or not."""
    inputs, align = forward_inputs(model, rollouts)
    logits: Tensor = model(**inputs).logits
    return align(logits)


def chosen_log_probs(logits: Tensor, rollouts: Rollouts) -> Tensor:
    """Log pi(y_t | s_t) from logits, with gradient.

    Args:
        logits: (N, T, V) over the rollouts' action set, as :func:`token_logits` gives them.
        rollouts: N responses of T tokens at most.

    Returns:
        (N, T) in float32 at least, zero where masked; a padding token need not be an action.
    """
    logits = at_least_float32(logits)
    tokens = rollouts.tokens.masked_fill(~rollouts.mask, 0)[..., None]
    picked = logits.gather(-1, tokens)[..., 0] - logits.logsumexp(dim=-1)
    return picked.masked_fill(~rollouts.mask, 0.0)


def forward_inputs(model: nn.Module, rollouts: Rollouts) -> tuple[dict[str, Any], Callable[[Tensor], Tensor]]:
    """Arguments of the model's forward pass over rollouts, and where the response's positions lie in its output.

    Returns:
        keyword arguments, and a function from (N, L, ...) model outputs, one for each position that the head sees, to
        the (N, T, ...) of them that scored the response tokens.

    Raises:
        ValueError: as :func:`token_logits`.
    """
    return _seq2seq_inputs(model, rollouts) if is_encoder_decoder(model) else _causal_inputs(model, rollouts)


def unwrapped(model: Any) -> Any:
    """The transformers model inside a peft wrapper, with its adapters, which are layers of it. Any other model as is.

    The wrapper's signature names neither ``position_ids`` nor ``logits_to_keep``, and its ``generate`` changes the
    generation config of the inner model.
    """
    if not (hasattr(model, "peft_config") and hasattr(model, "get_base_model")):
        return model
    learned = any(config.is_prompt_learning for config in model.peft_config.values())
    return model if learned else model.get_base_model()  # the wrapper prepends a learned prompt


def takes(model: Any, argument: str) -> bool:
    """Whether the forward pass names ``argument``."""
    return argument in inspect.signature(unwrapped(model).forward).parameters


def check_no_empty_prompt(prompt_mask: Tensor, name: str = "prompts") -> None:
    """Refuse an empty prompt, which a causal model cannot continue; ``prompt_mask`` is (M, S)."""
    empty = ~prompt_mask.any(dim=1)
    if bool(empty.any()):
        row = int(empty.nonzero()[0])
        raise ValueError(f"{name} row {row} is empty: a causal model needs one prompt token (for example BOS).")


def pack_left(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Move each row's true entries to the front, in order; the rest of the row is its padding, masked false."""
    order = torch.argsort(~mask, dim=1, stable=True)
    packed_mask = mask.gather(1, order)
    width = max(int(packed_mask.sum(dim=1).max()), 1) if len(mask) else mask.shape[1]
    return ids.gather(1, order)[:, :width], packed_mask[:, :width]


def decoder_start(model: Any) -> int:
    """The token id that starts the decoder of an encoder-decoder model."""
    for holder in (getattr(model, "generation_config", None), model.config):
        value = getattr(holder, "decoder_start_token_id", None)
        if isinstance(value, list | tuple):
            if len(set(value)) != 1:
                raise ValueError(
                    f"decoder_start_token_id is {list(value)}, one token for each row of a batch: set it to the one "
                    "token that starts every response."
                )
            value = value[0]
        if value is not None:
            return int(value)
    raise ValueError(
        "config.decoder_start_token_id is None: set it (T5 uses pad_token_id) before this encoder-decoder is used."
    )


def decoder_prefix(model: Any, policy: Policy | None, rows: Tensor) -> Tensor:
    """(N, P) tokens that the decoder reads before a response: its start token, and those the policy forces.

    Args:
        model: encoder-decoder.
        policy: of the responses; None forces nothing.
        rows: (N, ...) int64: the number of rows, their device.
    """
    prefix = (decoder_start(model), *(policy.forced if policy is not None else ()))
    return torch.tensor(prefix, dtype=torch.long, device=rows.device).expand(len(rows), -1)


def _seq2seq_inputs(model: nn.Module, rollouts: Rollouts) -> tuple[dict[str, Any], Callable[[Tensor], Tensor]]:
    prompt_ids, prompt_mask = pack_left(rollouts.prompt_ids, rollouts.prompt_mask)
    prefix = decoder_prefix(model, rollouts.policy, rollouts.tokens)
    inputs = {
        "input_ids": prompt_ids,
        "attention_mask": prompt_mask.long(),
        "decoder_input_ids": torch.cat([prefix, rollouts.tokens[:, :-1]], dim=1),
        "use_cache": False,
    }
    read = rollouts.tokens.shape[1]  # the last positions: a learned prompt and forced tokens come before them
    return inputs, lambda output: output[:, output.shape[1] - read :] if output.shape[1] != read else output


def _causal_inputs(model: nn.Module, rollouts: Rollouts) -> tuple[dict[str, Any], Callable[[Tensor], Tensor]]:
    check_no_empty_prompt(rollouts.prompt_mask, "Rollouts.prompt_ids")
    lengths = rollouts.prompt_mask.sum(dim=1)
    ids = torch.cat([rollouts.prompt_ids, rollouts.tokens], dim=1)
    mask = torch.cat([rollouts.prompt_mask, torch.ones_like(rollouts.mask)], dim=1)  # padding tokens trail anyway
    ids = pack_left(ids, mask)[0]
    ids = ids[:, : max(ids.shape[1] - 1, 1)]  # the last response token predicts nothing that is used
    seen = torch.cat([rollouts.prompt_mask, rollouts.mask], dim=1)
    positions = torch.arange(ids.shape[1], device=ids.device)
    attention = positions < seen.sum(dim=1, keepdim=True)
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": attention.long(), "use_cache": False}
    n, t = rollouts.tokens.shape
    first = int(lengths.min()) - 1 if n else 0  # logits before this position are never needed
    keeps = takes(model, "logits_to_keep")
    if keeps:
        inputs["logits_to_keep"] = ids.shape[1] - first
    where = (lengths - 1)[:, None] + torch.arange(t, device=ids.device)

    def align(output: Tensor) -> Tensor:
        begin = first if keeps else 0
        output = output[:, max(output.shape[1] - (ids.shape[1] - begin), 0) :]  # behind the tokens of a learned prompt
        if n and int(lengths.max()) == first + 1:
            return output[:, first - begin : first - begin + t]
        rows = torch.arange(n, device=output.device)[:, None] * output.shape[1]
        return output.flatten(0, 1).index_select(0, (rows + where - begin).flatten()).view(n, t, *output.shape[2:])

    return inputs, align

"""LoRA students by peft (Hu et al. 2022, arXiv 2106.09685), saved as plain models."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

from kvar.distill.models.bars import without_bars
from kvar.rollouts.forward import unwrapped

__all__ = ["ADAPTER", "add_lora", "save_model"]

ADAPTER = "adapter"


def add_lora(
    student: Any,
    rank: int,
    alpha: int | None = None,
    targets: list[str] | tuple[str, ...] | str | None = None,
    *,
    seed: int = 0,
) -> Any:
    """The student with low-rank adapters, W + alpha / rank * B A, on its linear layers; only they are trainable.

    Args:
        student: seq2seq or causal transformers model; its weights are frozen in place.
        rank: columns of A's transpose and of B.
        alpha: scale; default twice the rank.
        targets: names of the layers adapted (``["q", "v"]``, ``"q_proj,v_proj"``), or ``"all-linear"`` for every
            linear layer but the output head; default peft's choice for the family, else all-linear.
        seed: seed of A's first values (B starts at 0); the global random state is left as it was.

    Returns:
        peft's wrapper of the student; ``sample``, ``score``, ``gradient_moments`` and the trainer take it as it is.

    Raises:
        ValueError: peft missing, a rank or alpha that is not positive, or targets that name no layer.
    """
    import torch

    try:
        from peft import LoraConfig, TaskType, get_peft_model
        from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN
    except ImportError as error:
        raise ValueError("lora_rank needs the package peft: pip install 'kvar[lora]'.") from error
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ValueError(f"lora_rank must be an integer of at least 1; got {rank!r}.")
    if alpha is not None and not alpha > 0:
        raise ValueError(f"lora_alpha must be positive; got {alpha!r}. Leave it out for twice the rank.")
    if isinstance(targets, str) and targets != "all-linear":
        targets = [name.strip() for name in targets.split(",") if name.strip()]
    if targets is None:
        targets = None if student.config.model_type in KNOWN else "all-linear"
    if isinstance(targets, list | tuple):
        names = [name for name, _ in student.named_modules()]
        for target in targets:  # peft only checks that one matches
            if not any(name == target or name.endswith(f".{target}") for name in names):
                raise ValueError(_no_layer(target, student))
    config = LoraConfig(
        task_type=TaskType.SEQ_2_SEQ_LM if student.config.is_encoder_decoder else TaskType.CAUSAL_LM,
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        target_modules=list(targets) if isinstance(targets, list | tuple) else targets,
        fan_in_fan_out=student.config.model_type == "gpt2",  # its layers hold the transpose; peft would warn
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return get_peft_model(student, config)
        except ValueError as error:
            raise ValueError(f"{_no_layer(targets, student)} (peft says: {error})") from error


def save_model(model: Any, folder: Path | str) -> None:
    """Save a student for ``from_pretrained(folder)``; the model given is not changed.

    A LoRA student is saved merged, in the plain format of its family, and its adapters in the subfolder ``adapter``.
    """
    inner = unwrapped(model)
    with without_bars():
        if inner is model:
            model.save_pretrained(folder)
            return
        merged = deepcopy(model).merge_and_unload()
        merged.save_pretrained(folder)
        model.save_pretrained(Path(folder) / ADAPTER)


def _no_layer(target: Any, model: Any) -> str:
    kinds = ("Linear", "Conv1D")  # the second is GPT-2's
    names = {name.rsplit(".", 1)[-1] for name, part in model.named_modules() if type(part).__name__ in kinds}
    return (
        f"lora_targets {target!r} fits no layer of this {model.config.model_type}; its linear layers are called: "
        f"{', '.join(sorted(names))}."
    )

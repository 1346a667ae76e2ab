"""TRL trainers of tiny random students, one builder a trainer, with the gradient that each takes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from kvar.tasks.tokenizers import word_tokenizer
from tests.cases import tiny_llama

WORDS = ["a", "b", "c", "d", "e", "f", "g", "h"]
PROMPTS = [
    "a b",
    "c",
    "d e f",
    "b b g",
    "h a",
    "f",
    "g h",
    "e",
    "c a d",
    "b",
    "h h f",
    "d c",
    "a",
    "g g",
    "e b c",
    "f a",
]


def tokenizer() -> Any:
    """A word-level tokenizer with a chat template."""
    made = word_tokenizer([" ".join(WORDS)])
    made.padding_side = "left"
    made.chat_template = "{% for m in messages %}{{ m['content'] }}{% if not loop.last %} {% endif %}{% endfor %}"
    return made


def model(seed: int, **changes: Any) -> Any:
    """A Llama whose answers are not uniform."""
    made = tiny_llama(len(tokenizer()), seed, **changes)
    generator = torch.Generator().manual_seed(seed)
    for parameter in made.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return made


def saved(module: Any, folder: Path) -> Any:
    """The module, written with its tokenizer where its config then says that it is."""
    module.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    module.config._name_or_path = str(folder)
    return module


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    """Arguments that every trainer's config takes."""
    return {
        "output_dir": str(folder), "max_steps": 2, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2,
        "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "use_cpu": True, "bf16": False,
        "learning_rate": 5e-3, "max_grad_norm": 0.0, "seed": 3, "gradient_checkpointing": False, **changes,
    }  # fmt: skip


def rewards(completions: list[str], **_: Any) -> list[float]:
    """How many words of a response are early in the alphabet."""
    return [sum(word in "abc" for word in text.split()) - 0.1 * len(text.split()) for text in completions]


def prompts() -> Any:
    """A data set of prompts."""
    from datasets import Dataset

    return Dataset.from_list([{"prompt": prompt} for prompt in PROMPTS])


def grpo(folder: Path, student: Any, reward: Callable[..., Any] = rewards, **changes: Any) -> Any:
    """TRL's GRPOTrainer."""
    from trl import GRPOConfig, GRPOTrainer

    options = {"num_generations": 4, "max_completion_length": 6, "beta": 0.0, **changes}
    if options["beta"]:
        saved(student, folder / "reference")  # the reference model is read from where the student's config says
    args = GRPOConfig(**settings(folder, **options))
    return GRPOTrainer(
        model=student, reward_funcs=reward, args=args, train_dataset=prompts(), processing_class=tokenizer()
    )


def distillation(folder: Path, student: Any, teacher: Any = None, **changes: Any) -> Any:
    """TRL's DistillationTrainer."""
    from trl import DistillationConfig, DistillationTrainer

    args = DistillationConfig(**settings(folder, **{"max_completion_length": 6, **changes}))
    return DistillationTrainer(
        model=student,
        teacher_model=teacher or model(9),
        args=args,
        train_dataset=prompts(),
        processing_class=tokenizer(),
    )


def messages() -> Any:
    """A data set of conversations."""
    from datasets import Dataset

    rows = [
        [{"role": "user", "content": prompt}, {"role": "assistant", "content": f"{prompt[::-1]} c e"}]
        for prompt in PROMPTS
    ]
    return Dataset.from_list([{"messages": row} for row in rows])


def contexts() -> Any:
    """A data set of prompts with what only the teacher is told."""
    from datasets import Dataset

    return Dataset.from_list(
        [{"prompt": p, "privileged_context": "g h"[: 1 + 2 * (i % 2)]} for i, p in enumerate(PROMPTS)]
    )


def rloo(folder: Path, student: Any, **changes: Any) -> Any:
    """TRL's RLOOTrainer."""
    from trl import RLOOConfig, RLOOTrainer

    options = {"num_generations": 4, "max_completion_length": 6, "beta": 0.0, **changes}
    args = RLOOConfig(**settings(folder, **options))
    return RLOOTrainer(
        model=student, reward_funcs=rewards, args=args, train_dataset=prompts(), processing_class=tokenizer()
    )


def gkd(folder: Path, student: Any, teacher: Any = None, **changes: Any) -> Any:
    """TRL's GKDTrainer."""
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    args = GKDConfig(**settings(folder, **{"max_new_tokens": 6, "max_length": 24, "lmbda": 1.0, **changes}))
    return GKDTrainer(
        model=student,
        teacher_model=teacher or model(9),
        args=args,
        train_dataset=messages(),
        processing_class=tokenizer(),
    )


def iw_opd(folder: Path, student: Any, teacher: Any = None, **changes: Any) -> Any:
    """TRL's IWOPDTrainer."""
    from trl.experimental.iw_opd import IWOPDConfig, IWOPDTrainer

    args = IWOPDConfig(**settings(folder, **{"max_completion_length": 6, "max_length": 24, **changes}))
    return IWOPDTrainer(
        model=student,
        teacher_model=saved(teacher or model(9), folder / "teacher"),  # its tokenizer is read from there
        args=args,
        train_dataset=messages(),
        processing_class=tokenizer(),
    )


def sdft(folder: Path, student: Any, **changes: Any) -> Any:
    """TRL's SDFTTrainer; its teacher is the student with more context."""
    from trl.experimental.sdft import SDFTConfig, SDFTTrainer

    options = {
        "num_generations": 1, "max_completion_length": 6, "teacher_model_kind": "live", "distillation_topk": 5,
        "teacher_prompt_template": "{privileged_context} {prompt}", **changes,
    }  # fmt: skip
    args = SDFTConfig(**settings(folder, **options))
    return SDFTTrainer(model=student, args=args, train_dataset=contexts(), processing_class=tokenizer())


def sdpo(folder: Path, student: Any, **changes: Any) -> Any:
    """TRL's SDPOTrainer; a response that scores at least 1 shows its teacher the way."""
    from trl.experimental.sdpo import SDPOConfig, SDPOTrainer

    options = {
        "num_generations": 4, "max_completion_length": 6, "teacher_model_kind": "live", "distillation_weight": 0.5,
        "reprompt_template": "{solution} {prompt} {feedback}", "solution_template": "{successful_previous_attempt}",
        **changes,
    }  # fmt: skip
    args = SDPOConfig(**settings(folder, **options))
    return SDPOTrainer(
        model=student, reward_funcs=rewards, args=args, train_dataset=contexts(), processing_class=tokenizer()
    )


def quiet_train(trainer: Any) -> None:
    """Train without the warnings of other libraries."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        trainer.train()

"""On-policy training against TRL's trainers and against the shape of the released recipe, side by side."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks import training_setup as setup

Steps = tuple[list[tuple[float, float]], float]
STEPS = 3
BETA = 0.5


def causal(rounds: int) -> dict[str, Any]:
    """One GPT-2 pair, kvar and TRL: batch, lengths, optimiser, divergence alike; everything on-policy."""
    teacher = setup.gpt2("3 M", 1)
    divergence = {"objective": "gkd", "gkd_beta": BETA, "gkd_lambda": 1.0}
    contestants: dict[str, Callable[[], Steps]] = {
        "kvar gkd": lambda: setup.kvar_steps(setup.gpt2("0.9 M"), teacher, STEPS, **divergence),
        "kvar ketchup": lambda: setup.kvar_steps(setup.gpt2("0.9 M"), teacher, STEPS, objective="ketchup"),
        "TRL GKDTrainer": lambda: _trl_gkd(setup.gpt2("0.9 M"), teacher),
        "TRL DistillationTrainer": lambda: trl_distillation(setup.gpt2("0.9 M"), teacher),
    }
    return _rounds("GPT-2 0.9 M, teacher 3 M", contestants, rounds)


def seq2seq(rounds: int) -> dict[str, Any]:
    """One T5 pair, kvar's step against a loop of batch 1 with 8 accumulated steps."""
    teacher = setup.t5("3 M", 1)
    contestants: dict[str, Callable[[], Steps]] = {
        "kvar ketchup, batch 32": lambda: setup.kvar_steps(setup.t5("0.9 M"), teacher, STEPS, objective="ketchup"),
        "kvar ketchup, batch 8": lambda: setup.kvar_steps(setup.t5("0.9 M"), teacher, STEPS, 8, objective="ketchup"),
        "loop, 8 times batch 1": lambda: _accumulating_loop(setup.t5("0.9 M"), teacher),
    }
    return _rounds("T5 0.9 M, teacher 3 M", contestants, rounds)


def _rounds(pair: str, contestants: dict[str, Callable[[], Steps]], rounds: int) -> dict[str, Any]:
    out: dict[str, Any] = {name: {"seconds": [], "tokens": []} for name in contestants}
    for i in range(rounds):
        print(f"{pair}: round {i + 1} of {rounds}", file=sys.stderr, flush=True)
        for name, train in contestants.items():
            seconds, tokens = train()
            out[name]["seconds"].append(seconds)
            out[name]["tokens"].append(tokens)
    return {"pair": pair, "contestants": out}


def _trl_gkd(student: Any, teacher: Any) -> Steps:
    from datasets import Dataset
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    class Counting(GKDTrainer):  # type: ignore[misc]
        tokens = 0

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            self.tokens += int((inputs["labels"] != -100).sum())
            return super().compute_loss(model, inputs, *args, **kwargs)

    def collate(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        ids = torch.tensor([row["input_ids"] for row in rows])
        mask = torch.ones_like(ids)
        names = {"prompts": ids, "prompt_attention_mask": mask, "input_ids": ids, "attention_mask": mask}
        return {**names, "labels": ids.clone()}

    clock = setup.StepClock()
    arguments = GKDConfig(
        **setup.common_arguments(STEPS + 1, setup.BATCH), lmbda=1.0, beta=BETA, temperature=1.0,
        max_new_tokens=setup.TOKENS, max_length=setup.PROMPT + setup.TOKENS,
    )  # fmt: skip
    trainer = Counting(
        model=student, teacher_model=teacher, args=arguments, data_collator=collate,
        train_dataset=Dataset.from_dict({"input_ids": setup.prompts()}), processing_class=setup.tokenizer(),
        callbacks=[clock],
    )  # fmt: skip
    trainer.train()
    return clock.seconds(), trainer.tokens / (STEPS + 1)


def trl_distillation(
    student: Any, teacher: Any, steps: int = STEPS, prepare: Callable[[Any], None] | None = None
) -> Steps:
    """TRL's DistillationTrainer, as :func:`benchmarks.training_setup.kvar_steps` trains kvar's."""
    from datasets import Dataset
    from trl import DistillationConfig, DistillationTrainer

    class Counting(DistillationTrainer):  # type: ignore[misc]
        tokens = 0

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            self.tokens += int(inputs["completion_mask"].sum())
            return super().compute_loss(model, inputs, *args, **kwargs)

    clock = setup.StepClock()
    arguments = DistillationConfig(
        **setup.common_arguments(steps + 1, setup.BATCH), beta=BETA, temperature=1.0, top_k=0, top_p=1.0,
        max_completion_length=setup.TOKENS,
    )  # fmt: skip
    texts = [" ".join(f"w{i}" for i in ids) for ids in setup.prompts()]
    trainer = Counting(
        model=student, teacher_model=teacher, args=arguments, train_dataset=Dataset.from_dict({"prompt": texts}),
        processing_class=setup.tokenizer(), callbacks=[clock],
    )  # fmt: skip
    if prepare is not None:
        prepare(trainer)
    trainer.train()
    return clock.seconds(), trainer.tokens / (steps + 1)


def _accumulating_loop(student: Any, teacher: Any, updates: int = 2, accumulate: int = 8) -> Steps:
    """REINFORCE with K = 4 returns, a prompt at a time: generate, teacher, student, backward; a step every 8.

    The shape of the released recipe, written from its formula: q is the logit less its mean, V the largest q, the
    return of t is q_t less every 4th later gap and the last one; the loss is minus the token mean of return times
    log pi.
    """
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-6)
    student.train()
    teacher.eval()
    seconds, tokens = [], 0

    def update(first: int) -> None:
        nonlocal tokens
        for i in range(first, first + accumulate):
            ids = torch.tensor([setup.prompts()[i]])
            response = student.generate(ids, do_sample=True, top_k=0, max_new_tokens=setup.TOKENS)
            given, drawn = response[:, :-1], response[:, 1:]
            with torch.no_grad():
                q = teacher(input_ids=ids, decoder_input_ids=given).logits[0]
                q = q - q.mean(dim=-1, keepdim=True)
                picked = q.gather(1, drawn[0][:, None])[:, 0]
                gap = (q.max(dim=-1).values - picked).tolist()
                last = len(gap) - 1
                sums = [sum(gap[j] for j in {*range(t + 4, last, 4), last} if j > t) for t in range(last + 1)]
                value = picked - torch.tensor(sums)
            log_pi = student(input_ids=ids, decoder_input_ids=given).logits[0].log_softmax(dim=-1)
            loss = -(value * log_pi.gather(1, drawn[0][:, None])[:, 0]).mean()
            (loss / accumulate).backward()
            tokens += drawn.shape[1]
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    update(0)
    tokens = 0
    for i in range(updates):
        seconds.append(setup.timed(lambda i=i: update(accumulate * (i + 1))))
    return seconds, tokens / updates

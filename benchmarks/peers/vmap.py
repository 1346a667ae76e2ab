"""torch.func: vmap of grad over trajectories, once per estimator; the attention mask left out, which vmap needs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.cases import Case


def norms(case: Case) -> Callable[[], Tensor]:
    """(E, N) squared norms."""
    student, data = case.student, case.rollouts
    parameters = {name: p.detach() for name, p in student.named_parameters()}
    s = data.prompt_ids.shape[1]

    def scalar(parameters: dict[str, Tensor], prompt: Tensor, tokens: Tensor, weights: Tensor) -> Tensor:
        if case.kind == "t5":
            inputs = {"input_ids": prompt[None], "decoder_input_ids": torch.cat([tokens[:1] * 0, tokens[:-1]])[None]}
            logits = functional_call(student, parameters, (), {**inputs, "use_cache": False}).logits[0]
        else:
            inputs = {"input_ids": torch.cat([prompt, tokens])[None]}
            logits = functional_call(student, parameters, (), {**inputs, "use_cache": False}).logits[0, s - 1 : -1]
        return (weights * logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]).sum()

    each = vmap(grad(scalar), in_dims=(None, 0, 0, 0))

    def run() -> Tensor:
        out = []
        with sdpa_kernel(SDPBackend.MATH):
            for weights in case.weights:
                grads = each(parameters, data.prompt_ids, data.tokens, weights)
                out.append(sum(g.flatten(1).square().sum(dim=1) for g in grads.values()))
        return torch.stack(out)

    return run

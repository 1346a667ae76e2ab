"""``kvar.measure``: how noisy, how biased and how well directed a policy gradient is, in one call."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import nn

from kvar.front.models import resolve_models
from kvar.front.prompts import prompt_ids
from kvar.gradients.measure import ENGINES
from kvar.hooks import Estimator, Measurement, parse_estimators
from kvar.hooks.estimators import check_plain
from kvar.hooks.measure import measure_gradients, teacher_values
from kvar.returns import BASELINES, Kernel
from kvar.returns.values import CENTRES, VALUES
from kvar.rollouts import policy_of

__all__ = ["measure"]


def measure(
    student: nn.Module | str | Path,
    teacher: nn.Module | str | Path,
    prompts: Any,
    tokenizer: Any = None,
    kernels: str | Kernel | Estimator | Sequence[str | int | Kernel | Estimator] = "1, 2, 4, 8, immediate",
    *,
    rollouts_per_prompt: int = 4,
    max_new_tokens: int = 64,
    seed: int = 0,
    micro_batch: int | None = None,
    baseline: str | None = None,
    groups: Mapping[str, Any] | Literal["layers"] | None = None,
    engine: str = "auto",
    fields: Literal["all", "norms"] = "all",
    centre: Literal["mean", "logsumexp", "none"] = "mean",
    value: Literal["max", "soft"] = "max",
    vocabulary: int | None = None,
    device: Any = None,
    teacher_dtype: str = "float32",
    name: str | None = None,
) -> Measurement:
    """Sample from a student, let the teacher value the samples, and measure the policy gradient of every kernel.

    Responses are drawn at temperature 1, one set for all kernels. Models given as modules stay as they are: parameters,
    ``.grad``, buffers, modes, device and torch's random state. It is what ``kvar.hooks.GradientProbe`` measures along a
    training.

    Args:
        student: a transformers model, encoder-decoder or causal; or the name of one: ``"arithmetic"``, which ships with
            kvar, a folder, or a hub name.
        teacher: likewise, with the student's tokenizer.
        prompts: M texts; or lists of token ids; or whatever else ``kvar.rollouts.encode_prompts`` takes.
        tokenizer: of both models, or its name; default the one that lies beside the student, else beside the teacher.
        kernels: return kernels, such as "K=4", "geometric(0.9)" or "K=1 - leave-one-out", comma-separated or a list; or
            ``Kernel`` and ``kvar.hooks.Estimator`` objects.
        rollouts_per_prompt: R responses to every prompt; 2 or more tell the variance within prompts from that between.
        max_new_tokens: length limit of responses.
        seed: of the sampling.
        micro_batch: trajectories that the teacher and the gradient take at a time; None for all.
        baseline: subtracted from the returns of every kernel that names none of its own.
        groups: parameter groups that are measured as well, "layers" for one a layer; see
            ``kvar.gradients.gradient_moments``.
        engine: see there.
        fields: "norms" for variance alone, at less cost.
        centre: of the teacher's logits, see ``kvar.returns.token_values``.
        value: hard or soft V, see there.
        vocabulary: draw and normalise over the first this many tokens only; default the tokenizer's.
        device: where models given by name go; default that of the module given, else the accelerator, else the CPU.
        teacher_dtype: "bfloat16" halves the memory of a teacher given by name.
        name: what tables call the student.

    Returns:
        The measurement: print it, or see its ``table``, ``best_k``, ``plot`` and ``save``.

    Raises:
        TypeError: a student or teacher that is neither module nor name.
        ValueError: before anything is sampled: different tokenizers or devices, a model that cannot be loaded, no
            prompts, one text for prompts, a prompt longer than a model takes, a kernel that does not parse, a number
            out of range.

    Example:
        >>> import kvar
        >>> from kvar.tasks import ArithmeticTask
        >>> prompts = [example.prompt for example in ArithmeticTask().examples("validation", 4)]
        >>> m = kvar.measure("arithmetic", "arithmetic", prompts, kernels="1, 4", max_new_tokens=4)
        >>> m.rollouts.tokens.shape, m.names
        (torch.Size([16, 4]), ('K=1', 'K=4'))
    """
    estimators = _estimators(kernels, baseline)
    rollouts_per_prompt = _whole("rollouts_per_prompt", rollouts_per_prompt, 1)
    max_new_tokens = _whole("max_new_tokens", max_new_tokens, 1)
    seed = _whole("seed", seed, None)
    if rollouts_per_prompt == 1 and any(e.baseline == "leave-one-out" for e in estimators):
        raise ValueError("baseline leave-one-out needs rollouts_per_prompt of at least 2; got 1.")
    micro_batch = None if micro_batch is None else _whole("micro_batch", micro_batch, 1)
    vocabulary = None if vocabulary is None else _whole("vocabulary", vocabulary, 1)
    choices = {"engine": (engine, ENGINES), "fields": (fields, ("all", "norms"))}
    choices |= {"centre": (centre, CENTRES), "value": (value, VALUES)}
    for field, (given, allowed) in choices.items():
        if given not in allowed:
            raise ValueError(f"{field} must be one of {', '.join(allowed)}; got {given!r}.")
    if isinstance(groups, str) and groups != "layers":
        raise ValueError(f"groups must be a mapping, 'layers' or None; got {groups!r}.")
    models = resolve_models(
        student, teacher, tokenizer, vocabulary=vocabulary, device=device, teacher_dtype=teacher_dtype, name=name
    )
    policy = policy_of(models.student, models.tokenizer, teacher=models.teacher, vocabulary=vocabulary)
    ids, mask = prompt_ids(prompts, models, max_new_tokens, policy)
    config = {
        **models.config,
        "kernels": [estimator.name for estimator in estimators],
        "prompts": len(ids),
        "rollouts_per_prompt": rollouts_per_prompt,
        "max_new_tokens": max_new_tokens,
        "seed": seed,
        "centre": centre,
        "value": value,
        "vocabulary": vocabulary,
        "engine": engine,
    }
    return measure_gradients(
        models.student,
        (ids, mask),
        estimators,
        teacher_values(models.teacher, centre=centre, value=value, micro_batch=micro_batch),
        policy=policy,
        tokenizer=models.tokenizer,
        rollouts_per_prompt=rollouts_per_prompt,
        max_new_tokens=max_new_tokens,
        seed=seed,
        groups=groups,
        engine=engine,
        fields=fields,
        micro_batch=micro_batch,
        config=config,
    )


def _estimators(kernels: Any, baseline: str | None) -> list[Estimator]:
    """Estimators from names, numbers, kernels and estimators in any mix."""
    given = [kernels] if isinstance(kernels, str | int | float | Kernel | Estimator) else list(kernels)
    found: list[Estimator] = []
    for one in given:
        if isinstance(one, Estimator):
            found.append(one)
        elif isinstance(one, Kernel):
            found.append(Estimator(one, baseline))
        else:
            found += parse_estimators(str(one), baseline)
    names = [e.name for e in found]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"kernels must be one or more, each once; got {', '.join(names) or 'none'}.")
    check_plain(found)
    for estimator in found:
        if estimator.baseline not in (None, *BASELINES):
            raise ValueError(
                f"baseline {estimator.baseline!r} of {estimator.name!r} is unknown; use one of {', '.join(BASELINES)}."
            )
    return found


def _whole(field: str, value: Any, least: int | None) -> int:
    """A whole number of at least ``least``."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or (least is not None and number < least):
        bound = "" if least is None else f" of at least {least}"
        raise ValueError(f"{field} must be a whole number{bound}; got {value!r}.")
    return number

"""``kvar.measure``: how noisy, how biased and how well directed a policy gradient is, in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from kvar.estimators import DATA, default_estimators
from kvar.front.given import given_teacher, rollouts_and_rest, settled_rollouts
from kvar.front.models import resolve_models
from kvar.front.prompts import prompt_ids
from kvar.front.two_draws import check_resolve, two_draws
from kvar.hooks import Estimator, Measurement
from kvar.hooks.estimators import estimators_of
from kvar.hooks.measure import measure_gradients
from kvar.hooks.measurement_settings import Groups, MeasurementSettings, ScoreFunction
from kvar.returns import Kernel
from kvar.rollouts import Rollouts, Sampler, policy_of
from kvar.rollouts import references as data_responses
from kvar.rollouts.samplers.drawn import sampler_of

__all__ = ["measure"]

DEFAULT = "1, 2, 4, 8, immediate"


def measure(
    student: nn.Module | str | Path,
    teacher: nn.Module | str | Path | None = None,
    prompts: Any = None,
    tokenizer: Any = None,
    kernels: str | Kernel | Estimator | Sequence[str | int | Kernel | Estimator] = DEFAULT,
    *,
    estimators: str | Kernel | Estimator | Sequence[str | int | Kernel | Estimator] | None = None,
    score: ScoreFunction | None = None,
    references: Sequence[Any] | None = None,
    rollouts: Rollouts | tuple[Rollouts, Mapping[str, Any]] | None = None,
    sampler: Sampler | str | None = None,
    stale: bool = False,
    resolve: str | None = None,
    pilot: int = 64,
    max_prompts: int | None = None,
    rollouts_per_prompt: int = 4,
    max_new_tokens: int = 64,
    seed: int = 0,
    micro_batch: int | None = None,
    baseline: str | None = None,
    groups: Groups = None,
    engine: str = "auto",
    fields: Literal["all", "norms"] = "all",
    centre: Literal["mean", "logsumexp", "none"] = "mean",
    value: Literal["max", "soft"] = "max",
    vocabulary: int | None = None,
    device: Any = None,
    teacher_dtype: str = "float32",
    name: str | None = None,
) -> Measurement:
    """Sample from a student, let the teacher value the samples, and measure every estimator of the policy gradient.

    Responses are drawn at temperature 1, one set for all estimators. Models given as modules are not changed:
    parameters, ``.grad``, buffers, modes and device stay, as does torch's random state.
    ``kvar.hooks.GradientProbe`` makes the same measurement during training.

    Args:
        student: a transformers model, encoder-decoder or causal; or the name of one: ``"arithmetic-90k"``, which ships
            with kvar, a folder, or a hub name.
        teacher: likewise, with the student's tokenizer. None where ``rollouts`` bring a teacher's values.
        prompts: M texts, lists of token ids, or another input of ``kvar.rollouts.encode_prompts``; None with
            ``rollouts``.
        tokenizer: of both models, or its name; default the one saved with the student, else with the teacher.
        kernels: estimators by name, comma-separated or a list, as :func:`kvar.estimators.parse_estimators` reads them:
            return kernels such as "K=4" or "geometric(0.9)", "K=1 - leave-one-out", "kl immediate exact"; or
            ``Kernel`` and ``kvar.estimators.Estimator`` objects.
        estimators: another name for ``kernels``.
        score: rollouts -> N scores of whole responses, for estimators of the reward ``score``.
        references: the data's response to each prompt, texts cut at ``max_new_tokens``: the gradient of their
            likelihood is measured as an estimator called ``data``, the target of ``table(target="data")`` and
            ``toward()``.
        rollouts: measured in place of samples: N responses that were drawn elsewhere, alone or with what else their
            batch held, as :func:`kvar.rollouts.from_batch` returns them. Without ``teacher`` the batch's
            ``teacher_q`` and ``teacher_v``, ``teacher_log_probs``, or ``teacher_top_log_probs`` and
            ``teacher_top_ids`` are used, for estimators that need no more.
        sampler: draws the responses in place of the student, see :data:`kvar.rollouts.Sampler`; or the address of an
            engine, for :class:`kvar.rollouts.OpenAISampler`. Its log-probabilities are kept, and compared with the
            student's.
        stale: ``rollouts`` or the sampler's responses are those of an earlier student, and their log-probabilities its
            own: estimators may correct for it, and the effective sample size is shown.
        resolve: a target, "data" or an objective such as "J" or "score": the first ``pilot`` prompts are measured to
            plan how many tell where each estimator leads, at 0.8 power (``Measurement.plan``), and as many of
            the other prompts are measured anew, which is what is returned. Prompts should be in random order.
        pilot: prompts of the pilot, with ``resolve``.
        max_prompts: most prompts after the pilot, with ``resolve``; default all others.
        rollouts_per_prompt: R responses to every prompt; 2 or more separate the variance within and between prompts.
        max_new_tokens: length limit of responses.
        seed: of the sampling.
        micro_batch: trajectories that the teacher and the gradient process at a time; None for all.
        baseline: subtracted from the returns of every kernel that names none.
        groups: further parameter groups to measure, "layers" for one per layer; see
            ``kvar.gradients.gradient_moments``.
        engine: as of ``kvar.gradients.gradient_moments``.
        fields: "norms" for the variance alone, at less cost.
        centre: of the teacher's logits, see ``kvar.returns.token_values``.
        value: hard or soft V, see ``kvar.returns.token_values``.
        vocabulary: draw and normalise over the first this many tokens only; default the tokenizer's.
        device: of models given by name; default that of a given module, else the accelerator, else the CPU.
        teacher_dtype: "bfloat16" halves the memory of a teacher given by name.
        name: the student's name in tables.

    Returns:
        The measurement, with its ``table``, ``best_k``, ``plot`` and ``save``.

    Raises:
        TypeError: a student or teacher that is neither module nor name.
        ValueError: neither prompts nor rollouts, or both; rollouts that another model or temperature drew (unless
            ``stale``); no teacher, or an estimator that needs more of it than the batch holds; before sampling:
            different tokenizers or devices, a model that cannot be loaded, no prompts, a single text, a prompt that is
            too long, an estimator that does not parse or has no score, a number out of range; after sampling: a teacher
            that gives only its best logits, a score that is not N finite numbers or has the same value for all.

    Example:
        >>> import kvar
        >>> from kvar.tasks import ArithmeticTask
        >>> prompts = [example.prompt for example in ArithmeticTask().examples("validation", 4)]
        >>> m = kvar.measure("arithmetic", "arithmetic", prompts, kernels="1, 4", max_new_tokens=4)
        >>> m.rollouts.tokens.shape, m.names
        (torch.Size([16, 4]), ('K=1', 'K=4'))
    """
    if estimators is not None and kernels != DEFAULT:
        raise ValueError("kernels and estimators are the same argument: give one of them.")
    if (prompts is None) == (rollouts is None):
        raise ValueError("measure needs either prompts, to sample responses to, or rollouts=; give one of them.")
    if stale and rollouts is None and sampler is None:
        raise ValueError("stale=True is for rollouts= and sampler=: responses sampled now are the student's.")
    if rollouts is not None and sampler is not None:
        raise ValueError("rollouts are drawn already: leave sampler out.")
    if teacher is None and rollouts is None:
        raise TypeError("teacher must be a module, a model folder or a name such as 'arithmetic'; got None.")
    drawn, held = (None, {}) if rollouts is None else rollouts_and_rest(rollouts)
    if drawn is not None:
        if references is not None:
            raise ValueError("references are for prompts: leave them out with rollouts=.")
        if resolve is not None:
            raise ValueError("resolve is for prompts, of which more are drawn: leave it out with rollouts=.")
        counts = drawn.prompt_index.unique(return_counts=True)[1]
        rollouts_per_prompt, max_new_tokens = int(counts.max()), drawn.tokens.shape[1]
        if teacher is None and estimators is None and kernels == DEFAULT:
            kernels = default_estimators(held) or DEFAULT
    settings = MeasurementSettings(
        estimators_of(kernels if estimators is None else estimators, baseline),
        score,
        rollouts_per_prompt,
        max_new_tokens,
        seed,
        micro_batch,
        groups,
        0,
        engine,
        fields,
        centre,
        value,
        vocabulary,
    )
    models = resolve_models(
        student, teacher, tokenizer, vocabulary=vocabulary, device=device, teacher_dtype=teacher_dtype, name=name
    )
    policy = policy_of(models.student, models.tokenizer, teacher=models.teacher, vocabulary=settings.vocabulary)
    numbers: dict[str, float] = {}
    what: Any
    source: Any = models.teacher
    if drawn is not None:
        what, numbers = settled_rollouts(drawn, models, policy, stale)
        source = given_teacher(what, held, models) if teacher is None else source
        count = len(drawn.prompt_index.unique())
    else:
        what = ids, mask = prompt_ids(prompts, models, settings.max_new_tokens, policy)
        count = len(ids)
    written = None
    if references is not None:
        written = data_responses(
            (ids, mask) if not isinstance(prompts, list) else prompts,
            references if isinstance(references, str) else list(references),
            models.tokenizer,
            models.student,
            max_new_tokens=settings.max_new_tokens,
            policy=policy,
        )
    recorded = ("rollouts_per_prompt", "max_new_tokens", "seed", "centre", "value", "vocabulary", "engine")
    if resolve is not None:
        names = [*(e.name for e in settings.estimators), *([] if references is None else [DATA])]
        check_resolve(resolve, names, pilot, max_prompts, count)
    config = {
        **models.config,
        "kernels": [estimator.name for estimator in settings.estimators],
        "prompts": count,
        **{name: getattr(settings, name) for name in recorded},
        **({"numbers": numbers} if numbers else {}),
    }

    def measured(rows: slice, draw: int) -> Measurement:
        return measure_gradients(
            models.student,
            what if drawn is not None else (ids[rows], mask[rows]),
            settings,
            teacher=source,
            references=None if written is None else replace(written[rows], prompt_index=torch.arange(len(ids[rows]))),
            sampler=sampler_of(sampler),
            stale=stale,
            policy=policy,
            tokenizer=models.tokenizer,
            step=draw,
            config=config,
        )

    if resolve is None:
        return measured(slice(None), 0)
    return two_draws(measured, count, resolve, pilot=pilot, max_prompts=max_prompts)

"""Small recorded runs of an enumerable MDP, for tests that need run folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from kvar.analysis.exact import TokenMDP, moments_of
from kvar.analysis.exact.moments import row_gradients
from kvar.gradients.frames import gradient_frame, prompt_frame, trajectory_frame
from kvar.hooks.estimators import estimator_weights, parse_estimators
from kvar.records import Run, RunWriter, load
from kvar.returns import TokenValues, split_by_position

KERNELS = ("K=1", "K=2", "K=4", "immediate")
CONFIG = {"task": "tiny", "teacher": "table", "parameters": 27, "kernel": "K=1", "probe_rollouts": 4}


def write_run(
    folder: Path,
    *,
    prompts: int = 60,
    rollouts: int = 4,
    kernels: tuple[str, ...] = KERNELS,
    steps: tuple[int, ...] = (0,),
    seed: int = 0,
    equal: bool = False,
    split: bool = False,
    groups: bool = False,
    rename: Mapping[str, str] | None = None,
    **config: object,
) -> Run:
    """A run with a probe at each step.

    Args:
        folder: of the run.
        prompts: M.
        rollouts: R.
        kernels: what the probe measures, with or without a baseline.
        steps: at which steps.
        seed: of the draws; part of the config.
        equal: every response is the same one, of five tokens.
        split: estimators split by position besides.
        rename: other names of some estimators in the records.
        groups: two parameter groups besides "all".
        config: fields in place of CONFIG's.
    """
    mdp = TokenMDP(3, 5, seed=1, prompts=3, state="last-token")
    rng = np.random.default_rng(seed)
    every, all_values = mdp.responses()
    chance = mdp.probabilities.numpy().reshape(3, -1) * 3
    with RunWriter(folder, {**CONFIG, "seed": seed, **config}) as writer:
        for step in steps:
            kind = np.repeat(np.arange(prompts) % 3, rollouts)
            drawn = [
                len(every) - 1 if equal else k * chance.shape[1] + rng.choice(chance.shape[1], p=chance[k])
                for k in kind
            ]
            index = torch.tensor(drawn)
            own = replace(every[index], prompt_index=torch.arange(prompts).repeat_interleave(rollouts))
            values = TokenValues(all_values.q[index], all_values.v[index])
            weights = estimator_weights(parse_estimators(kernels), values, own.mask, own.prompt_index)
            names = list(kernels)
            if split:
                parts, part_names = split_by_position(weights, names, [0, 2, 5])
                weights, names = torch.cat([weights, parts]), names + part_names
            rows = mdp.student.rows(own.prompt_ids[:, 0], own.tokens)
            gradients = torch.stack([row_gradients(w, rows, own.tokens, mdp.policy) for w in weights])
            shown = [(rename or {}).get(name, name) for name in names]
            moments = replace(moments_of(gradients, own.prompt_index), names=tuple(shown))
            if groups:
                half = gradients.shape[2] // 2
                cut = {"first": gradients[..., :half], "second": gradients[..., half:]}
                found = {name: moments_of(part, own.prompt_index)["all"] for name, part in cut.items()}
                moments = replace(moments, groups={**moments.groups, **found})
            at = {"probe": "probe", "step": step}
            writer.append("trajectories", trajectory_frame(own, values, **at), key=("probe", step))
            writer.append("gradients", gradient_frame(moments, **at), key=("probe", step))
            writer.append("prompt_gradients", prompt_frame(moments, **at), key=("probe", step))
    return load(folder)

"""``kvar probe``: gradient moments of existing models, without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from kvar.records import RunWriter, load
from kvar.records.load import CONFIG
from kvar.records.place import check_folder_place
from kvar.study.run.build import assemble, build_probes
from kvar.study.run.identity import run_config
from kvar.study.run.weights import weights_of
from kvar.study.settings.probed import PROBED
from kvar.study.settings.reading import find_config, is_study, load_yaml, settings_from
from kvar.study.settings.run_settings import SECTIONS, START_FIELDS

__all__ = ["Measured", "plan_probe", "probe_models"]


@dataclass(frozen=True)
class Measured:
    """A plan of measurements.

    Attributes:
        values: fields of RunSettings and DistillationConfig, without those of the student.
        origin: their config or run.
        models: (step, student's fields) of each measurement.
        output: folder of the records.
    """

    values: dict[str, Any]
    origin: str
    models: list[tuple[int, dict[str, Any]]]
    output: Path


def plan_probe(
    target: str, *, output: str | None = None, models: Sequence[str] = (), checkpoints: str | None = None
) -> Measured:
    """The measurements of ``kvar probe TARGET``.

    Args:
        target: a run's folder, or a config.
        output: folder of the records; default TARGET/probe for a run, output_dir for a config.
        models: model folders or hub names to measure, as steps 0, 1, ...; default the config's student, or the run's
            final model.
        checkpoints: of a run: "all", "last", or training steps, comma-separated.

    Raises:
        ValueError: no such run, config, model or checkpoint.
    """
    run = Path(target)
    named: list[tuple[int, dict[str, Any]]] = [(number, {"student": name}) for number, name in enumerate(models)]
    if (run / CONFIG).is_file():
        from kvar.distill import DistillationConfig

        known = {f.name for kind in (*SECTIONS, DistillationConfig) for f in fields(kind)} - {*START_FIELDS}
        values = {name: value for name, value in load(run).config.items() if name in known}
        if not values.get("probe_every") and values.get("probe_kernels") == PROBED:
            del values["probe_kernels"]  # the default of a run without a probe; one with a probe measures more
        starts = named or [(step, {"student": str(folder)}) for step, folder in weights_of(run, checkpoints)]
        return Measured(values, target, starts, Path(output) if output else run / "probe")
    if run.is_dir():
        raise ValueError(f"{target} is a folder but not a run (no config.json); name a config, with --model {target}.")
    if checkpoints is not None:
        raise ValueError(f"--checkpoints {checkpoints} needs a run, but {target} is a config; use --model.")
    path = find_config(target)
    values = load_yaml(path)
    if is_study(values):
        raise ValueError(f"{path} is a study; name a run's config, or the folder of one of its runs.")
    start = {k: values.pop(k) for k in START_FIELDS if k in values}
    folder = output or values.get("output_dir")
    if not folder:
        raise ValueError(f"{path} has no output_dir; name a folder for the records: --output DIR.")
    return Measured(values, str(path), named or [(0, start)], Path(folder))


def probe_models(plan: Measured, overrides: Mapping[str, Any] | None = None, *, overwrite: bool = False) -> Path:
    """Measure every model of a plan that is not in its records yet.

    Args:
        plan: from :func:`plan_probe`.
        overrides: further fields such as ``{"probe_prompts": 128}``.
        overwrite: discard existing records.

    Returns:
        The folder of the records, for ``kvar report`` and ``kvar choose-k``.

    Raises:
        ValueError: bad settings, no teacher, or a folder that holds another run's records.
    """
    from kvar.distill import count_parameters

    check_folder_place(plan.output, "output")
    plain = {"probe_every": 1, "report_to": "none", "output_dir": str(plan.output)}
    chosen = [
        settings_from({**plan.values, **start, **plain, "probe_every": 1}, plan.origin, overrides)
        for _, start in plan.models
    ]
    config = {name: value for name, value in run_config(*chosen[0]).items() if name not in START_FIELDS}
    config = {**config, "models": {str(step): start for step, start in plan.models}}
    for (step, start), (settings, training) in zip(plan.models, chosen, strict=True):
        parts = assemble(settings, training.seed)
        parts.student.to(training.device)
        parts.teacher.to(training.device)
        whole = {**config, "parameters": count_parameters(parts.student)}
        with RunWriter(plan.output, whole, overwrite, keep=True) as writer:
            overwrite = False
            done = load(plan.output).read("gradients", ["step"], where={"step": step})
            if len(done):
                print(f"{plan.output}: step {step} is already measured.", flush=True)
                continue
            (probe,) = build_probes(settings.probe, training, parts, writer)
            measured = probe.measure(parts.student, step)
            probe.record(measured)
            what = start.get("student") or start.get("student_layers") or "random weights"
            print(f"step {step}, {what}: {len(measured.rollouts)} responses in {measured.seconds:.1f} s", flush=True)
    return plan.output

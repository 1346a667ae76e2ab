"""GPU-hours and memory of the cells of the paper's studies, from their configs and the models' sizes.

Everything about the GPU here is an assumption, not a measurement: no GPU was at hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.scale_measured import ENGINE_PASSES
from benchmarks.scale_shapes import FLAN_T5, Sizes, count, parameters

__all__ = ["DATA", "GPU", "STUDIES", "Data", "cell_hours", "memory"]


@dataclass(frozen=True)
class Gpu:
    """Peaks of the maker's data sheet, and the shares of them that are assumed, (optimistic, pessimistic).

    Attributes:
        name: the GPU's.
        peaks: operations a second by precision.
        shares: of the peak, in dense passes, by precision.
        bandwidth: bytes a second of memory; decoding reads all weights for every token.
        layer: seconds a layer call takes at least: Python and kernel launches.
    """

    name: str
    peaks: dict[str, float]
    shares: dict[str, tuple[float, float]]
    bandwidth: float
    layer: tuple[float, float]


GPU = Gpu(
    "NVIDIA A100 80 GB (SXM)", {"float32": 19.5e12, "bfloat16": 312e12},
    {"float32": (0.6, 0.3), "bfloat16": (0.45, 0.15)}, 2.0e12, (0.3e-3, 1.0e-3),
)  # fmt: skip


@dataclass(frozen=True)
class Data:
    """A task's training examples and its lengths in T5 tokens, (short, long); padding is in the long ones."""

    examples: int
    prompt: tuple[int, int]
    response: tuple[int, int]


# Examples: the data sets' cards, less what the configs hold out. XSum has 431 words a document and 23 a summary
# (Narayan et al. 2018, table 1); the other lengths, and tokens a word, are assumptions.
DATA = {
    "xsum": Data(204_045, (420, 512), (30, 60)),
    "europarl-ennl": Data(200_000, (45, 90), (60, 120)),
    "gsm8k": Data(6_973, (60, 110), (130, 220)),
}
STUDIES = tuple(DATA)
ON_POLICY = ("llmr", "ketchup")
CAP = 512  # of prompts and responses in all three configs


def cell_hours(values: dict[str, Any], student: str, data: Data, precision: str, end: int) -> float:
    """GPU-hours of one cell.

    Args:
        values: its fields.
        student: small, base or large.
        data: of its task.
        precision: the student's, float32 or bfloat16 (autocast); the teacher's is bfloat16.
        end: 0 for the optimistic end of every range, 1 for the pessimistic one.
    """
    own, teacher = FLAN_T5[student], FLAN_T5["xl"]
    source, target = data.prompt[end], data.response[end]
    micro = int(values["per_device_train_batch_size"])
    accumulated = int(values.get("gradient_accumulation_steps", 1))
    batch, sampled = micro * accumulated, values["objective"] in ON_POLICY
    steps = values.get("max_steps") or values["num_train_epochs"] * data.examples / batch
    backward = 6 if values.get("baseline") == "minimum-variance" else 3  # score norms: about a pass both ways more
    step = accumulated * _dense(own, micro, source, target, precision, end, times=backward)
    total = 0.0
    if values["objective"] == "seqkd":  # each response is decoded once, by 4 beams
        total += data.examples / batch * _decode(teacher, 4 * batch, source, target, "bfloat16", end)
    else:
        step += _dense(teacher, batch, source, target, "bfloat16", end)
    if sampled:
        step += _decode(own, batch, source, target, precision, end)
    total += steps * step
    if values.get("probe_every"):
        probes = max(1, int(steps // values["probe_every"]))
        total += probes * _probe(own, teacher, values, source, target, end)
    total += 500 / 64 * (_decode(own, 64, source, target, precision, end) + _dense(teacher, 64, source, target,
                                                                                   "bfloat16", end))  # fmt: skip
    return total / 3600


def _probe(own: Sizes, teacher: Sizes, values: dict[str, Any], source: int, target: int, end: int) -> float:
    """Seconds of a probe; at the pessimistic end five times its passes, as was measured on the smallest models."""
    n, chunk = 64 * 4, int(values["probe_micro_batch"])
    passes = ENGINE_PASSES * (1 + 2 * len(str(values["probe_kernels"]).split(",")))
    own_passes = n / chunk * _dense(own, chunk, source, target, "float32", end, times=passes)
    scoring = n / chunk * _dense(teacher, chunk, source, target, "bfloat16", end)
    return _decode(own, n, source, target, "float32", end) + scoring + own_passes * (1, 5)[end]


def _dense(sizes: Sizes, n: int, source: int, target: int, precision: str, end: int, times: float = 1) -> float:
    """Seconds of ``times`` forward passes' work over n whole sequences."""
    operations = n * count(sizes, source, target).forward * times
    layers = (sizes.num_layers + sizes.num_decoder_layers) * times
    return max(operations / (GPU.peaks[precision] * GPU.shares[precision][end]), layers * GPU.layer[end])


def _decode(sizes: Sizes, n: int, source: int, target: int, precision: str, end: int) -> float:
    """Seconds of decoding n sequences together, token by token."""
    width = {"float32": 4, "bfloat16": 2}[precision] if sizes is FLAN_T5["xl"] else 4  # autocast keeps float32 weights
    operations = n * count(sizes, source, target).forward / (GPU.peaks[precision] * GPU.shares[precision][end])
    read = target * parameters(sizes) * width / GPU.bandwidth
    return max(operations, read, target * sizes.num_decoder_layers * GPU.layer[end])


def memory(student: str, kind: str, source: int = CAP, target: int = CAP) -> float:
    """Bytes that a cell needs at its peak, with float32 students and the configs' batches.

    Args:
        student: small, base or large.
        kind: given (8 sequences at once), sampled (8 decoded and scored together, 1 trained on) or probe (8 at once).
        source: prompt tokens of every sequence.
        target: response tokens of every sequence.
    """
    own, teacher = FLAN_T5[student], FLAN_T5["xl"]
    weights = parameters(own)
    held = 16 * weights + 2 * parameters(teacher)  # weights, gradients, Adam's two moments; the teacher in bfloat16
    logits = target * own.vocab_size
    one = count(own, source, target).saved + 3 * 4 * logits  # logits, their log-softmax, and its gradient
    scored = 8 * 10 * logits  # the teacher's logits in bfloat16, in float32, and one more copy
    cache = 8 * (source + target) * 2 * own.num_decoder_layers * own.num_heads * own.d_kv * 4
    if kind == "given":
        return held + 8 * one + scored
    if kind == "sampled":
        return held + max(one, scored, cache)
    return held + 6 * 4 * weights + 8 * one  # a float32 sum of gradients for each of six kernels

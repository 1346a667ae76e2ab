"""Write docs/architectures.md: ``python -m tests.architectures.page`` sweeps every architecture."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import torch

from tests.architectures.expected import NOT_BUILT, REFUSED, architectures, reason_of
from tests.architectures.judge import Outcome, judged

ROOT = Path(__file__).parents[2]
GROUPS = {
    "fast": "right, by the fast ways throughout",
    "decoded slower": "right; sampling takes a slower exact way and says so once",
    "measured slower": "right; some parameters are measured one trajectory at a time, with a warning",
    "refused": "refused with one line",
    "not built": "no text model of tiny size, or not from a config alone",
    "wrong": "a fault",
}

HEAD = """# Architectures

Every text architecture in transformers' causal and sequence-to-sequence auto mappings, built tiny from its config with
random weights, and held against plain calls of the model: logits and log-probabilities against forward passes over
single unpadded prefixes, sampled log-probabilities against the same, per-trajectory gradient norms against autograd
written out. Three ragged prompts, four tokens, float64 where the model computes in it, else float32; torch {torch},
transformers {transformers}. Families that are causal only as decoders (BERT's kin) have `is_decoder=True`. The page is
written by

```sh
python -m tests.architectures.page
```

and the same sweep is a test (`tests/architectures/`: a fifth of it in `make test`, the rest in `make slow`). A user's
own model is tried in the same manner at its first use (`kvar.rollouts.trial.truth`).

These prompts are short. What changes with length (dynamic and long RoPE past their first length, experts of limited
capacity, attention that leaves tokens out) is looked for at the length of a user's own rollouts
(`kvar.rollouts.trial.longer`), and refused there. BigBird's block-sparse attention is refused; the rows here have
`attention_type='original_full'`.

| outcome | architectures |
|---|---|
"""


def group_of(outcome: Outcome) -> str:
    """The row of the table that an outcome counts in."""
    if outcome.state != "right":
        return outcome.state
    if outcome.slow:
        return "measured slower"
    return "fast" if outcome.decoding == "cached" else "decoded slower"


def page(outcomes: dict[tuple[str, str], Outcome]) -> str:
    """The page's text; outcomes by (auto class, model type)."""
    import transformers

    counts = Counter(group_of(outcome) for outcome in outcomes.values())
    lines = [HEAD.format(torch=torch.__version__.split("+")[0], transformers=transformers.__version__)]
    lines[0] += "".join(
        f"| {words} | {counts[name]} |\n" for name, words in GROUPS.items() if counts[name] or name == "wrong"
    )
    for auto, title in (("AutoModelForCausalLM", "Causal"), ("AutoModelForSeq2SeqLM", "Sequence to sequence")):
        lines.append(f"\n## {title}\n\n| model type | outcome | sampling | slow parameters | compared in | reason |\n")
        lines.append("|---|---|---|---|---|---|\n")
        for (name, kind), outcome in outcomes.items():
            if name == auto:
                told = outcome.state in ("refused", "not built") or outcome.slow
                reason = reason_of(name, kind) if told else outcome.words
                cells = (kind, outcome.state, outcome.decoding, outcome.slow or "", outcome.dtype, reason)
                lines.append("| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |\n")
    return "".join(lines)


def main() -> None:
    """Sweep, print each outcome as it comes, write the page; a file of earlier outcomes may be given to go on from."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    kept = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    known = {}
    if kept is not None and kept.exists():
        rows = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
        known = {(row.pop("auto"), row.pop("kind")): Outcome(**row) for row in rows}
    outcomes = {}
    for auto, kind in architectures():
        outcome = known.get((auto, kind))
        if outcome is None:
            outcome = Outcome("not built") if kind in NOT_BUILT else judged(kind, auto)
            if kept is not None:
                with kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"auto": auto, "kind": kind, **asdict(outcome)}) + "\n")
        outcomes[auto, kind] = outcome
        print(auto, kind, outcome, flush=True)
    (ROOT / "docs" / "architectures.md").write_text(page(outcomes), encoding="utf-8")
    print(Counter(group_of(outcome) for outcome in outcomes.values()), len(REFUSED))


if __name__ == "__main__":
    main()

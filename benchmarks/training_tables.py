"""The tables of TRAINING.md from what training.json holds."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import median
from typing import Any

__all__ = ["write"]

CPU = 0  # of (CPU, wall) pairs
EVERY = 50


def write(data: dict[str, Any], page: Path) -> None:
    """Put every table between its two marks in the page."""
    tables = {
        "machine": _machine(data["machine"]),
        "causal": _against(data["causal"], "kvar gkd"),
        "seq2seq": _against(data["seq2seq"], "kvar ketchup, batch 8"),
        "probes": _probes(data["probes"]),
        "batch": _batch(data["batch"], data["profile"]),
        "profile": _profile(data["profile"]),
    }
    text = page.read_text()
    for name, table in tables.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"{page.name} has no marks for the table {name!r}: <!-- {name} --> and <!-- end -->.")
        text = pattern.sub(lambda found, table=table: f"{found[1]}{table}\n{found[2]}", text)
    page.write_text(text)


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] + ["---:"] * (len(head) - 1), *rows])


def _machine(about: dict[str, Any]) -> str:
    return (
        f"{about['cpu']}, {about['cores']} cores, {about['threads']} thread used; load average {about['load']} at the "
        f"start; Python {about['python']}, torch {about['torch']}, transformers {about['transformers']}, trl "
        f"{about['trl']}."
    )


def _against(part: dict[str, Any], ours: str) -> str:
    """Tokens a second of each contestant (best and median step) and the ratio to it, round by round."""
    rates = {}
    for name, found in part["contestants"].items():
        tokens = sum(found["tokens"]) / len(found["tokens"])
        rates[name] = [[tokens / step[CPU] for step in steps] for steps in found["seconds"]]
    rows = []
    for name, by_round in rates.items():
        every = [rate for steps in by_round for rate in steps]
        ratios = [median(mine) / median(theirs) for mine, theirs in zip(rates[ours], by_round, strict=True)]
        best = max(rate for steps in rates[ours] for rate in steps) / max(every)
        rows.append(
            [
                name,
                f"{max(every):,.0f}",
                f"{median(every):,.0f}",
                f"{best:.2f}",
                f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            ]
        )
    head = [
        part["pair"],
        "tokens/s, best step",
        "median step",
        f"{ours} is faster, times: best step",
        "median of rounds (range)",
    ]
    return _table(head, rows)


def _probes(pairs: list[dict[str, Any]]) -> str:
    rows = []
    for part in pairs:
        plain = median(step[CPU] for steps in part["plain"] for step in steps)
        ratios = [
            median(s[CPU] for s in w) / median(s[CPU] for s in p)
            for w, p in zip(part["watched"], part["plain"], strict=True)
        ]
        full = [x[CPU] for x in part["full"]]
        norms, means = (median(x[CPU] for x in part["output_layer"][name]) for name in ("norms", "means"))
        often = part["means_every"]
        mixed = ((often - 1) * norms + means) / often
        rows.append(
            [
                part["pair"],
                f"{1e3 * plain:,.0f}",
                f"{1e3 * median(full):,.0f}",
                f"{median(full) / plain:.2f}",
                f"{100 * median(full) / plain / EVERY:.1f} %",
                f"{1e3 * norms:.0f} and {1e3 * means:.0f}",
                f"{100 * mixed / plain:.1f} %",
                f"{100 * (median(ratios) - 1):+.1f} %",
            ]
        )
    head = [
        "pair", "step, ms", "full probe, ms", "in steps", f"every {EVERY} steps adds",
        "output-layer probe, ms: norms, and with means", "at every step it adds", "steps with norms are longer by",
    ]  # fmt: skip
    return _table(head, rows)


def _batch(entries: list[dict[str, Any]], profiles: list[dict[str, Any]]) -> str:
    """What the probe of the trainer's own batch adds, and as many passes as it takes at the speed of the trainer's."""
    floors = {
        part["pair"]: {name: median(x[CPU] for x in part["seconds"][name]) for name in part["seconds"]}
        for part in profiles
    }
    rows = []
    for part in entries:
        plain, probed = (median(step[CPU] for step in part[name]) for name in ("plain", "probed"))
        pairs = [(b[CPU] - a[CPU]) / a[CPU] for a, b in zip(part["plain"], part["probed"], strict=True)]
        own = floors[part["pair"]]
        floor = (own["forward"] + part["count"] * own["backward"]) / own["step"]
        rows.append(
            [
                part["pair"],
                part["trainer"],
                f"{part['estimators']}: {part['count']} with `trained`",
                f"{1e3 * plain:,.0f}",
                f"{1e3 * (probed - plain):,.0f}",
                f"{100 * (probed - plain) / plain / EVERY:.1f} %",
                f"{100 * min(pairs) / EVERY:.1f} to {100 * max(pairs) / EVERY:.1f} %",
                f"{100 * floor / EVERY:.1f} %" if part["trainer"].startswith("kvar") else "",
                f"{part['load']:.1f}",
            ]
        )
    head = [
        "pair", "trainer", "estimators", "step, ms", "a probed one is longer by, ms", f"every {EVERY} steps adds",
        "range over pairs of steps", "as many passes of the trainer's own", "load average",
    ]  # fmt: skip
    return _table(head, rows)


def _profile(pairs: list[dict[str, Any]]) -> str:
    rows = []
    for part in pairs:
        seconds = {name: median(x[CPU] for x in values) for name, values in part["seconds"].items()}
        step = seconds.pop("step")
        seconds["rest"] = step - sum(seconds.values())
        floors = {name: count / part["matmul_rate"] for name, count in part["flops"].items()}
        floors["step"], seconds["step"] = sum(floors.values()), step
        for name, spent in seconds.items():
            floor = floors.get(name)
            rows.append(
                [
                    f"{part['pair']}: {name}",
                    f"{1e3 * spent:,.0f}",
                    f"{100 * spent / step:.0f} %",
                    f"{part['flops'].get(name, sum(part['flops'].values()) if name == 'step' else 0) / 1e9:.1f}",
                    f"{1e3 * floor:,.0f}" if floor else "",
                    f"{spent / floor:.1f}" if floor else "",
                ]
            )
        rows[-1][0] += f" ({part['tokens'] / step:,.0f} tokens/s; matmul {part['matmul_rate'] / 1e9:.0f} GFLOP/s)"
    return _table(["part", "ms", "of the step", "GFLOP", "matmul floor, ms", "times the floor"], rows)

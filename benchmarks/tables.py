"""README's tables, from the data file."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

STUDENTS = {"t5": "T5", "gpt2": "GPT-2", "untied": "untied causal"}


def write(frame: pd.DataFrame, path: Path) -> None:
    """Fill the marked places of the README."""
    text = path.read_text()
    for name, body in (("machine", machines(frame)), ("costs", costs(frame)), ("targets", targets(frame))):
        text = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda m, b=body: f"{m[1]}{b}\n{m[2]}", text, flags=re.DOTALL
        )
    path.write_text(text)


def machines(frame: pd.DataFrame) -> str:
    """The machine; the parts may have been measured under different loads."""
    found = frame.drop_duplicates("part")[["part", "machine"]]
    general = found["machine"].str.replace(r", load average.*?GFLOP/s in a matrix product", "", regex=True).unique()
    loads = found["machine"].str.extract(r"load average ([\d.]+) at the start, (\d+) GFLOP/s").astype(float)
    speed = f"{loads[1].min():.0f} to {loads[1].max():.0f} GFLOP/s in a matrix product"
    return f"{'; '.join(general)}; load average {loads[0].min():.1f} to {loads[0].max():.1f}, {speed}."


def costs(frame: pd.DataFrame) -> str:
    """One row a student and contestant at the standard sizes."""
    lines = [
        "| student | contestant | plain steps: min | median | operations, plain steps | memory, plain steps | ms |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for part, rows in frame[~frame["part"].str.startswith("curve")].groupby("part", sort=False):
        first = rows.iloc[0]
        student = f"{STUDENTS[first['kind']]} {first['parameters'] / 1e6:.1f} M"
        student += ", 4 rollouts a prompt" if str(part).endswith("-4") else ""
        for _, row in rows.iterrows():
            cells = [f"{row[c]:.2f}" if row[c] == row[c] else "" for c in
                     ("steps_min", "steps_median", "flop_ratio", "memory_ratio")]  # fmt: skip
            lines.append(f"| {student} | {row['contestant']} | {' | '.join(cells)} | {row['seconds_min'] * 1e3:,.0f} |")
    return "\n".join(lines)


def targets(frame: pd.DataFrame) -> str:
    """What had to be reached, and what was measured."""

    def steps(part: str, name: str, column: str = "steps_min") -> float:
        own = frame[(frame["part"] == part) & (frame["contestant"] == name)]
        return float(own[column].iloc[0]) if len(own) else float("nan")

    norms, every, pairs = "one-pass, norms", "one-pass, all fields", "output layer, pairs"
    peers = frame[(frame["part"] == "untied-9M") & ~frame["contestant"].str.contains("one-pass|plain")]
    best = peers.loc[peers["steps_min"].idxmin()] if len(peers) else None
    rows = [("norms, 9 M", "at most 5.2", f"T5 {steps('t5-9M', norms):.2f}, GPT-2 {steps('gpt2-9M', norms):.2f}"),
            ("all fields, 9 M", "at most 8", f"T5 {steps('t5-9M', every):.2f} ({steps('t5-9M-4', every):.2f} with 4 "
             f"rollouts a prompt), GPT-2 {steps('gpt2-9M', every):.2f}"),
            *((f"faster than the loop, {fields}", "at least 25", ", ".join(
                f"{label} {steps(part, f'loop, {fields}') / steps(part, f'one-pass, {fields}'):.0f}"
                for label, part in (("T5 1 M", "t5-1M"), ("T5 9 M", "t5-9M"), ("GPT-2 1 M", "gpt2-1M"))))
              for fields in ("norms", "all fields")),
            ("output layer, all 36 pairs", "at most 0.15", ", ".join(
                f"{label} {steps(part, pairs):.3f}" for label, part in
                (("T5 1 M", "t5-1M"), ("T5 9 M", "t5-9M"), ("GPT-2 1 M", "gpt2-1M"), ("GPT-2 9 M", "gpt2-9M")))),
            ("memory, norms", "at most 1.5", ", ".join(
                f"{label} {steps(part, norms, 'memory_ratio'):.2f}" for label, part in
                (("T5 9 M", "t5-9M"), ("GPT-2 9 M", "gpt2-9M")))),
            ("memory, all fields", "at most 2.5", ", ".join(
                f"{label} {steps(part, every, 'memory_ratio'):.2f}" for label, part in
                (("T5 9 M", "t5-9M"), ("GPT-2 9 M", "gpt2-9M")))),
            ("faster than the best peer, norms, untied 9 M", "at least 3", "" if best is None else
             f"{best['steps_min'] / steps('untied-9M', norms):.1f} ({best['contestant']}, "
             f"{best['memory_ratio'] / steps('untied-9M', norms, 'memory_ratio'):.1f} times the memory)")]  # fmt: skip
    rows = [(what, wanted, re.sub(r"(\w[\w-]* \d M )?nan\b", "not measured", found)) for what, wanted, found in rows]
    return "\n".join(["| what | wanted | measured |", "|---|---|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows)])

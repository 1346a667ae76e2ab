"""What the paper's scale would take: ``python -m benchmarks.scale`` rewrites docs/scale.md from scale.csv and configs.

``python -m benchmarks.scale --collect RUNS`` takes scale.csv anew from the runs below a folder first.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.scale_cells import DATA, GPU, STUDIES, cell_hours, memory
from benchmarks.scale_measured import Row, collect, fit, read_rows, write_rows
from benchmarks.scale_shapes import FLAN_T5, count, parameters

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "scale.md"
CROWDED = "table/"  # runs that shared one core with many other processes: not taken
STUDENTS = ("small", "base", "large")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


def span(low: float, high: float) -> str:
    """Two numbers to two digits."""
    return " to ".join(f"{float(f'{value:.2g}'):,.10g}" for value in (low, high))


def calibration(rows: Sequence[Row]) -> str:
    """How well operations and calls predict measured seconds."""
    steps = [r for r in rows if r.kind != "probe"]
    probes = [r for r in rows if r.kind == "probe"]
    largest = [r for r in steps if r.run.startswith("multi30k/2.9M")]
    whole = fit(steps)
    without = fit([r for r in steps if r not in largest], largest)
    of_probes = fit(steps, probes)
    lines = [
        f"Fitted on {len(steps)} kinds of step: {whole.rate / 1e9:.0f} GFLOP/s and {whole.overhead * 1e3:.1f} ms a "
        f"layer call. Predicted over measured: {min(whole.ratios):.2f} to {max(whole.ratios):.2f}.",
        f"Fitted without the largest student and asked for its {len(largest)} kinds of step: {min(without.ratios):.2f} "
        f"to {max(without.ratios):.2f} of what was measured.",
        f"The same fit asked for the {len(probes)} runs' probes, which are not in it: {min(of_probes.ratios):.2f} to "
        f"{max(of_probes.ratios):.2f}; a probe also takes inner products and writes records, which is not counted and "
        "weighs most beside the smallest student. The estimates below therefore let a probe's passes cost one to five "
        "times their operations.",
    ]
    shown = [
        (r.run, r.kind, r.student, f"{r.prompt:.0f}+{r.response:.0f}", r.sequences, f"{r.operations / 1e9:.3g}",
         f"{r.seconds / r.times:.3g}", f"{r.operations * r.times / r.seconds / 1e9:.3g}", f"{ratio:.2f}")
        for r, ratio in zip([*steps, *probes], [*whole.ratios, *of_probes.ratios], strict=True)
    ]  # fmt: skip
    head = ("run", "kind", "student", "tokens", "sequences", "GFLOP", "seconds", "GFLOP/s", "predicted / measured")
    return "\n\n".join([*(f"- {line}" for line in lines), table(head, shown)])


def hours() -> str:
    """GPU-hours a cell and a study."""
    from kvar.study.grid.cells import cells_of, read_study

    parts, totals = [], []
    for name in STUDIES:
        cells = [cell for cell in cells_of(read_study(name))]
        lines: dict[str, list[str]] = {}
        sums = {precision: [0.0, 0.0] for precision in GPU.peaks}
        for cell in cells:
            for precision in GPU.peaks:
                both = [cell_hours(cell.values, cell.student, DATA[name], precision, end) for end in (0, 1)]
                sums[precision] = [a + b for a, b in zip(sums[precision], both, strict=True)]
                if cell.seed == 0 and precision == "bfloat16":
                    lines.setdefault(cell.method, []).append(span(*both))
        parts.append(f"### {name}\n\n" + table(("method", *STUDENTS), ((m, *values) for m, values in lines.items())))
        totals.append((name, len(cells), span(*sums["bfloat16"]), span(*sums["float32"])))
    head = ("study", "cells", "hours, bf16 autocast", "hours, float32 as the configs are")
    return "\n\n".join([table(head, totals), *parts])


def memories() -> str:
    """Gigabytes a cell."""
    kinds = ("given", "sampled", "probe")
    rows = []
    for student in STUDENTS:
        full = [f"{memory(student, kind) / 1e9:.0f}" for kind in kinds]
        xsum = [f"{memory(student, kind, 512, 60) / 1e9:.0f}" for kind in kinds]
        rows.append((student, *full, *xsum))
    head = ("student", *(f"{k}, 512 + 512" for k in kinds), *(f"{k}, 512 + 60" for k in kinds))
    return table(head, rows)


def page(rows: Sequence[Row]) -> str:
    """The whole page."""
    sizes = table(
        ("model", "weights, M", "forward of 512 + 60 tokens, GFLOP", "held for backward, GB"),
        ((f"flan-t5-{n}", f"{parameters(s) / 1e6:.1f}", f"{count(s, 512, 60).forward / 1e9:.0f}",
          f"{count(s, 512, 60).saved / 1e9:.2f}") for n, s in FLAN_T5.items()),
    )  # fmt: skip
    f32, b16 = (GPU.shares[p] for p in ("float32", "bfloat16"))
    return (HERE / "scale.template.md").read_text().format(
        sizes=sizes, calibration=calibration(rows), hours=hours(), memory=memories(), gpu=GPU.name,
        f32=f"{f32[1]:.0%} to {f32[0]:.0%}", b16=f"{b16[1]:.0%} to {b16[0]:.0%}",
        layer=f"{GPU.layer[0] * 1e3:g} to {GPU.layer[1] * 1e3:g}",
        lengths=table(("study", "examples", "prompt tokens", "response tokens"),
                      ((n, f"{d.examples:,}", "{} to {}".format(*d.prompt), "{} to {}".format(*d.response))
                       for n, d in DATA.items())),
    )  # fmt: skip


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collect", metavar="RUNS", help="folder of finished runs to take scale.csv from first")
    arguments = parser.parse_args()
    if arguments.collect:
        found = collect(Path(arguments.collect))
        write_rows(HERE / "scale.csv", [row for row in found if not row.run.startswith(CROWDED)])
    PAGE.write_text(page(read_rows(HERE / "scale.csv")))


if __name__ == "__main__":
    main()

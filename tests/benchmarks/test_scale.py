"""The plan for the paper's scale: counted operations, the fit, and a page that is what its command writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.scale import HERE, PAGE, page
from benchmarks.scale_cells import DATA, GPU, cell_hours, memory
from benchmarks.scale_measured import Row, fit, read_rows, write_rows
from benchmarks.scale_shapes import FLAN_T5, Sizes, count, parameters
from kvar.study.grid.cells import cells_of, read_study

TINY = Sizes(16, 8, 2, 32, 3, 2, 50)


def test_weights_are_those_of_the_released_models() -> None:
    released = {"small": 76_961_152, "base": 247_577_856, "large": 783_150_080, "xl": 2_849_757_184}
    assert {name: parameters(sizes) for name, sizes in FLAN_T5.items()} == released


def test_operations_by_hand() -> None:
    """Each matrix product of a T5 without gates: projections, scores, feed-forward and the head."""
    s, source, target = TINY, 7, 5
    inner = s.num_heads * s.d_kv

    def attention(queries: int, keys: int) -> int:
        return 2 * (2 * queries + 2 * keys) * s.d_model * inner + 2 * 2 * queries * keys * inner

    forward = [2 * 2 * n * s.d_model * s.d_ff for n in (source, target)]
    encoder = s.num_layers * (attention(source, source) + forward[0])
    decoder = s.num_decoder_layers * (attention(target, target) + attention(target, source) + forward[1])
    counted = count(s, source, target)
    assert counted.encoder == encoder
    assert counted.decoder == decoder + 2 * target * s.d_model * s.vocab_size


def test_held_bytes_are_those_of_a_real_pass() -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    s = TINY
    model = T5ForConditionalGeneration(
        T5Config(vocab_size=s.vocab_size, d_model=s.d_model, d_kv=s.d_kv, num_heads=s.num_heads, d_ff=s.d_ff,
                 num_layers=s.num_layers, num_decoder_layers=s.num_decoder_layers, dropout_rate=0.0)
    )  # fmt: skip
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    ids = torch.ones(1, 7, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(input_ids=ids, decoder_input_ids=ids[:, :5])
    real = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept}
    total = sum(size for key, size in real.items() if key not in own)
    assert count(s, 7, 5).saved == pytest.approx(total, rel=0.02)


def rows_of(rate: float, overhead: float) -> list[Row]:
    shapes = [Sizes(16, 8, 2, 32, 1, 1, 50), TINY, Sizes(64, 16, 4, 128, 2, 2, 200)]
    made = [
        Row("r", kind, "kl", shape.text, TINY.text, 8, 12.0, 9.0, 0, 10, 0.0)
        for shape in shapes for kind in ("given", "sampled")
    ]  # fmt: skip
    return [replace(r, seconds=r.times * (r.operations / rate + r.calls * overhead)) for r in made]


def test_the_fit_finds_what_made_the_seconds(tmp_path: Path) -> None:
    rows = rows_of(2e9, 3e-4)
    made = fit(rows)
    assert made.rate == pytest.approx(2e9) and made.overhead == pytest.approx(3e-4)
    assert made.ratios == pytest.approx([1.0] * 6)
    slow = [replace(row, seconds=2 * row.seconds) for row in rows[-2:]]
    assert fit(rows[:-2], slow).ratios == pytest.approx([0.5, 0.5])
    write_rows(tmp_path / "rows.csv", rows)
    back = read_rows(tmp_path / "rows.csv")
    assert [r.student for r in back] == [r.student for r in rows]
    assert [r.seconds for r in back] == pytest.approx([r.seconds for r in rows], rel=1e-3)


def test_a_sampled_step_costs_a_pass_more_and_a_probe_its_passes() -> None:
    given = Row("r", "given", "kl", TINY.text, "", 1, 12.0, 9.0, 0, 1, 1.0)
    forward = count(TINY, 12, 9).forward
    assert given.operations == 3 * forward
    assert replace(given, kind="sampled").operations == 4 * forward
    assert replace(given, kind="probe", estimators=6).operations == (1 + 2 * 13) * forward
    assert replace(given, kind="sampled").calls - given.calls == 3 + 2 * 9


def test_hours_and_memory_grow_as_they_must() -> None:
    cells = {cell.name: cell for cell in cells_of(read_study("xsum"), ["seed-0"])}
    for name, cell in cells.items():
        for precision in GPU.peaks:
            low, high = (cell_hours(cell.values, cell.student, DATA["xsum"], precision, end) for end in (0, 1))
            assert 0 < low < high, name
    llmr = [cell_hours(cells[f"{s}/llmr/seed-0"].values, s, DATA["xsum"], "float32", 1) for s in FLAN_T5 if s != "xl"]
    assert llmr == sorted(llmr)
    # five epochs of the teacher alone, at the assumed share of the peak
    passes = 5 * DATA["xsum"].examples * count(FLAN_T5["xl"], 512, 60).forward / (312e12 * 0.15) / 3600
    kl = cell_hours(cells["small/kl/seed-0"].values, "small", DATA["xsum"], "bfloat16", 1)
    assert passes < kl < 1.5 * passes
    for kind in ("given", "sampled", "probe"):
        assert memory("large", kind) > memory("base", kind) > memory("small", kind) > 2 * parameters(FLAN_T5["xl"])


def test_the_page_is_what_its_command_writes() -> None:
    assert page(read_rows(HERE / "scale.csv")) == PAGE.read_text()

"""Odd text in data files: what is right is read right, what is not is one line with file, line, field and remedy."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kvar.tasks import TextTask

GOOD = b'{"en": "a", "de": "b"}\n'


def read(folder: Path, name: str, content: bytes, **options: object) -> list[tuple[str, str]]:
    (folder / name).write_bytes(content)
    task = TextTask(str(folder), "en", "de", **options)  # type: ignore[arg-type]
    return [(example.prompt, example.target) for example in task.examples("train")]


@pytest.mark.parametrize(
    ("name", "content", "pairs"),
    [
        ("train.jsonl", b"\xef\xbb\xbf" + GOOD, [("a", "b")]),
        ("train.json", b"\xef\xbb\xbf[" + GOOD + b"]", [("a", "b")]),
        ("train.csv", b"\xef\xbb\xbfen,de\r\na,b\r\n", [("a", "b")]),
        ("train.jsonl", GOOD + b"\xef\xbb\xbf" + GOOD, [("a", "b")] * 2),  # two files put together
        ("train.jsonl", GOOD.replace(b"\n", b"\r\n") * 2 + b"\r\n  \n\n" + GOOD[:-1], [("a", "b")] * 3),
        ("train.jsonl", '{"en": "a\u2028b\x85c", "de": "d\u2029e"}'.encode(), [("a\u2028b\x85c", "d\u2029e")]),
        ("train.jsonl", b'{"en": "\\ud83d\\ude00", "de": "\xf0\x9f\x98\x80"}', [("😀", "😀")]),  # a pair is a character
        ("train.jsonl", b'{"en": "a\\tb\\nc", "de": "x\\u0007"}', [("a\tb\nc", "x\x07")]),
        ("train.jsonl", b'{"en": "1", "de": "no", "id": 5, "more": null}', [("1", "no")]),
        ("train.csv", 'en,de\n"a,\u2028 ""b""\nc",d\n'.encode(), [('a,\u2028 "b"\nc', "d")]),
        ("train.csv", b"en,de\n\na,b\n   \nc,d\n", [("a", "b"), ("c", "d")]),
        ("train.csv", b'en,de\nhe said "hi",b\n', [('he said "hi"', "b")]),
        ("train.csv", b"en,de\n" + b"x" * 200_000 + b",b\n", [("x" * 200_000, "b")]),
        ("train.jsonl", GOOD * 2 + b"\n", [("a", "b")] * 2),
    ],
)
def test_valid_oddities_are_read_right(tmp_path: Path, name: str, content: bytes, pairs: list) -> None:
    assert read(tmp_path, name, content) == pairs
    (tmp_path / name).unlink()
    assert read(tmp_path, f"{name}.gz", gzip.compress(content, mtime=0)) == pairs


def test_the_csv_limit_is_left_as_it_was(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    read(tmp_path, "train.csv", b"en,de\n" + b"x" * 200_000 + b",b\n")
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "train.jsonl",
            GOOD + b'{"en": "caf\xe9", "de": "b"}\n',
            r"train\.jsonl line 2 is not UTF-8 \(byte 0xe9\); save",
        ),
        ("train.csv", b"en,de\na,b\n\xff,c\n", r"train\.csv line 3 is not UTF-8 \(byte 0xff\)"),
        ("train.jsonl", GOOD.decode().encode("utf-16"), r"train\.jsonl is UTF-16 text; save it as UTF-8"),
        (
            "train.jsonl",
            GOOD + b'{"en": "a\\u0000b", "de": "b"}',
            r"line 2: field 'en' holds a NUL character at position 1",
        ),
        ("train.csv", b"en,de\na,b\x00\n", r"train\.csv line 2: field 'de' holds a NUL character at position 1"),
        ("train.jsonl", b'{"en": "a\x00b", "de": "b"}', r"train\.jsonl line 1 is not JSON: Invalid control character"),
        (
            "train.jsonl",
            b'{"en": "x", "de": "ab\\ud83d"}',
            r"line 1: field 'de' holds half a character \(.* U\+D83D\) at position 2",
        ),
        ("train.json", b'[{"en": "x", "de": "\\udc00"}]', r"train\.json line 1: field 'de' holds half a .* U\+DC00"),
        ("train.jsonl", b'{"en": "\\ufeff\\u200b ", "de": "x"}', r"line 1: field 'en' must be non-empty text"),
        (
            "train.jsonl",
            b'{"en": [1], "de": "x"}',
            r"field 'en' must be non-empty text; got \[1\]\. That is list: store it",
        ),
        ("train.jsonl", b'{"en": NaN, "de": "x"}', r"field 'en' must be non-empty text; got nan"),
        ("train.jsonl", b'{"en": true, "de": "x"}', r"field 'en' must be non-empty text; got True\. That is bool"),
        (
            "train.jsonl",
            b'{"en": "a", "de": "b", "en": "c"}',
            r"train\.jsonl line 1 is not JSON: field 'en' occurs twice",
        ),
        (
            "train.jsonl",
            b'[{"en": "a", "de": "b"}]',
            r"line 1 must be an object .*; got list; a list of objects .* name \.json",
        ),
        (
            "train.jsonl",
            b'[\n{"en": "a", "de": "b"}\n]',
            r"line 1 is not JSON: .* A list of objects is read under the name \.json",
        ),
        ("train.jsonl", b'{"en": "a", "de": ' + b"9" * 5000 + b"}", r"train\.jsonl line 1 is not JSON"),
        ("train.jsonl", b"[" * 100_000, r"train\.jsonl line 1 is not JSON"),
        ("train.csv", b"en,de,en\na,b,c\n", r"train\.csv line 1 names field 'en' twice"),
        ("train.csv", b"id,en,de,note\n1,a,b,c\na,b,c\n", r"train\.csv line 3 has fewer cells than .* 3, not 4"),
        ("train.csv", b'en,de\n"a,b\nc,d\n', r"train\.csv line 3 cannot be read as csv: unexpected end of data"),
        ("train.csv", b'en,de\n"a"x,b\n', r"train\.csv line 2 cannot be read as csv: .* expected after"),
        ("train.csv", b"en;de\na;b\n", r"train\.csv line 2 has only one field, 'en;de'; separate the columns"),
        ("train.csv", b"en\tde\na\tb\n", r"only one field, 'en\\tde'; separate the columns"),
        ("train.jsonl.gz", GOOD, r"train\.jsonl\.gz cannot be read: it is not gzipped; leave \.gz out of its name"),
        (
            "train.jsonl",
            gzip.compress(GOOD, mtime=0),
            r"train\.jsonl cannot be read: it is gzipped; name it train\.jsonl\.gz",
        ),
        (
            "train.jsonl.gz",
            gzip.compress(GOOD * 99, mtime=0)[:-12],
            r"train\.jsonl\.gz cannot be read, it is broken or incomplete",
        ),
        (
            "train.jsonl.gz",
            gzip.compress(GOOD * 99, mtime=0)[:20] + b"\xff" * 40,
            r"it is broken or incomplete: .*\. Copy it again",
        ),
        (
            "train.jsonl.gz",
            gzip.compress(GOOD, mtime=0)[:-8] + b"\0" * 8,
            r"it is broken or incomplete: CRC check failed",
        ),
        ("train.parquet", b"PAR1 no", r"train\.parquet cannot be read as parquet"),
    ],
)
def test_what_is_no_text_names_place_and_remedy(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        read(tmp_path, name, content)
    assert str(tmp_path / name) in str(error.value)
    assert "\n" not in str(error.value)
    str(error.value).encode()  # it can be printed


def test_half_characters_of_other_fields_are_none_of_ours(tmp_path: Path) -> None:
    assert read(tmp_path, "train.jsonl", b'{"en": "a", "de": "b", "note": "\\ud83d\\u0000"}') == [("a", "b")]


def test_parquet_of_bytes_and_of_bad_text(tmp_path: Path) -> None:
    table = pa.table({"en": pa.array([b"a", b"b"]), "de": ["x", "y"]})
    pq.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(
        ValueError, match=r"train\.parquet line 1: field 'en' .* got b'a'\. That is bytes: store it as text"
    ):
        TextTask(str(tmp_path), "en", "de").examples("train")
    bad = pa.array([b"\xff\xfe"]).view(pa.string())
    sink = io.BytesIO()
    pq.write_table(pa.table({"en": bad, "de": ["x"]}), sink)
    with pytest.raises(ValueError, match=r"train\.parquet cannot be read as parquet: .*utf-8"):
        read(tmp_path, "train.parquet", sink.getvalue())


def test_a_dangling_link_is_said(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").symlink_to(tmp_path / "nowhere.jsonl")
    with pytest.raises(ValueError, match=r"train\.jsonl cannot be read: No such file"):
        TextTask(str(tmp_path), "en", "de").examples("train")


def test_skipping_empty_rows_does_not_skip_faulty_ones(tmp_path: Path) -> None:
    rows = [{"en": "\u200b", "de": "x"}, {"en": "a", "de": "b"}]
    content = "\n".join(json.dumps(row) for row in rows).encode()
    assert read(tmp_path, "train.jsonl", content, skip_empty=True) == [("a", "b")]
    with pytest.raises(ValueError, match="line 3: field 'de' holds half a character"):
        read(tmp_path, "train.jsonl", content + b'\n{"en": "a", "de": "\\ud800"}', skip_empty=True)

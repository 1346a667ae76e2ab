"""The verdicts of one comparison in a JSONL file; each is appended at once, an incomplete last line is dropped."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, get_args

from kvar.evaluation.judge.question import Question
from kvar.evaluation.judge.verdict import Answer, JudgeError, Verdict

__all__ = ["Journal"]


class Journal:
    """Verdicts on disk. The first line is the header; every other line is one answer.

    A file of the same comparison is continued; an incomplete last line is dropped.

    Args:
        path: the file; its folder is created.
        header: what is compared: judge, criterion, and a digest of the texts.

    Raises:
        JudgeError: the file holds another comparison, or something else.
    """

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path = path
        self.answers: dict[tuple[int, bool], Answer] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = self._read(header) if path.exists() else 0
        self._stream = open(path, "ab")  # noqa: SIM115 (open as long as the journal)
        self._stream.truncate(whole)
        if not whole:
            self._write({"kvar_judge": 1, **header})

    def _read(self, header: dict[str, Any]) -> int:
        """Read the answers on disk; returns the number of bytes of the file's complete lines."""
        content = self.path.read_bytes()
        lines = content.split(b"\n")[:-1]
        if not lines:
            if content and not content.startswith(b'{"kvar_judge"'[: len(content)]):
                raise JudgeError(f"{self.path} does not hold verdicts of kvar judge; name another output.")
            return 0
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                if number == 1:
                    self._check(row, header)
                else:
                    verdict = row["verdict"]
                    if verdict not in get_args(Verdict):
                        raise ValueError(verdict)
                    self.answers[int(row["pair"]), bool(row["swapped"])] = Answer(verdict, str(row["text"]))
            except JudgeError:
                raise
            except (ValueError, KeyError, TypeError) as error:
                raise JudgeError(
                    f"{self.path}, line {number} is not a verdict of kvar judge: {line[:80]!r}. Remove the line."
                ) from error
        return sum(len(line) + 1 for line in lines)

    def _check(self, saved: dict[str, Any], header: dict[str, Any]) -> None:
        if not isinstance(saved, dict) or saved.get("kvar_judge") != 1:
            raise JudgeError(f"{self.path} does not hold verdicts of this version of kvar judge; name another output.")
        for name, value in header.items():
            if saved.get(name) != value:
                raise JudgeError(
                    f"{self.path} holds verdicts of another comparison: {name} is {saved.get(name)!r} in the file and "
                    f"{value!r} now. Name another output, or remove the file."
                )

    def append(self, question: Question, answer: Answer) -> None:
        """Add one answer; it is on disk when this returns."""
        row = {"pair": question.pair, "swapped": question.swapped, "verdict": answer.verdict, "text": answer.text}
        self._write(row)
        self.answers[question.pair, question.swapped] = answer

    def _write(self, row: dict[str, Any]) -> None:
        self._stream.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

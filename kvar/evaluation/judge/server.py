"""A model behind an OpenAI-compatible address as judge."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from kvar.evaluation.judge.question import Question
from kvar.evaluation.judge.verdict import Answer, JudgeError, parse_verdict
from kvar.rollouts.samplers.server import RefusedError, Server

__all__ = ["KEY_VARIABLE", "ServerJudge"]

KEY_VARIABLE = "KVAR_JUDGE_API_KEY"

_TOO_LONG = re.compile(r"context|too long|too large|maximum", re.IGNORECASE)


class ServerJudge:
    """Asks ``POST /v1/chat/completions`` and reads the reply strictly; needs the extra ``kvar[judge]``.

    An API key is read from the environment variable ``KVAR_JUDGE_API_KEY`` for each request; it is not stored, and is
    removed from the server's messages.

    Args:
        url: address of the server, with or without ``/v1`` or ``/v1/chat/completions``.
        model: model to ask; None asks the server, which must then offer exactly one.
        timeout: seconds one attempt may take from the request to the last byte of the reply.
        retries: further attempts after a timeout, a broken connection, or a temporary status.
        concurrency: most requests at a time.
        max_tokens: longest reply; a thinking model needs hundreds.
        options: further fields of the request, such as ``{"seed": 0}``; None as value removes a field.

    Raises:
        JudgeError: not an http(s) address, a number out of range, no ``openai`` client, or not one model to choose.
    """

    markers: Sequence[str] = ()

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        timeout: float = 60.0,
        retries: int = 4,
        concurrency: int = 4,
        max_tokens: int = 16,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        for name, value in (("concurrency", concurrency), ("max_tokens", max_tokens)):
            if value < 1:
                raise JudgeError(f"{name} must be at least 1; got {value!r}.")
        self.server = Server(url, "judge", KEY_VARIABLE, timeout, retries)
        self.concurrency = concurrency
        self.model = model or self.server.only_model()
        self.name = f"{self.model} at {self.server.base}"
        self.request = {"model": self.model, "temperature": 0, "max_tokens": max_tokens, **(options or {})}

    def answers(self, questions: Sequence[Question]) -> Iterator[tuple[Question, Answer]]:
        """Each question with its answer, as they arrive; after an error no more are sent, and it is raised."""
        rest = iter(questions)
        running: dict[Future[Answer], Question] = {}
        failed: BaseException | None = None
        with ThreadPoolExecutor(self.concurrency) as pool:
            while True:
                while failed is None and len(running) < self.concurrency and (question := next(rest, None)):
                    running[pool.submit(self._ask, question.text)] = question
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    question = running.pop(future)
                    if error := future.exception():
                        failed = failed or error
                    else:
                        yield question, future.result()
        if failed is not None:
            raise failed

    def _ask(self, text: str) -> Answer:
        body = {**self.request, "messages": [{"role": "user", "content": text}]}
        body = {name: value for name, value in body.items() if value is not None}
        try:
            reply = self.server.json("/chat/completions", body)
        except RefusedError as error:
            if error.status in (400, 413, 422) and _TOO_LONG.search(error.body):
                return Answer("invalid", f"HTTP {error.status}: {error.body}"[:200])
            raise
        content = _content(reply)
        if content is None:
            return Answer("invalid", f"a reply without text: {reply}"[:200])
        return Answer(parse_verdict(content), content[:200])


def _content(reply: Any) -> str | None:
    """The reply's text, or None; raises JudgeError for anything but a chat completion."""
    try:
        content = reply["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise JudgeError(
            f"the judge's reply is not a chat completion (choices[0].message.content): {str(reply)[:200]}. "
            "Check that the address speaks the OpenAI protocol."
        ) from None
    return content if isinstance(content, str) else None

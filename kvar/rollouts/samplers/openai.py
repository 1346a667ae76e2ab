"""``OpenAISampler``: responses of an engine that speaks OpenAI's completions protocol, such as vLLM."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kvar.rollouts.samplers.server import Server, ServerError
from kvar.rollouts.seeds import stream_seed

__all__ = ["SAMPLER_KEY", "OpenAISampler"]

SAMPLER_KEY = "KVAR_SAMPLER_API_KEY"
PLAIN = {"temperature": 1.0, "top_p": 1.0}
VLLM = {
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "logprobs": 1,
    "return_tokens_as_token_ids": True,
    "return_token_ids": True,
    "skip_special_tokens": False,
}
"""What a request asks for besides; an engine's own defaults (a model's generation config) are overridden."""


class OpenAISampler:
    """Asks ``POST /v1/completions`` for responses to token ids, with token ids and log-probabilities (vLLM, SGLang).

    The samples are drawn at temperature 1 without top-k, top-p or penalties. The engine must return the ids: as
    ``token_ids``, or in ``logprobs.tokens`` as ``token_id:17``. One that returns texts alone, such as ``transformers
    serve``, can be read with ``tokenizer``: a text counts only if it decodes and encodes to itself and has as many
    tokens as the engine says; its log-probabilities are not known, so no correction can be applied to it.

    A key is read from the environment variable ``KVAR_SAMPLER_API_KEY`` for each request. Needs ``kvar[judge]``.

    Args:
        base_url: address of the server, with or without ``/v1``.
        model: model to ask; None asks the server, which must then offer exactly one.
        tokenizer: the student's, for an engine that returns texts alone.
        timeout: seconds one attempt may take from the request to the last byte of the reply.
        retries: further attempts after a timeout, a broken connection, or a temporary status.
        concurrency: most requests at a time.
        options: further fields of the request; None as value removes a field.

    Raises:
        ServerError: not an http(s) address, a number out of range, no ``openai`` client, or not one model to choose.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        *,
        tokenizer: Any = None,
        timeout: float = 120.0,
        retries: int = 4,
        concurrency: int = 16,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if concurrency < 1:
            raise ServerError(f"concurrency must be at least 1; got {concurrency!r}.")
        self.server = Server(base_url, "sampler", SAMPLER_KEY, timeout, retries, longest=2**28)
        self.model = model or self.server.only_model()
        self.tokenizer, self.concurrency = tokenizer, concurrency
        self.options = {**PLAIN, **({} if tokenizer is not None else VLLM), **(options or {})}

    def __call__(
        self, prompts: list[list[int]], n: int, max_new_tokens: int, seed: int
    ) -> tuple[list[list[int]], list[list[float]] | None]:
        """``n`` responses to each prompt: token ids, and their log-probabilities (None of an engine of texts).

        Raises:
            ServerError: the server is down, too slow or refuses, or its reply is not what was asked for.
        """
        ask = self._ids if self.tokenizer is None else self._texts

        def one(number: int) -> list[tuple[list[int], list[float] | None]]:
            return ask(prompts[number], n, max_new_tokens, stream_seed(seed, number) % 2**31)

        with ThreadPoolExecutor(self.concurrency) as pool:
            rows = [row for replies in pool.map(one, range(len(prompts))) for row in replies]
        log_probs = [values for _, values in rows if values is not None]
        return [ids for ids, _ in rows], log_probs if self.tokenizer is None else None

    def _ids(self, prompt: list[int], n: int, limit: int, seed: int) -> list[tuple[list[int], list[float] | None]]:
        choices = self._ask({"prompt": prompt, "n": n, "max_tokens": limit, "seed": seed})["choices"]
        if len(choices) != n:
            raise self._wrong(f"{len(choices)} choices for n={n}")
        rows: list[tuple[list[int], list[float] | None]] = []
        for choice in sorted(choices, key=lambda choice: choice.get("index", 0)):
            given = choice.get("prompt_token_ids")
            if given is not None and list(given) != prompt:
                raise self._wrong(f"prompt_token_ids {str(given)[:60]} for the prompt {str(prompt)[:60]}")
            scored = choice.get("logprobs") or {}
            ids, values = choice.get("token_ids"), scored.get("token_logprobs")
            words = scored.get("tokens")
            if ids is None and words and all(str(word).startswith("token_id:") for word in words):
                ids = [int(str(word).removeprefix("token_id:")) for word in words]
            if ids is None or values is None:
                raise self._wrong(
                    f"{'no token ids' if ids is None else 'no log-probabilities of the tokens'} (fields: "
                    f"{', '.join(name for name, value in choice.items() if value is not None)}). Ask an engine that "
                    "returns token ids with log-probabilities, such as vLLM; or pass tokenizer= for texts alone"
                )
            if len(values) != len(ids) or any(value is None for value in values):
                raise self._wrong(f"{len(ids)} tokens with {sum(v is not None for v in values)} log-probabilities")
            rows.append(([int(token) for token in ids], [float(value) for value in values]))
        return rows

    def _texts(self, prompt: list[int], n: int, limit: int, seed: int) -> list[tuple[list[int], list[float] | None]]:
        text = self.tokenizer.decode(prompt)
        if list(self.tokenizer(text)["input_ids"]) != prompt:
            raise ServerError(
                f"the prompt {text[:60]!r} as text does not encode to its token ids, so the sampler would read "
                "another: use an engine that takes token ids."
            )
        end = self.tokenizer.eos_token_id
        rows: list[tuple[list[int], list[float] | None]] = []
        for number in range(n):
            reply = self._ask({"prompt": text, "max_tokens": limit, "seed": stream_seed(seed, number) % 2**31})
            choice, usage = reply["choices"][0], reply.get("usage") or {}
            written = choice.get("text") or ""
            ids = list(self.tokenizer(written, add_special_tokens=False)["input_ids"])
            ids += [end] * (choice.get("finish_reason") == "stop")
            plain = self.tokenizer.decode(ids, skip_special_tokens=True)
            counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
            if plain != written or counts != (len(prompt), len(ids)):
                raise self._wrong(
                    f"a text that does not encode back to its tokens: {written[:60]!r} encodes to {plain[:60]!r}, "
                    f"prompt and response to {len(prompt)} and {len(ids)} tokens; the engine counted {counts[0]} and "
                    f"{counts[1]}. Use an engine that returns token ids, such as vLLM"
                )
            rows.append((ids, None))
        return rows

    def _ask(self, body: dict[str, Any]) -> Any:
        body = {"model": self.model, **body, **self.options}
        reply = self.server.json("/completions", {name: value for name, value in body.items() if value is not None})
        choices = reply.get("choices") if isinstance(reply, dict) else None
        if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
            raise ServerError(
                f"sampler at {self.server.base}: the reply is no completion: {self.server.excerpt(str(reply))}. Check "
                "that the address speaks OpenAI's completions protocol."
            )
        return reply

    def _wrong(self, what: str) -> ServerError:
        return ServerError(f"sampler at {self.server.base} returned {what}.")

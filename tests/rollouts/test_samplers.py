"""Responses of other samplers: a callable, an engine with vLLM's format, ``transformers serve``, what is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import kvar
from kvar.distill import build_model
from kvar.rollouts import OpenAISampler, Policy, encode_prompts, policy_of, sample, sample_by
from kvar.rollouts.samplers.openai import SAMPLER_KEY
from kvar.tasks import ArithmeticTask
from tests.servers import serving

TASK = ArithmeticTask(1, 1)
TEXTS = [example.prompt for example in TASK.examples("validation", 3)]
LIMIT = 4


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return TASK.build_tokenizer()


def small(tokenizer: Any, seed: int = 0) -> Any:
    size = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 96}
    model = build_model(size, tokenizer, seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    return model.eval()


@pytest.fixture(scope="module")
def student(tokenizer: Any) -> Any:
    return small(tokenizer)


def of_model(model: Any, policy: Policy, **options: Any) -> Callable:
    """A sampler in this process: the model's own samples, in the form that a sampler returns."""

    def sampler(prompts: list, n: int, max_new_tokens: int, seed: int) -> tuple:
        drawn = sample(
            model, prompts, rollouts_per_prompt=n, max_new_tokens=max_new_tokens, seed=seed, policy=policy, **options
        )
        rows = zip(drawn.tokens, drawn.log_probs, drawn.mask, strict=True)
        pairs = [(tokens[kept].tolist(), log_probs[kept].tolist()) for tokens, log_probs, kept in rows]
        return [ids for ids, _ in pairs], [values for _, values in pairs]

    return sampler


@pytest.fixture(scope="module")
def ask(student: Any, tokenizer: Any) -> Callable:
    """``sample_by`` for this student and these prompts."""
    policy = policy_of(student, tokenizer)
    prompts = encode_prompts(TEXTS, tokenizer, student, policy=policy)
    options = {"rollouts_per_prompt": 2, "max_new_tokens": LIMIT, "seed": 5, "policy": policy}

    def asked(sampler: Any, **more: Any) -> Any:
        return sample_by(sampler, student, prompts, **{**options, **more})

    asked.prompts, asked.policy, asked.options = prompts, policy, options
    return asked


def test_a_callable_gives_what_sample_gives(ask, student, tokenizer) -> None:
    rollouts, numbers = ask(of_model(student, ask.policy))
    own = sample(student, ask.prompts, rollouts_per_prompt=2, max_new_tokens=LIMIT, seed=5, policy=ask.policy)
    for name in ("prompt_ids", "prompt_mask", "mask", "finished", "prompt_index", "log_probs"):
        assert torch.equal(getattr(rollouts, name), getattr(own, name)), name
    assert torch.equal(rollouts.tokens[rollouts.mask], own.tokens[own.mask]) and rollouts.policy == own.policy
    assert numbers["effective_sample_size"] == pytest.approx(6, abs=1e-4)
    assert numbers["behaviour_difference"] < 1e-5


def test_measure_by_a_callable(student, tokenizer, ask) -> None:
    teacher = small(tokenizer, 1)
    options: dict[str, Any] = {"rollouts_per_prompt": 2, "max_new_tokens": LIMIT, "kernels": "1, kl 1 ratio"}
    own = kvar.measure(student, teacher, TEXTS, tokenizer, **options)
    by = kvar.measure(student, teacher, TEXTS, tokenizer, sampler=of_model(student, own.rollouts.policy), **options)
    assert torch.allclose(by.moments.pair, own.moments.pair) and "effective_sample_size" in by.config["numbers"]
    with pytest.raises(ValueError, match="another model, or an earlier state"):
        kvar.measure(student, teacher, TEXTS, tokenizer, sampler=of_model(small(tokenizer, 2), ask.policy), **options)
    with pytest.raises(ValueError, match="rollouts are drawn already"):
        kvar.measure(
            student, teacher, tokenizer=tokenizer, rollouts=own.rollouts, sampler=of_model(student, ask.policy)
        )
    with pytest.raises(TypeError, match="sampler must be a function .* or an address"):
        kvar.measure(student, teacher, TEXTS, tokenizer, sampler=3, **options)


def test_a_probe_by_a_callable(student, tokenizer, ask) -> None:
    stale = of_model(small(tokenizer, 2), ask.policy)
    options: dict[str, Any] = {"teacher": small(tokenizer, 1), "tokenizer": tokenizer, "rollouts_per_prompt": 2}
    probe = kvar.hooks.GradientProbe(TEXTS, "kl 1 ratio", sampler=stale, stale=True, max_new_tokens=LIMIT, **options)
    m = probe.measure(student)
    assert 1 <= m.config["numbers"]["effective_sample_size"] < 6


REPLIES = {
    "sampler must return": lambda ids, logs: [ids, logs],
    "5 responses to 3 prompts with n=2: it must return 6": lambda ids, logs: (ids[:5], logs[:5]),
    "response 0 is empty": lambda ids, logs: ([[], *ids[1:]], logs),
    "5 tokens, more than max_new_tokens=4": lambda ids, logs: ([[3] * 5] * 6, [[-1.0] * 5] * 6),
    "token id -1": lambda ids, logs: ([[-1] * 4] * 6, [[-1.0] * 4] * 6),
    "hold token 5000 at row 0, position 0": lambda ids, logs: ([[5000] * 4] * 6, [[-1.0] * 4] * 6),
    "stops after 2 of 4 tokens without": lambda ids, logs: ([[3] * 2] * 6, [[-1.0] * 2] * 6),
    "one log-probability for each token": lambda ids, logs: (ids, [row[:1] for row in logs]),
    "position 0 is 0.5: it must be finite": lambda ids, logs: (ids, [[0.5 for _ in row] for row in logs]),
    "position 0 is nan": lambda ids, logs: (ids, [[float("nan") for _ in row] for row in logs]),
    "differ from this student's by": lambda ids, logs: (ids, [[2 * x for x in row] for row in logs]),
}


@pytest.mark.parametrize("message", REPLIES)
def test_wrong_replies_of_a_callable(ask, student, message: str) -> None:
    right = of_model(student, ask.policy)
    with pytest.raises(ValueError, match=message):
        ask(lambda *call: REPLIES[message](*right(*call)))


def test_a_response_that_goes_on_after_its_end(ask) -> None:
    end = ask.policy.ends[0]
    with pytest.raises(ValueError, match=f"goes on after its end, token {end} at position 1"):
        ask(lambda *call: ([[3, end, 3, 3]] * 6, None))


class Handler(BaseHTTPRequestHandler):
    """Hands each request to the server's script."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, body, dict(self.headers)))
        self.reply(self.server.script(body))

    def do_GET(self) -> None:
        self.reply({"data": [{"id": "student"}]})

    def reply(self, content: Any, status: int = 200) -> None:
        if isinstance(content, tuple):
            content, status = content
        data = json.dumps(content).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[[Callable], Any]]:
    with serving(Handler) as start:
        yield start


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai._base_client.time", SimpleNamespace(sleep=lambda seconds: None, time=time.time))


def vllm(student: Any, policy: Policy, *, ids: bool = True, words: bool = True, **changes: Any) -> Callable:
    """vLLM's reply to ``/v1/completions``: its fields, with responses of the student."""

    def script(body: dict) -> dict:
        sampler = of_model(student, policy)
        tokens, log_probs = sampler([body["prompt"]], body["n"], body["max_tokens"], body["seed"])
        choices = []
        for index, (row, values) in enumerate(zip(tokens, log_probs, strict=True)):
            scored = {"token_logprobs": values, "top_logprobs": None, "text_offset": []}
            scored["tokens"] = [f"token_id:{token}" for token in row] if words else [str(token) for token in row]
            choice = {"index": index, "text": "", "logprobs": scored, "finish_reason": "length"}
            if ids:
                choice |= {"token_ids": row, "prompt_token_ids": body["prompt"]}
            choices.append({**choice, **changes})
        return {"object": "text_completion", "choices": choices[::-1], "usage": {}}

    return script


@pytest.mark.parametrize(("ids", "words"), [(True, False), (False, True)])
def test_an_engine_that_speaks_vllms_format(ask, student, serve, ids: bool, words: bool) -> None:
    server = serve(vllm(student, ask.policy, ids=ids, words=words))
    rollouts, numbers = ask(OpenAISampler(server.url))
    assert len(rollouts) == 6 and numbers["behaviour_difference"] < 1e-5
    assert numbers["effective_sample_size"] == pytest.approx(6, abs=1e-4)
    again, _ = ask(OpenAISampler(server.url, "student", concurrency=1))
    assert torch.equal(again.tokens, rollouts.tokens)  # a prompt's seed does not depend on the order of requests
    path, body, _ = server.seen[0]
    assert path == "/v1/completions" and body["model"] == "student" and body["n"] == 2 and body["max_tokens"] == LIMIT
    assert body["temperature"] == 1 and body["top_p"] == 1 and body["top_k"] == -1
    assert body["return_tokens_as_token_ids"] and body["return_token_ids"] and body["logprobs"] == 1
    prompts = [row[kept].tolist() for row, kept in zip(*ask.prompts, strict=True)]
    assert sorted(body["prompt"] for _, body, _ in server.seen[:3]) == sorted(prompts)


BAD = {
    "prompt_token_ids .* for the prompt": {"prompt_token_ids": [3]},
    "no token ids .fields: .* Ask an engine that returns token ids .* or pass tokenizer=": {"token_ids": None},
    "no log-probabilities of the tokens": {"logprobs": None},
    "1 tokens with 4 log-probabilities": {"token_ids": [3]},
    "hold token 999 at row 0": {"token_ids": [999] * LIMIT},
}


@pytest.mark.parametrize("message", BAD)
def test_engines_that_return_other_tokens(ask, student, serve, message: str) -> None:
    server = serve(vllm(student, ask.policy, words=False, **BAD[message]))
    with pytest.raises(ValueError, match=message):
        ask(OpenAISampler(server.url, "student"))


def test_engines_that_fail(ask, serve, monkeypatch) -> None:
    with pytest.raises(
        ValueError, match="sampler at http://127.0.0.1:9/v1/completions: connection failed .* in each of 2"
    ):
        ask(OpenAISampler("http://127.0.0.1:9", "student", retries=1))
    slow = serve(lambda body: time.sleep(0.5))
    with pytest.raises(ValueError, match="no reply within 0.1 s, in each of 1 attempts.* raise timeout"):
        ask(OpenAISampler(slow.url, "student", timeout=0.1, retries=0))
    with pytest.raises(ValueError, match="the reply is no completion: .*Check that the address speaks"):
        ask(OpenAISampler(serve(lambda body: {"choices": []}).url, "student"))
    with pytest.raises(ValueError, match="returned 1 choices for n=2"):
        ask(OpenAISampler(serve(lambda body: {"choices": [{"text": ""}]}).url, "student"))
    monkeypatch.setenv(SAMPLER_KEY, "secret-23")
    shut = serve(lambda body: ({"error": "the key secret-23 is wrong"}, 401))
    with pytest.raises(ValueError, match=r"HTTP 401 .*the key \*\*\* is wrong.* KVAR_SAMPLER_API_KEY"):
        ask(OpenAISampler(shut.url, "student"))
    assert shut.seen[0][2]["Authorization"] == "Bearer secret-23"
    for url, message in (("host:8000", "must look like"), ("http://me:key@host", "put the sampler's key into")):
        with pytest.raises(ValueError, match=message):
            OpenAISampler(url, "student")
    with pytest.raises(ValueError, match="concurrency must be at least 1"):
        OpenAISampler(slow.url, "student", concurrency=0)


def test_samples_at_a_temperature_whose_log_probs_leave_it_out(ask, student) -> None:
    hot = of_model(student, ask.policy, temperature=0.3)

    def raw(*call: Any) -> tuple:
        """As an engine that reports log-probabilities before the temperature."""
        ids, _ = hot(*call)
        return ids, None

    with pytest.raises(ValueError, match="more probable than such samples"):
        ask(raw, rollouts_per_prompt=40)

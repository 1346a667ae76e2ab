"""A judge behind an address, against servers on this machine that behave and that do not."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kvar.evaluation.judge import KEY_VARIABLE, JudgeError, Pair, ServerJudge, compare
from tests.servers import serving

PAIRS = [Pair(f"prompt {i}", f"good {i}", f"bad {i}") for i in range(4)]
Reply = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Hands each request to the server's script."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do_POST(self) -> None:
        self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.guard:
            self.number = len(self.server.seen)
            self.server.seen.append((self.path, self.body, dict(self.headers)))
            self.server.running += 1
            self.server.most = max(self.server.most, self.server.running)
        try:
            self.server.script(self)
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            with self.server.guard:
                self.server.running -= 1

    def do_GET(self) -> None:
        self.server.seen.append((self.path, None, dict(self.headers)))
        self.server.script(self)

    def send(self, content: Any, status: int = 200, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def say(self, text: str | None) -> None:
        self.send({"choices": [{"message": {"role": "assistant", "content": text}}]})

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[[Reply], Any]]:
    with serving(Handler) as start:
        yield start


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the client would have waited between attempts."""
    waited: list[float] = []
    monkeypatch.setattr("openai._base_client.time", SimpleNamespace(sleep=waited.append, time=time.time))
    return waited


def judge_of(server: Any, **options: Any) -> ServerJudge:
    return ServerJudge(server.url, "tiny", **{"timeout": 5.0, "retries": 2, **options})


def prefers_good(handler: Handler) -> None:
    handler.say("A" if 'response A: "good' in handler.body["messages"][0]["content"] else "B")


def test_the_request_is_the_protocols_and_the_preference_is_found(serve: Any, tmp_path: Path) -> None:
    server = serve(prefers_good)
    result = compare(judge_of(server, options={"seed": 3, "temperature": None}), PAIRS, tmp_path / "v")
    assert (result.wins, result.n, result.win_rate) == (4, 4, 1.0)
    path, body, headers = server.seen[0]
    assert path == "/v1/chat/completions" and "Authorization" not in headers
    assert body["model"] == "tiny" and body["max_tokens"] == 16 and body["seed"] == 3 and "temperature" not in body
    assert [message["role"] for message in body["messages"]] == ["user"]


def test_a_server_that_always_says_a_is_all_ties(serve: Any, tmp_path: Path) -> None:
    result = compare(judge_of(serve(lambda h: h.say("A"))), PAIRS, tmp_path / "v")
    assert (result.win_rate, result.inconsistent, result.shown_first) == (0.5, 4, 1.0)


@pytest.mark.parametrize("text", ["I prefer the first one.", "", "AAAA", None])
def test_nonsense_is_counted_as_invalid(serve: Any, tmp_path: Path, text: str | None) -> None:
    result = compare(judge_of(serve(lambda h: h.say(text))), PAIRS, tmp_path / "v")
    assert (result.invalid, result.wins, result.losses, result.n) == (4, 0, 0, 0)


def test_500_and_then_200_is_asked_again(serve: Any, tmp_path: Path, waits: list[float]) -> None:
    def script(handler: Handler) -> None:
        if handler.number < 2:
            handler.send({"error": "warming up"}, 500)
        else:
            prefers_good(handler)

    server = serve(script)
    assert compare(judge_of(server, concurrency=1), PAIRS, tmp_path / "v").wins == 4
    assert len(server.seen) == 10 and len(waits) == 2
    assert 0 < waits[0] <= 0.5 < waits[1] <= 1  # backoff doubles


def test_a_server_may_say_how_long_to_wait(serve: Any, tmp_path: Path, waits: list[float]) -> None:
    def script(handler: Handler) -> None:
        if handler.number == 0:
            handler.send({}, 429, Retry_After="7")
        else:
            handler.say("tie")

    assert compare(judge_of(serve(script)), PAIRS, tmp_path / "v").ties == 4
    assert waits == [7.0]


def hang_up(handler: Handler) -> None:
    handler.close_connection = True
    handler.connection.close()


def half_a_reply(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices"')
    handler.close_connection = True


@pytest.mark.parametrize("break_off", [hang_up, half_a_reply])
def test_a_broken_connection_is_asked_again(serve: Any, tmp_path: Path, break_off: Reply) -> None:
    server = serve(lambda h: break_off(h) if h.number == 0 else prefers_good(h))
    assert compare(judge_of(server), PAIRS, tmp_path / "v").wins == 4
    assert len(server.seen) == 9
    with pytest.raises(JudgeError, match="connection failed .* in each of 3 attempts"):
        compare(judge_of(serve(break_off)), PAIRS, tmp_path / "w")


def test_a_slow_answer_is_asked_again(serve: Any, tmp_path: Path) -> None:
    def script(handler: Handler) -> None:
        if handler.number == 0:
            time.sleep(0.6)
        handler.say("tie")

    server = serve(script)
    judge = judge_of(server, timeout=0.3, concurrency=1)
    assert compare(judge, PAIRS[:1], tmp_path / "v").ties == 1
    assert len(server.seen) == 3


def test_a_server_that_stays_slow_is_one_clear_error(serve: Any, tmp_path: Path) -> None:
    judge = judge_of(serve(lambda h: time.sleep(0.5)), timeout=0.1, retries=1)
    with pytest.raises(JudgeError, match=r"no reply within 0\.1 s, in each of 2 attempts.* raise timeout"):
        compare(judge, PAIRS[:1], tmp_path / "v")


def test_a_reply_that_trickles_is_cut_at_the_deadline(serve: Any, tmp_path: Path) -> None:
    """Long before the server is done; each piece comes well within the timeout, the whole would take a minute."""
    sent: list[int] = []

    def script(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1200")
        handler.end_headers()
        for i in range(1200):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            sent.append(i)
            time.sleep(0.05)

    judge = judge_of(serve(script), timeout=0.3, retries=0)
    with pytest.raises(JudgeError, match=r"no reply within 0\.3 s"):
        compare(judge, PAIRS[:1], tmp_path / "v")
    assert len(sent) < 1200


def test_no_server_at_all_is_one_clear_error(tmp_path: Path) -> None:
    judge = ServerJudge("http://127.0.0.1:9", "tiny", retries=1)
    with pytest.raises(JudgeError, match="judge at http://127.0.0.1:9/v1/chat/completions: connection failed"):
        compare(judge, PAIRS, tmp_path / "v")


def test_verdicts_before_an_error_stay_and_are_not_asked_again(serve: Any, tmp_path: Path) -> None:
    def dies(handler: Handler) -> None:
        prefers_good(handler) if handler.number < 5 else handler.send({"error": "no such model"}, 404)

    server = serve(dies)
    with pytest.raises(JudgeError, match="HTTP 404 .*no such model.* model's name"):
        compare(judge_of(server, concurrency=1), PAIRS, tmp_path / "v")
    assert len(server.seen) == 6  # a refusal is not repeated
    server.script = prefers_good
    assert compare(judge_of(server), PAIRS, tmp_path / "v").wins == 4
    assert len(server.seen) == 6 + 3


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (lambda h: h.send(b"<html>hello</html>"), "the reply is not JSON: '<html>hello</html>'"),
        (lambda h: h.send({"answer": "A"}), "not a chat completion"),
        (lambda h: h.send([]), "not a chat completion"),
        (lambda h: h.send({}, 302, Location="http://127.0.0.1:9/"), "HTTP 302"),
    ],
)
def test_an_address_that_speaks_something_else(serve: Any, tmp_path: Path, script: Reply, message: str) -> None:
    with pytest.raises(JudgeError, match=message):
        compare(judge_of(serve(script)), PAIRS, tmp_path / "v")


def test_a_question_too_long_for_the_server_is_invalid(serve: Any, tmp_path: Path) -> None:
    error = {"error": {"message": "This model's maximum context length is 64 tokens"}}
    server = serve(lambda h: h.send(error, 400) if "prompt 2" in str(h.body) else prefers_good(h))
    result = compare(judge_of(server), PAIRS, tmp_path / "v")
    assert (result.wins, result.invalid) == (3, 1)


def test_requests_in_flight_are_bounded(serve: Any, tmp_path: Path) -> None:
    def script(handler: Handler) -> None:
        time.sleep(0.05)
        handler.say("tie")

    server = serve(script)
    compare(judge_of(server, concurrency=3), PAIRS, tmp_path / "v")
    assert server.most == 3


def test_the_key_is_sent_and_never_shown(serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "secret-17")
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "another-secret")  # the client's own, which are not for this server
    server = serve(lambda h: h.send({"error": f"bad key {h.headers['Authorization']}"}, 401))
    judge = judge_of(server)
    with pytest.raises(JudgeError, match=r"HTTP 401 .*Bearer \*\*\*.* environment variable") as caught:
        compare(judge, PAIRS, tmp_path / "v")
    assert server.seen[0][2]["Authorization"] == "Bearer secret-17"
    assert "another-secret" not in str(server.seen)
    held = repr(vars(judge)) + str(caught.value) + (tmp_path / "v").read_text()
    assert "secret-17" not in held and caught.value.__cause__ is None


def test_the_servers_only_model_is_taken_by_itself(serve: Any) -> None:
    models = {"data": [{"id": "one"}]}
    server = serve(lambda h: h.send(models))
    assert ServerJudge(f"{server.url}/v1/").model == "one"
    assert server.seen[0][0] == "/v1/models"
    models["data"].append({"id": "two"})
    with pytest.raises(JudgeError, match=r"offers \['one', 'two'\]; name one"):
        ServerJudge(server.url)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://x/v1", "must look like"),
        ("http://", "must look like"),
        ("https://me:key@host/v1", "not into its address"),
    ],
)
def test_bad_addresses(url: str, message: str) -> None:
    with pytest.raises(JudgeError, match=message):
        ServerJudge(url, "m")


def test_without_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(JudgeError, match=r"needs the openai client; pip install 'kvar\[judge\]'"):
        ServerJudge("http://x", "m")


def test_bad_settings() -> None:
    with pytest.raises(JudgeError, match="timeout must be a positive number"):
        ServerJudge("http://x", "m", timeout=0)
    with pytest.raises(JudgeError, match="retries must be 0 or more"):
        ServerJudge("http://x", "m", retries=-1)
    with pytest.raises(JudgeError, match="concurrency must be at least 1"):
        ServerJudge("http://x", "m", concurrency=0)
    assert ServerJudge("http://x:1/v1/chat/completions", "m").server.base == "http://x:1/v1"
    assert ServerJudge("http://x:1/openai/v1", "m").server.base == "http://x:1/openai/v1"

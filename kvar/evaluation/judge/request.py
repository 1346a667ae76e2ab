"""One JSON request over HTTP: a deadline, retries with backoff, and errors that say what to do."""

from __future__ import annotations

import http.client
import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from kvar.evaluation.judge.verdict import JudgeError

__all__ = ["RefusedError", "Transport"]

PASSING = {408, 409, 425, 429, 500, 502, 503, 504, 529}  # statuses worth a second attempt
LONGEST_REPLY = 4_000_000  # bytes


class RefusedError(JudgeError):
    """The server refused this one request; ``status`` and ``body`` say why."""

    def __init__(self, message: str, status: int, body: str) -> None:
        super().__init__(message)
        self.status, self.body = status, body


class _Failed(Exception):  # noqa: N818 (not an error yet: another attempt may follow)
    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another address: it is an answer like any other."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


@dataclass(frozen=True)
class Transport:
    """How requests are sent.

    Attributes:
        timeout: seconds one attempt may take from the request to the last byte of the reply.
        retries: further attempts after a timeout, a broken connection, or a status that may pass (429, 5xx).
        backoff: seconds before the second attempt; doubled each time up to 30, a server's Retry-After up to 60.
        sleep: waits; tests put another in its place.
    """

    timeout: float = 60.0
    retries: int = 4
    backoff: float = 1.0
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        if not self.timeout > 0:
            raise JudgeError(f"timeout must be a positive number of seconds; got {self.timeout!r}.")
        if self.retries < 0:
            raise JudgeError(f"retries must be 0 or more; got {self.retries!r}.")

    def json(self, url: str, body: dict[str, Any] | None, key: str | None) -> Any:
        """Send ``body`` (POST; GET without one) and return the parsed reply.

        Args:
            url: http or https address.
            body: JSON object to send.
            key: sent as a bearer token; never part of a message.

        Raises:
            RefusedError: a status that another attempt would not change.
            JudgeError: every attempt failed.
        """
        for attempt in range(self.retries + 1):
            try:
                return self._once(url, body, key)
            except _Failed as failed:
                reason = str(failed)
                wait = min(self.backoff * 2**attempt, 30.0) * random.uniform(0.75, 1.25)
                if attempt < self.retries:
                    self.sleep(wait if failed.wait is None else failed.wait)
        raise JudgeError(
            f"judge at {url}: {reason}, in each of {self.retries + 1} attempts. Check the server, or raise timeout "
            f"({self.timeout:g} s) or retries."
        )

    def _once(self, url: str, body: dict[str, Any] | None, key: str | None) -> Any:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        deadline = time.monotonic() + self.timeout
        try:
            with _opener(url).open(urllib.request.Request(url, data, headers), timeout=self.timeout) as reply:
                text = _read(reply, deadline)
        except urllib.error.HTTPError as error:
            raise self._refusal(url, error, key) from None
        except (TimeoutError, OSError, http.client.HTTPException) as error:
            raise _Failed(_reason(error, self.timeout)) from None
        try:
            return json.loads(text)
        except ValueError:
            raise _Failed(f"the reply is not JSON: {_excerpt(text, key)!r}") from None

    def _refusal(self, url: str, error: urllib.error.HTTPError, key: str | None) -> Exception:
        try:
            body = _excerpt(error.read(2000).decode("utf-8", "replace"), key)
        except (OSError, http.client.HTTPException):
            body = ""
        if error.code in PASSING:
            wait = error.headers.get("Retry-After", "")
            return _Failed(f"HTTP {error.code} {body}".strip(), min(float(wait), 60.0) if wait.isdigit() else None)
        return RefusedError(f"judge at {url}: HTTP {error.code} {body}. {_remedy(error.code)}", error.code, body)


def _opener(url: str) -> urllib.request.OpenerDirector:
    """Follows no redirect; a server on this machine is reached without the environment's proxy."""
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    if urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1"):
        handlers.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*handlers)


def _read(reply: Any, deadline: float) -> str:
    parts, size = [], 0
    while part := reply.read1(65536):
        parts.append(part)
        size += len(part)
        if time.monotonic() > deadline:
            raise TimeoutError
        if size > LONGEST_REPLY:
            raise _Failed(f"a reply of more than {LONGEST_REPLY:,} bytes")
    if reply.length:  # read1 does not tell an end from a break
        raise http.client.IncompleteRead(b"", reply.length)
    return b"".join(parts).decode("utf-8", "replace")


def _reason(error: Exception, timeout: float) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no reply within {timeout:g} s"
    return f"connection failed ({type(cause).__name__}: {cause})"


def _excerpt(text: str, key: str | None) -> str:
    return " ".join((text.replace(key, "***") if key else text).split())[:300]


def _remedy(status: int) -> str:
    return {
        401: "Set the key in the environment variable that the judge reads.",
        403: "Set the key in the environment variable that the judge reads.",
        404: "Check the address (it ends in /v1) and the model's name.",
    }.get(status, "Check the address, the model's name and the request's options.")

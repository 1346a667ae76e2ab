"""A JSON request to a judge's server by the ``openai`` client, which retries and waits as the server asks."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

from kvar.evaluation.judge.verdict import JudgeError

__all__ = ["KEY_VARIABLE", "RefusedError", "Server"]

KEY_VARIABLE = "KVAR_JUDGE_API_KEY"
LONGEST_REPLY = 4_000_000  # bytes
HEADERS = {"host", "accept", "accept-encoding", "content-type", "content-length", "connection", "user-agent"}


class RefusedError(JudgeError):
    """The server refused this request; ``status`` and ``body`` give the reason."""

    def __init__(self, message: str, status: int, body: str) -> None:
        super().__init__(message)
        self.status, self.body = status, body


class Server:
    """An OpenAI-compatible server.

    The key of the environment is sent as a bearer token to this address alone: no redirect is followed, and headers
    that the ``openai`` client adds, from its environment variables too, are removed.

    Args:
        base: http or https address up to ``/v1``.
        timeout: seconds one attempt may take from the request to the last byte of the reply.
        retries: further attempts after a timeout, a broken connection, or a temporary status (408, 409, 429, 5xx).

    Raises:
        JudgeError: a number out of range, or the ``openai`` client is not installed.
    """

    def __init__(self, base: str, timeout: float = 60.0, retries: int = 4) -> None:
        if not timeout > 0:
            raise JudgeError(f"timeout must be a positive number of seconds; got {timeout!r}.")
        if retries < 0:
            raise JudgeError(f"retries must be 0 or more; got {retries!r}.")
        try:
            import httpx2
            from openai import OpenAI
        except ImportError:
            raise JudgeError(
                "a judge behind an address needs the openai client; pip install 'kvar[judge]', or name a folder."
            ) from None

        class Transport(httpx2.HTTPTransport):
            def handle_request(self, request: httpx2.Request) -> httpx2.Response:
                deadline = time.monotonic() + timeout
                for name in set(request.headers) - HEADERS:
                    del request.headers[name]
                if key := os.environ.get(KEY_VARIABLE):
                    request.headers["Authorization"] = f"Bearer {key}"
                response, body = super().handle_request(request), b""
                with closing(response):
                    for part in response.iter_raw():
                        body += part
                        if time.monotonic() > deadline:
                            raise httpx2.ReadTimeout("deadline", request=request)
                        if len(body) > LONGEST_REPLY:
                            raise httpx2.ReadError(f"a reply of more than {LONGEST_REPLY:,} bytes", request=request)
                return httpx2.Response(response.status_code, headers=response.headers, content=body, request=request)

        self.base, self.timeout, self.retries = base, timeout, retries
        self._client = OpenAI(
            base_url=base, api_key="kept by the transport", max_retries=retries,
            http_client=httpx2.Client(transport=Transport(proxy=_proxy(base)), timeout=timeout, follow_redirects=False),
        )  # fmt: skip

    def json(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Send ``body`` to a path below the base (POST; GET without one) and return the parsed reply.

        Raises:
            RefusedError: a permanent status.
            JudgeError: every attempt failed, or the reply is not JSON.
        """
        import httpx2
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        where = f"judge at {self.base}{path}"
        try:
            if body is None:
                reply = self._client.get(path, cast_to=httpx2.Response)
            else:
                reply = self._client.post(path, body=body, cast_to=httpx2.Response)
            text = reply.text
            return json.loads(text)
        except APITimeoutError:
            reason = f"no reply within {self.timeout:g} s"
        except APIConnectionError as error:
            reason = f"connection failed ({type(error.__cause__).__name__}: {error.__cause__})"
        except APIStatusError as error:
            status, text = error.status_code, _excerpt(error.response.text)
            if status not in (408, 409, 429) and status < 500:
                raise RefusedError(f"{where}: HTTP {status} {text}. {_remedy(status)}", status, text) from None
            reason = f"HTTP {status} {text}".strip()
        except ValueError:
            raise JudgeError(f"{where}: the reply is not JSON: {_excerpt(text)!r}. {_remedy(404)}") from None
        raise JudgeError(
            f"{where}: {reason}, in each of {self.retries + 1} attempts. Check the server, or raise timeout "
            f"({self.timeout:g} s) or retries."
        )


def _proxy(base: str) -> str | None:
    """The environment's proxy for an address; None for a server on this machine."""
    parts = urlsplit(base)
    host = str(parts.hostname)
    if host in ("localhost", "127.0.0.1", "::1") or urllib.request.proxy_bypass(host):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def _excerpt(text: str) -> str:
    """The beginning of a reply's text, without the key."""
    key = os.environ.get(KEY_VARIABLE)
    return " ".join((text.replace(key, "***") if key else text).split())[:300]


def _remedy(status: int) -> str:
    if status in (401, 403):
        return f"Set the key in the environment variable {KEY_VARIABLE}."
    return "Check the address (it ends in /v1), the model's name and the request's options."

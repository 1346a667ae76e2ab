"""JSON requests to an OpenAI-compatible server by the ``openai`` client, which retries and waits as it is asked."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

__all__ = ["RefusedError", "Server", "ServerError"]

HEADERS = {"host", "accept", "accept-encoding", "content-type", "content-length", "connection", "user-agent"}


class ServerError(ValueError):
    """A server that cannot be asked; the message names it, what happened and the remedy."""


class RefusedError(ServerError):
    """The server refused this request; ``status`` and ``body`` give the reason."""

    def __init__(self, message: str, status: int, body: str) -> None:
        super().__init__(message)
        self.status, self.body = status, body


class Server:
    """An OpenAI-compatible server.

    The key of the environment is sent as a bearer token to this address alone: no redirect is followed, and headers
    that the ``openai`` client adds, from its environment variables too, are removed.

    Args:
        url: http or https address of the server, with or without ``/v1`` or the path of one of its services.
        role: what the server is asked for, in messages: "judge", "sampler".
        key_variable: the environment variable that holds its key.
        timeout: seconds one attempt may take from the request to the last byte of the reply.
        retries: further attempts after a timeout, a broken connection, or a temporary status (408, 409, 429, 5xx).
        longest: most bytes of a reply.

    Raises:
        ServerError: not an http(s) address, a number out of range, or the ``openai`` client is not installed.
    """

    def __init__(
        self, url: str, role: str, key_variable: str, timeout: float = 60.0, retries: int = 4, longest: int = 4_000_000
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ServerError(f"{role} address {url!r} must look like http://host:8000/v1.")
        if parts.username or parts.password:
            raise ServerError(f"put the {role}'s key into {key_variable}, not into its address.")
        if not timeout > 0:
            raise ServerError(f"timeout must be a positive number of seconds; got {timeout!r}.")
        if retries < 0:
            raise ServerError(f"retries must be 0 or more; got {retries!r}.")
        try:
            import httpx2
            from openai import OpenAI
        except ImportError:
            raise ServerError(
                f"a {role} behind an address needs the openai client; pip install 'kvar[judge]'."
            ) from None

        class Transport(httpx2.HTTPTransport):
            def handle_request(self, request: httpx2.Request) -> httpx2.Response:
                deadline = time.monotonic() + timeout
                for name in set(request.headers) - HEADERS:
                    del request.headers[name]
                if key := os.environ.get(key_variable):
                    request.headers["Authorization"] = f"Bearer {key}"
                response, body = super().handle_request(request), b""
                with closing(response):
                    for part in response.iter_raw():
                        body += part
                        if time.monotonic() > deadline:
                            raise httpx2.ReadTimeout("deadline", request=request)
                        if len(body) > longest:
                            raise httpx2.ReadError(f"a reply of more than {longest:,} bytes", request=request)
                return httpx2.Response(response.status_code, headers=response.headers, content=body, request=request)

        base = url.rstrip("/").removesuffix("/completions").removesuffix("/chat").rstrip("/")
        base = base if urlsplit(base).path else f"{base}/v1"
        self.base, self.timeout, self.retries = base, timeout, retries
        self.role, self.key_variable = role, key_variable
        self._client = OpenAI(
            base_url=base, api_key="kept by the transport", max_retries=retries,
            http_client=httpx2.Client(transport=Transport(proxy=_proxy(base)), timeout=timeout, follow_redirects=False),
        )  # fmt: skip

    def json(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Send ``body`` to a path below the base (POST; GET without one) and return the parsed reply.

        Raises:
            RefusedError: a permanent status.
            ServerError: every attempt failed, or the reply is not JSON.
        """
        import httpx2
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        where = f"{self.role} at {self.base}{path}"
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
            status, text = error.status_code, self.excerpt(error.response.text)
            if status not in (408, 409, 429) and status < 500:
                raise RefusedError(f"{where}: HTTP {status} {text}. {self._remedy(status)}", status, text) from None
            reason = f"HTTP {status} {text}".strip()
        except ValueError:
            raise ServerError(f"{where}: the reply is not JSON: {self.excerpt(text)!r}. {self._remedy(404)}") from None
        raise ServerError(
            f"{where}: {reason}, in each of {self.retries + 1} attempts. Check the server, or raise timeout "
            f"({self.timeout:g} s) or retries."
        )

    def only_model(self) -> str:
        """The name of the one model that the server offers.

        Raises:
            ServerError: it offers none or several.
        """
        reply = self.json("/models")
        rows = reply.get("data") if isinstance(reply, dict) else None
        names = [str(row["id"]) for row in rows or [] if isinstance(row, dict) and "id" in row]
        if len(names) != 1:
            raise ServerError(f"{self.role} at {self.base} offers {names[:20] or 'no models'}; name one as its model.")
        return names[0]

    def excerpt(self, text: str) -> str:
        """The beginning of a reply's text, without the key."""
        key = os.environ.get(self.key_variable)
        return " ".join((text.replace(key, "***") if key else text).split())[:300]

    def _remedy(self, status: int) -> str:
        if status in (401, 403):
            return f"Set the key in the environment variable {self.key_variable}."
        return "Check the address (it ends in /v1), the model's name and the request's options."


def _proxy(base: str) -> str | None:
    """The environment's proxy for an address; None for a server on this machine."""
    parts = urlsplit(base)
    host = str(parts.hostname)
    if host in ("localhost", "127.0.0.1", "::1") or urllib.request.proxy_bypass(host):
        return None
    return urllib.request.getproxies().get(parts.scheme)

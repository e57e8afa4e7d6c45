"""The Kubernetes API as tests use it: JSON over HTTPS, the paths as its reference has them."""

import http.client
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

JSON = dict[str, Any]
SECONDS = 60


class Refused(Exception):
    """The API server's answer was no; `status` is that of HTTP."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


class Api:
    """One API server, and who asks it."""

    def __init__(self, host: str, port: int, authority: str, token: str) -> None:
        self._host, self._port, self._token = host, port, token
        self._tls = ssl.create_default_context(cafile=authority)

    def ask(self, verb: str, path: str, body: Any = None, *, kind: str = "") -> Any:
        """One request; what came back. Raises `Refused`, and OSError where nobody answers.

        A `body` of bytes is sent as it is.
        """
        connection = http.client.HTTPSConnection(
            self._host, self._port, context=self._tls, timeout=SECONDS
        )
        headers = {"Authorization": f"Bearer {self._token}"}
        # As kubectl sends it: of opaque parameters the API server keeps each byte.
        compact = (",", ":")
        data = body
        if body is not None and not isinstance(body, bytes):
            data = json.dumps(body, separators=compact, sort_keys=True)
        if data:
            headers["Content-Type"] = kind or "application/json"
        try:
            connection.request(verb, path, data, headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        except http.client.HTTPException as error:
            raise OSError(repr(error)) from error
        finally:
            connection.close()
        if answer.status >= 300:
            raise Refused(answer.status, text)
        return json.loads(text) if text.startswith(("{", "[")) else text

    @contextmanager
    def watch(self, path: str) -> Iterator[Iterator[JSON]]:
        """Events of a list, of which `path` has a query, from what is there on."""
        connection = http.client.HTTPSConnection(
            self._host, self._port, context=self._tls, timeout=SECONDS
        )
        try:
            headers = {"Authorization": f"Bearer {self._token}"}
            connection.request("GET", f"{path}&watch=1", headers=headers)
            yield map(json.loads, connection.getresponse())
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """What is there."""
        return self.ask("GET", path)

    def find(self, path: str) -> Any:
        """What is there, or None."""
        try:
            return self.get(path)
        except Refused as error:
            if error.status == 404:
                return None
            raise

    def items(self, path: str) -> list[JSON]:
        """All of a list."""
        return list(self.get(path)["items"])

    def create(self, path: str, body: JSON) -> Any:
        """Make something."""
        return self.ask("POST", path, body)

    def patch(self, path: str, body: JSON) -> Any:
        """Change something, by a merge patch (RFC 7386)."""
        return self.ask("PATCH", path, body, kind="application/merge-patch+json")

    def delete(self, path: str) -> None:
        """Delete something; gone already is good."""
        try:
            self.ask("DELETE", path)
        except Refused as error:
            if error.status != 404:
                raise

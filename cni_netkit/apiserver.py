"""The way to the Kubernetes API server, as a pod's service account; its failures in words."""

import random
import socket
import ssl
from contextlib import suppress

import httpx2
import msgspec
from lightkube.config.client_adapter import ConnectionParams
from lightkube.config.kubeconfig import KubeConfig
from lightkube.core.exceptions import ApiError, ConfigError
from lightkube.core.generic_client import GenericSyncClient

SECONDS = 30.0
"""For an answer to begin, and between two pieces of one."""

BACKOFF_SECONDS = (0.5, 5.0)
"""Before the second attempt to reach the API server, and at most. A refused connection costs
little, and a node that is told late sends packets to where nobody is."""

KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
"""A watch may be silent for long. Where the API server's machine died, it ends after a minute."""

FAILURES = (httpx2.HTTPError, httpx2.InvalidURL, msgspec.DecodeError, ConfigError, OSError)
"""All that can be wrong on the way to the API server and back, for now."""


def pause(attempt: int) -> float:
    """Seconds before the next attempt, after so many that failed one after the other."""
    first, most = BACKOFF_SECONDS
    # A power without bounds would be no float any more after an hour.
    return min(most, first * 2.0 ** min(attempt, 16)) * random.uniform(0.5, 1)  # noqa: S311


def check() -> None:
    """Raise ValueError where this process has not what it takes to find the API server."""
    try:
        KubeConfig.from_service_account()
    except KeyError as error:
        raise ValueError(f"the variable {error.args[0]} is not set") from None
    except ConfigError as error:
        raise ValueError(f"the service account: {error}") from None


def connected(seconds: float = SECONDS) -> GenericSyncClient:
    """One connection's worth: service account token and authority are read anew, as they rotate."""
    config = KubeConfig.from_service_account().get()
    assert config
    tls = ssl.create_default_context(cafile=config.cluster.certificate_auth)
    transport = httpx2.HTTPTransport(verify=tls, trust_env=False, socket_options=KEEPALIVE)
    parameters = ConnectionParams(
        timeout=httpx2.Timeout(seconds), trust_env=False, transport=transport
    )
    return GenericSyncClient(parameters, config)


def code(error: Exception) -> int | None:
    """The status that the API server answered with, by HTTP or in the midst of a watch."""
    if isinstance(error, ApiError):
        return error.status.code
    return error.response.status_code if isinstance(error, httpx2.HTTPStatusError) else None


def words(error: Exception) -> str:
    """What went wrong, with who was asked where the text does not name it."""
    where = ""
    if isinstance(error, httpx2.RequestError):
        with suppress(RuntimeError):  # it has none
            where = f"{error.request.method} {error.request.url}: "
    return f"{where}{str(error) or type(error).__name__}"

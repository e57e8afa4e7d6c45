"""The container's namespace, and the socket in it that a launcher brings along."""

import os
import socket
from contextlib import closing

import pytest

from cni_netkit.kernel.model import Link
from cni_netkit.kernel.namespace import Namespace
from tests.kernel import judge
from tests.kernel.conftest import Node

pytestmark = pytest.mark.without_netkit


@pytest.fixture
def container(node: Node) -> str:
    """One with a device that no other has."""
    name = node.container()
    judge.run("ip", "-n", name, "link", "add", "only-here", "type", "veth")
    return f"/run/netns/{name}"


def find(path: str, route: int) -> Link | None:
    """Look for that device with a socket that came along."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with closing(Namespace.behind(descriptor, path, route)) as namespace:
            return namespace.links.get("only-here")
    finally:
        os.close(descriptor)


def test_socket_that_came_along_is_used(container: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No namespace is entered, and the socket stays the giver's to close."""
    with closing(Namespace.at(container)) as opened:
        route = opened.netns.run(
            lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        )
    monkeypatch.setattr("cni_netkit.kernel.netns._in_a_thread", None)
    with route:
        assert find(container, route.fileno())
        assert route.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL) == socket.NETLINK_ROUTE


@pytest.mark.parametrize("kind", ["of another namespace", "of another protocol", "no socket"])
def test_what_is_no_socket_of_the_namespace_is_not_used(container: str, kind: str) -> None:
    """It would work somewhere else; the namespace is entered instead."""
    before = len(os.listdir("/proc/self/fd"))
    if kind == "no socket":
        with open("/dev/null", "rb") as file:
            found = find(container, file.fileno())
    else:
        protocol = {"of another namespace": socket.NETLINK_ROUTE}.get(kind, 16)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as other:
            found = find(container, other.fileno())
    assert found
    assert found.name == "only-here"
    assert len(os.listdir("/proc/self/fd")) == before

"""Judges of what stands in the kernel: ip(8), tc(8), ping(8), nft(8), raw netlink. Nothing of the plugin."""

import ctypes
import json
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

DEADLINE = 20.0
"""Seconds to wait for a condition that the kernel brings about on its own."""

NETLINK_GENERIC = 16
NESTED = 0x8000
REPORTED_LATER = {"NO-CARRIER", "LOWER_UP"}


def run(*command: str, netns: str = "", check: bool = True) -> str:
    """Run a command, in a named namespace if given; its standard output."""
    prefix = ["ip", "netns", "exec", netns] if netns else []
    done = subprocess.run([*prefix, *command], capture_output=True, text=True)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def ip(*arguments: str, netns: str = "") -> Any:
    """What `ip -j -d` says, as objects."""
    where = ["-n", netns] if netns else []
    text = run("ip", "-j", "-d", *where, *arguments)
    return json.loads(text) if text.strip() else []


def ip_batch(*commands: str, netns: str = "") -> list[Any]:
    """What `ip -j -d` says to each of several commands, by one process; only the last says nothing."""
    where = ["-n", netns] if netns else []
    done = subprocess.run(
        ["ip", "-j", "-d", *where, "-batch", "-"],
        input="\n".join(commands) + "\n",
        capture_output=True,
        text=True,
        check=True,
    )
    found = [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
    return found + [[]] * (len(commands) - len(found))


def link(name: str, netns: str = "") -> Any:
    """One device as ip(8) sees it, or None."""
    return next((each for each in ip("link", netns=netns) if each["ifname"] == name), None)


def netkit(name: str, netns: str = "") -> Any:
    """The netkit attributes of a device as ip(8) sees them."""
    found = link(name, netns)
    assert found is not None, f"no device {name}"
    assert found["linkinfo"]["info_kind"] == "netkit", found["linkinfo"]
    return found["linkinfo"]["info_data"]


def addresses(name: str, netns: str = "") -> set[str]:
    """Addresses of a device, link-local ones left out."""
    (found,) = ip("addr", "show", "dev", name, netns=netns)
    return {
        f"{each['local']}/{each['prefixlen']}"
        for each in found["addr_info"]
        if each["scope"] != "link"
    }


def qdisc(device: str, kind: str) -> Any:
    """A queueing discipline of a device of the host as tc(8) sees it, or None."""
    found = json.loads(run("tc", "-j", "-s", "qdisc", "show", "dev", device) or "[]")
    return next((each for each in found if each["kind"] == kind), None)


def nft(*arguments: str) -> Any:
    """What `nft -j` lists, as objects."""
    return json.loads(run("nft", "-j", *arguments))["nftables"]


def routes(netns: str = "", family: str = "-4") -> dict[str, Any]:
    """Routes of the main table by destination."""
    return {each["dst"]: each for each in ip(family, "route", netns=netns)}


class RouteChanges:
    """Changes of this namespace's routes, as the kernel tells whoever listens (RTMGRP_*_ROUTE)."""

    def __enter__(self) -> "RouteChanges":
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0x40 | 0x400))
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def so_far(self) -> list[tuple[str, str, set[str]]]:
        """Network, "add" or "del", and gateways of each; the kernel tells before it answers."""
        found: list[tuple[str, str, set[str]]] = []
        while True:
            try:
                data = self._socket.recv(1 << 17, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return found
            while len(data) >= 16:
                length, kind = struct.unpack_from("=IH", data)
                family = {2: socket.AF_INET, 10: socket.AF_INET6}[data[16]]
                attributes = _attributes(data[28:length])
                network = socket.inet_ntop(family, attributes[1])
                hops, gateways = attributes.get(9, b""), [attributes.get(5)]
                while hops:  # struct rtnexthop: several of one route
                    (size,) = struct.unpack_from("=H", hops)
                    gateways.append(_attributes(hops[8:size]).get(5))
                    hops = hops[(size + 3) & ~3 :]
                told = {socket.inet_ntop(family, each) for each in gateways if each}
                found.append((network, {24: "add", 25: "del"}[kind], told))
                data = data[(length + 3) & ~3 :]


def pings(address: str, netns: str = "", *, source: str = "") -> bool:
    """Whether one echo request is answered; there is no second try."""
    options = ["-I", source] if source else []
    command = ["ping", "-c", "1", "-W", "2", *options, address]
    prefix = ["ip", "netns", "exec", netns] if netns else []
    return subprocess.run([*prefix, *command], capture_output=True).returncode == 0


def socket_in(netns: str, family: int = socket.AF_INET) -> socket.socket:
    """A TCP socket of a named namespace, for this process; of the current one without a name."""
    made: list[socket.socket] = []

    def enter_and_make() -> None:
        descriptor = os.open(f"/run/netns/{netns}", os.O_RDONLY)
        try:
            if ctypes.CDLL(None).setns(descriptor, 0) == 0:
                made.append(socket.socket(family, socket.SOCK_STREAM))
        finally:
            os.close(descriptor)

    if netns:
        thread = threading.Thread(target=enter_and_make)
        thread.start()
        thread.join()
        (found,) = made
    else:
        found = socket.socket(family, socket.SOCK_STREAM)
    found.settimeout(DEADLINE)
    return found


def connects(client: str, address: str, port: int, server: str, server_port: int = 0) -> str:
    """Send a line over TCP from one namespace to a server in another; the client as it saw it.

    `address` and `port` are where the client connects to; the server listens on all addresses, on
    the same port or on its own. Empty where it cannot connect.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket_in(server, family) as listener, socket_in(client, family) as connection:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", server_port or port))
        listener.listen()
        connection.settimeout(2)
        try:
            connection.connect((address, port))
        except OSError:
            return ""
        accepted, peer = listener.accept()
        with accepted:
            connection.sendall(b"there\n")
            assert accepted.recv(6) == b"there\n"
            accepted.sendall(b"and back\n")
            assert connection.recv(9) == b"and back\n"
        return str(peer[0])


def wait_for(condition: Callable[[], Any], what: str, seconds: float = DEADLINE) -> Any:
    """Wait until the condition holds; fail at the deadline."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        os.sched_yield()
    return value


def files(folder: str) -> dict[str, bytes]:
    """Every file below a folder with its contents."""
    return {str(path): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def _settled(netns: str) -> Any:
    """Links, addresses, and routes of both families of a namespace, once they belong together.

    The kernel adds local routes from a work queue (addrconf_dad_begin()), a moment after the address.
    """
    links, addresses, routes4 = ip_batch("link", "addr", "route show table all", netns=netns)
    routes6 = ip("-6", "route", "show", "table", "all", netns=netns)
    given = {
        item["local"]
        for each in addresses
        if {"UP", "LOWER_UP"} <= set(each.get("flags", ())) and each.get("ifname") != "lo"
        for item in each["addr_info"]
        if item["family"] == "inet6" and item["scope"] != "link"
    }
    local = {each["dst"] for each in routes6 if each.get("type") == "local"}
    return (links, addresses, routes4, routes6) if given <= local else None


def world(*netns: str) -> dict[str, Any]:
    """Everything that an ADD may change, to be compared before and after.

    Left out is what the kernel itself changes later on, on a device that stays: the carrier as it is
    reported (linkwatch), and link-local addresses with their routes.
    """
    seen: dict[str, Any] = {}
    for name in ("", *netns):
        links, addresses, routes4, routes6 = wait_for(
            partial(_settled, name), "IPv6 addresses have their local routes"
        )
        seen[f"links {name}"] = {
            each["ifname"]: (
                each["ifindex"],
                sorted(set(each["flags"]) - REPORTED_LATER),
                each["mtu"],
            )
            for each in links
        }
        seen[f"addresses {name}"] = {
            each["ifname"]: sorted(
                (item["local"], item["prefixlen"])
                for item in each["addr_info"]
                if item["scope"] != "link"
            )
            for each in addresses
        }
        for family, found in (("-4", routes4), ("-6", routes6)):
            seen[f"routes {family} {name}"] = sorted(
                json.dumps({key: each[key] for key in ("dst", "dev", "type") if key in each})
                for each in found
                if not each["dst"].startswith(("fe80:", "ff00:"))
            )
    seen["nftables"] = run("nft", "list", "ruleset")
    seen["leases"] = {nic: leases(nic) for nic in devices_of_the_lab()}
    store = "/var/lib/cni"
    ignored = ("/lock", "last_reserved_ip.")
    seen["files"] = {
        name: content
        for name, content in files(store).items()
        if not any(part in name for part in ignored)
    }
    return seen


def every_processor() -> str:
    """The mask of the processors that there are, as sysfs wants it: of others it wants none."""
    return f"{(1 << (os.cpu_count() or 1)) - 1:x}"


def devices_of_the_lab() -> list[str]:
    """The netdevsim NICs of this namespace that are up."""
    found = []
    for each in ip("link"):
        driver = Path("/sys/class/net", each["ifname"], "device/subsystem")
        if driver.exists() and driver.resolve().name == "netdevsim" and "UP" in each["flags"]:
            found.append(each["ifname"])
    return found


def leases(nic: str) -> dict[int, tuple[int, int]]:
    """Leased receive queues of a NIC: its queue -> (index, queue) of the device that has it."""
    index = socket.if_nametoindex(nic)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC) as sock:
        sock.bind((0, 0))
        sock.settimeout(DEADLINE)
        family = _family(sock, b"netdev\0")
        body = struct.pack("=BBH", 10, 1, 0) + _attribute(2, struct.pack("=I", index))
        sock.send(_message(family, 0x301, body))
        found = {}
        for payload in _answers(sock):
            attributes = _attributes(payload[4:])
            if struct.unpack("=I", attributes[3])[0] != 0 or 8 not in attributes:
                continue
            lease = _attributes(attributes[8])
            other = _attributes(lease[2])
            number = struct.unpack("=I", attributes[1])[0]
            found[number] = (
                struct.unpack("=I", lease[1])[0],
                struct.unpack("=I", other[1])[0],
            )
    return found


def rings(nic: str) -> dict[str, int]:
    """Ring length, header-data split (0 unknown, 1 off, 2 on) and its threshold, by ethtool netlink."""
    found = _ethtool(nic, 15)
    names = {6: "rx", 11: "tcp_data_split", 17: "hds_thresh"}
    return {
        name: int.from_bytes(found[number], "little")
        for number, name in names.items()
        if number in found
    }


def set_rings(
    nic: str, *, tcp_data_split: int | None = None, hds_thresh: int | None = None
) -> None:
    """Set header-data split and its threshold, which Debian's ethtool cannot yet."""
    body = b""
    if tcp_data_split is not None:
        body += _attribute(11, struct.pack("=B", tcp_data_split))
    if hds_thresh is not None:
        body += _attribute(17, struct.pack("=I", hds_thresh))
    _ethtool(nic, 16, body)


def channels(nic: str) -> dict[str, int]:
    """How many queues of each kind, and how many there can be."""
    found = _ethtool(nic, 17)
    names = {2: "rx_max", 5: "combined_max", 6: "rx", 9: "combined"}
    return {
        name: int.from_bytes(found[number], "little")
        for number, name in names.items()
        if number in found
    }


def _ethtool(nic: str, command: int, body: bytes = b"") -> dict[int, bytes]:
    """One request of generic netlink family "ethtool" (include/uapi/linux/ethtool_netlink.h)."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC) as sock:
        sock.bind((0, 0))
        sock.settimeout(DEADLINE)
        family = _family(sock, b"ethtool\0")
        header = _attribute(1 | 0x8000, _attribute(2, nic.encode() + b"\0"))
        sock.send(_message(family, 0x5, struct.pack("=BBH", command, 1, 0) + header + body))
        answers = _answers(sock)
    return _attributes(answers[0][4:]) if answers else {}


def link_nics(nic: str, other: str, netns: str) -> None:
    """Put a cable between two netdevsim NICs: one of this namespace, one of a named namespace."""
    index = ip("link", "show", "dev", other, netns=netns)[0]["ifindex"]
    with open("/proc/thread-self/ns/net") as here, open(f"/run/netns/{netns}") as there:
        Path("/sys/bus/netdevsim/link_device").write_text(
            f"{here.fileno()}:{socket.if_nametoindex(nic)} {there.fileno()}:{index}"
        )


def bind_dmabuf(nic: str, queue: int) -> tuple[int, str]:
    """Ask for a dma-buf as memory of a queue, with no dma-buf at hand: the errno, and the extack text."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC) as sock:
        sock.setsockopt(270, 11, 1)  # SOL_NETLINK, NETLINK_EXT_ACK
        sock.settimeout(DEADLINE)
        family = _family(sock, b"netdev\0")
        body = struct.pack("=BBH", 13, 1, 0) + _attribute(1, _u32(socket.if_nametoindex(nic)))
        body += _attribute(2 | NESTED, _attribute(1, _u32(queue)) + _attribute(3, _u32(0)))
        sock.send(_message(family, 0x5, body + _attribute(3, _u32(0xFFFF))))
        data = sock.recv(1 << 17)
    code, length = struct.unpack_from("=iI", data, 16)
    # NETLINK_CAP is not set, so the request comes back before the text.
    text = _attributes(data[20 + ((length + 3) & ~3) :]).get(1, b"")
    return -code, text.rstrip(b"\0").decode()


def netkit_room(name: str) -> tuple[int, int]:
    """headroom and tailroom of a netkit device in bytes, which ip(8) does not show."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.settimeout(DEADLINE)
        sock.send(
            _message(18, 0x5, struct.pack("=BxHiII", 0, 0, socket.if_nametoindex(name), 0, 0))
        )
        (payload,) = _answers(sock)
    data = _attributes(_attributes(_attributes(payload[16:])[18])[2])
    return struct.unpack("=H", data[8])[0], struct.unpack("=H", data[9])[0]


def generic_family(name: str) -> int:
    """The number of a generic netlink family."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC) as sock:
        sock.settimeout(DEADLINE)
        return _family(sock, name.encode() + b"\0")


def _family(sock: socket.socket, name: bytes) -> int:
    sock.send(_message(16, 0x5, struct.pack("=BBH", 3, 1, 0) + _attribute(2, name)))
    family = 0
    for payload in _answers(sock):
        family = struct.unpack("=H", _attributes(payload[4:])[1])[0]
    return family


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body


def _u32(value: int) -> bytes:
    return struct.pack("=I", value)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        found[kind & 0x3FFF] = data[4:length]
        data = data[(length + 3) & ~3 :]
    return found


def _answers(sock: socket.socket) -> list[bytes]:
    answers: list[bytes] = []
    while True:
        data = sock.recv(1 << 17)
        while len(data) >= 16:
            length, kind = struct.unpack_from("=IH", data)
            if kind in (2, 3):
                code = struct.unpack_from("=i", data, 16)[0]
                assert code == 0, f"netlink: {os.strerror(-code)}"
                return answers
            answers.append(data[16:length])
            data = data[(length + 3) & ~3 :]

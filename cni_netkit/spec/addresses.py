"""Addresses, interfaces and networks as `ipaddress` reads them, each text read once.

An ADD would read the same few texts eighty times, a third of its time in Python
(docs/decisions/D-14.md); the objects are immutable. A text that is none raises ValueError each
time.
"""

import ipaddress
from collections.abc import Callable
from functools import lru_cache, partial
from typing import TypeVar

from cni_netkit.spec.words import shown

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

Read = TypeVar("Read")

REMEMBERED = 256
"""Texts of each kind; more would be memory for little."""


@lru_cache(REMEMBERED)
def ip_address(value: str | bytes) -> Address:
    """Read "10.1.0.2", or its bytes in network order."""
    return _read(ipaddress.ip_address, value, "IP address")


@lru_cache(REMEMBERED)
def ip_interface(value: str) -> Interface:
    """Read "10.1.0.2/24"; without a prefix length it is an address all alone."""
    return _read(ipaddress.ip_interface, value, "IP address with a prefix length")


@lru_cache(REMEMBERED)
def ip_network(value: str) -> Network:
    """Read "10.1.0.0/24"; bits of the host are passed over."""
    return _read(partial(ipaddress.ip_network, strict=False), value, "IP network")


def _read(parse: Callable[[str | bytes], Read], value: str | bytes, what: str) -> Read:
    """In our words: the library's name its functions."""
    try:
        return parse(value)
    except ValueError:
        raise ValueError(f"{shown(str(value))} is no {what}") from None

"""Addresses, interfaces and networks as `ipaddress` reads them, each text read once.

An ADD would read the same few texts eighty times, a third of its time in Python
(docs/decisions/D-14.md); the objects are immutable. A text that is none raises ValueError each
time.
"""

import ipaddress
from functools import lru_cache

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

REMEMBERED = 256
"""Texts of each kind; more would be memory for little."""


@lru_cache(REMEMBERED)
def ip_address(value: str | bytes) -> Address:
    """Read "10.1.0.2", or its bytes in network order."""
    return ipaddress.ip_address(value)


@lru_cache(REMEMBERED)
def ip_interface(value: str) -> Interface:
    """Read "10.1.0.2/24"; without a prefix length it is an address all alone."""
    return ipaddress.ip_interface(value)


@lru_cache(REMEMBERED)
def ip_network(value: str) -> Network:
    """Read "10.1.0.0/24"; bits of the host are passed over."""
    return ipaddress.ip_network(value, strict=False)

"""Addresses and subnets in the "ipam" objects: what they must be like, and how they are read."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, TypeVar

from cni_netkit.spec.addresses import Interface, Network, ip_address, ip_interface, ip_network
from cni_netkit.spec.model import Form

Address = IPv4Address | IPv6Address
Parsed = TypeVar("Parsed")


def canonical(text: object) -> Address:
    """Read an address; an IPv4 one in IPv6 clothes becomes IPv4. Raises ValueError."""
    address = ip_address(str(text))
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def _parsed(parse: Callable[[str], Parsed], value: object, needs: str = "") -> Parsed:
    """Raises ValueError without a text: what the value must be says enough."""
    if not isinstance(value, str) or needs not in value:
        raise ValueError
    try:
        return parse(value)
    except ValueError:
        raise ValueError from None


def _network(value: object) -> Network:
    return _parsed(ip_network, value, "/")


def _subnet(value: object) -> Network:
    network = _network(value)
    if str(network.network_address) != str(ip_address(str(value).partition("/")[0])):
        raise ValueError(f"has host bits set, the subnet is {network}")
    if getattr(network.network_address, "ipv4_mapped", None):
        raise ValueError("is an IPv4 subnet, write it as one")
    return network


def _address(value: object) -> Address | None:
    """An empty one is none, as in Go."""
    return None if value == "" else _parsed(canonical, value)


def _interface(value: object) -> Interface:
    return _parsed(_canonical_interface, value, "/")


def _canonical_interface(text: str) -> Interface:
    address, _, prefix = text.partition("/")
    ip_interface(text)
    mapped = canonical(address)
    if str(mapped) != str(ip_address(address)):  # IPv4 in IPv6 clothes
        prefix = str(int(prefix) - 96)
    return ip_interface(f"{mapped}/{prefix}")


def _destination(value: object) -> str:
    _network(value)
    return str(value)


TEXT = {"type": "string"}
ANY_ADDRESS = Form("an IP address, for example 10.1.0.1", _address, TEXT, reads=True)
SUBNET = Form("a subnet of the form 10.1.0.0/16", _subnet, TEXT, reads=True)
OLD_SUBNET = Form(
    SUBNET.words, lambda value: None if value == "" else _subnet(value), TEXT, reads=True
)
INTERFACE = Form(
    "an address with its prefix length, of the form 10.1.0.2/24", _interface, TEXT, reads=True
)
DESTINATION = Form("a destination of the form 10.1.0.0/16", _destination, TEXT, reads=True)
OptionalAddress = Annotated[Address | None, ANY_ADDRESS]

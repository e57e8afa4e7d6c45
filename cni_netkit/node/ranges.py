"""Ranges of many nodes in few words."""

import ipaddress
from collections.abc import Iterable
from typing import Any

from cni_netkit.spec.addresses import Network


def as_few(networks: Iterable[Network], most: int) -> list[Network]:
    """Networks of one IP version that have all of these in them, `most` at most.

    Nothing else is in them as long as that is few enough. Else the smallest are widened, until
    there are: then they also have what lies between nodes, where ranges are not given to any.
    """
    few: list[Any] = list(ipaddress.collapse_addresses(_any(networks)))
    while len(few) > most:
        longest = max(each.prefixlen for each in few)
        few = [each.supernet() if each.prefixlen == longest else each for each in few]
        few = list(ipaddress.collapse_addresses(few))
    return few


def _any(networks: Iterable[Network]) -> Any:
    """Of one IP version, as `ipaddress` wants them, which a type checker cannot see."""
    return networks

"""Masquerading in nftables.

What stands in the kernel, as `nft list table inet cni-netkit` shows it:

    map masquerade4 { type ipv4_addr : verdict; elements = { 10.1.0.2 : jump nk0123456789a } }
    map masquerade6 { type ipv6_addr : verdict }
    set nonmasquerade4-89abcdef012 {    # a pair of them a network
        type ipv4_addr; flags interval; comment "pods"
        elements = { 10.244.0.0/16 }
    }
    set nonmasquerade6-89abcdef012 { type ipv6_addr; flags interval; comment "pods" }
    chain postrouting {
        type nat hook postrouting priority srcnat
        meta nfproto ipv4 ip saddr vmap @masquerade4
        meta nfproto ipv6 ip6 saddr vmap @masquerade6
    }
    chain nk0123456789a {        # one an attachment, named as its host device
        meta nfproto ipv4 ip saddr 10.1.0.2 ip daddr & 255.255.255.0 != 10.1.0.0
            ip daddr & 240.0.0.0 != 224.0.0.0 ip daddr != @nonmasquerade4-89abcdef012 masquerade
    }

So a packet of one container among a thousand costs one look into a map and one into a set, and
every object of an attachment is found by its name or its address, without a dump. What is in a
network's sets concerns all its attachments at once; only a chain of a release that had none looks
nothing up in them.
"""

import errno
import hashlib
import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Interface, IPv6Interface
from typing import Any

from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.netlink.socket import Ask, NetlinkSocket
from cni_netkit.kernel.nft import expressions
from cni_netkit.kernel.nft.transaction import Interval, Table
from cni_netkit.spec.addresses import ip_interface, ip_network

TABLE = "cni-netkit"
BASE_CHAIN = "postrouting"
ATTEMPTS = 100
"""To find the table there, or to make it; others make it and take it away meanwhile."""

MAPS = {4: "masquerade4", 6: "masquerade6"}
COMMENT_BYTES = 250
"""Below NFT_USERDATA_MAXLEN, with what is around it."""

Interface = IPv4Interface | IPv6Interface


class Exceptions:
    """The pair of sets with the ranges that a network does not masquerade towards.

    The kernel counts who uses them: a set cannot be deleted while a rule looks it up.
    """

    def __init__(self, table: Table, network: str) -> None:
        self._table = table
        self._network = network
        digits = hashlib.sha256(network.encode()).hexdigest()[:11]
        self.names = {version: f"nonmasquerade{version}-{digits}" for version in MAPS}

    def create(self) -> list[Ask]:
        """Requests: have them, whoever made them."""
        comment = self._network.encode()[:COMMENT_BYTES].decode(errors="ignore")
        return [
            self._table.new_interval_set(len(MAPS) + number, name, version, comment)
            for number, (version, name) in enumerate(self.names.items(), start=1)
        ]

    def replace(self, ranges: Iterable[str]) -> list[Ask]:
        """Requests: have `ranges` in them, and nothing else."""
        networks = [ip_network(each) for each in ranges]
        requests = []
        for version, name in self.names.items():
            own = [each for each in networks if each.version == version]
            requests += self._table.replace_intervals(name, list(_intervals(own)))
        return requests


def _intervals(networks: Iterable[Any]) -> Iterator[Interval]:
    """Networks of one IP version, without overlaps: the kernel refuses them."""
    for each in ipaddress.collapse_addresses(networks):
        last = each.broadcast_address
        is_end = int(last) + 1 == 1 << each.max_prefixlen
        yield each.network_address.packed, None if is_end else (last + 1).packed


class Masquerading:
    """What a host masquerades for containers: a chain an attachment."""

    def __init__(self, socket: NetlinkSocket) -> None:
        self._table = Table(socket, TABLE)

    def add(
        self,
        chain: str,
        comment: str,
        addresses: Sequence[str],
        network: str,
        excluded: Sequence[str] = (),
    ) -> None:
        """Masquerade what leaves the host from `addresses` ("10.1.0.2/24") to outside their nets.

        `chain` is made for it; it must not exist. Of `excluded`, see `exclude`.
        """
        interfaces = [ip_interface(address) for address in addresses]
        exceptions = Exceptions(self._table, network)
        skeleton: list[Ask] = []
        for _ in range(ATTEMPTS):
            own = self._own(chain, comment, interfaces, exceptions)
            try:
                return self._table.commit(
                    *skeleton, *exceptions.create(), *exceptions.replace(excluded), *own
                )
            except KernelError as error:
                # The table is not there yet, or another process made it, or took it away, just now.
                if error.errno != (errno.EEXIST if skeleton else errno.ENOENT):
                    raise
                failure = error
            skeleton = [] if skeleton else self._skeleton()
        raise failure

    def exclude(self, network: str, ranges: Sequence[str]) -> None:
        """Masquerade nothing that goes to `ranges` ("10.244.0.0/16"), and all else, from now on.

        For every attachment of the network; where there is none, nothing is done. Connections that
        are under way go on as they began.
        """
        try:
            self._table.commit(*Exceptions(self._table, network).replace(ranges))
        except KernelError as error:
            if error.errno != errno.ENOENT:
                raise

    def remove(self, chain: str, addresses: Iterable[str], network: str) -> None:
        """Take back what `add` made; what is gone already is passed over."""
        if self._table.has_chain(chain):
            self._remove_chain(chain, addresses)
        # Also without: who removed it may have died before this.
        self._remove_unused(network)

    def _remove_chain(self, chain: str, addresses: Iterable[str]) -> None:
        known = [each for each in map(ip_interface, addresses) if self._chain_of(each) == chain]
        try:
            self._delete(chain, known)
        except KernelError as error:
            if error.errno != errno.EBUSY:
                raise
            # Addresses that the record does not know still point here: look for them all.
            self._delete(chain, self._addresses_of(chain))

    def found(self, chain: str, addresses: Sequence[str]) -> tuple[int, list[str]]:
        """How many rules of a chain masquerade, and which of `addresses` are sent to them."""
        rules = sum("masq" in rule for rule in self._table.rules(chain))
        reached = [each for each in addresses if self._chain_of(ip_interface(each)) == chain]
        return rules, reached

    def excepting(self, chain: str, network: str) -> int:
        """How many rules of a chain masquerade with the exceptions of a network."""
        names = Exceptions(self._table, network).names.values()
        looking = {f"lookup {name}" for name in names}
        rules = self._table.rules(chain)
        return sum("masq" in rule and not looking.isdisjoint(rule) for rule in rules)

    def all(self) -> dict[str, str]:
        """The chain of every attachment, with its comment."""
        return {name: text for name, text in self._table.chains().items() if name != BASE_CHAIN}

    def owners(self, addresses: Iterable[str]) -> dict[str, str]:
        """The comment of the chain that has to do with an address, of those of which one has."""
        comments = self.all()
        chains = {str(each.ip): self._chain_of(each) for each in map(ip_interface, addresses)}
        return {address: comments.get(chain, "") for address, chain in chains.items() if chain}

    def _own(
        self, chain: str, comment: str, interfaces: Sequence[Interface], exceptions: Exceptions
    ) -> list[Ask]:
        """An attachment's part. Made anew for each attempt: encoding a message uses it up."""
        table = self._table
        return [
            table.new_chain(chain, comment),
            *(
                table.new_rule(chain, expressions.masquerade(each, exceptions.names[each.version]))
                for each in interfaces
            ),
            *(
                table.new_jump(f"masquerade {each.ip}", MAPS[each.version], each.ip.packed, chain)
                for each in interfaces
            ),
        ]

    def _skeleton(self) -> list[Ask]:
        table = self._table
        return [
            table.new(),
            table.new_nat_chain(BASE_CHAIN),
            *(
                table.new_verdict_map(number, MAPS[version], version)
                for number, version in enumerate(MAPS, start=1)
            ),
            *(
                table.new_rule(BASE_CHAIN, expressions.jump_by_source(version, name))
                for version, name in MAPS.items()
            ),
        ]

    def _delete(self, chain: str, interfaces: Iterable[Interface]) -> None:
        table = self._table
        jumps = [
            table.delete_jump(f"stop masquerading {each.ip}", MAPS[each.version], each.ip.packed)
            for each in interfaces
        ]
        table.commit(*jumps, table.flush_chain(chain), table.delete_chain(chain))

    def _remove_unused(self, network: str) -> None:
        """Take a network's sets away with its last attachment, and the table with the last of all.

        The kernel refuses what somebody uses again by then. But a transaction that is refused waits
        for RCU, longer than all else of a DEL: none is tried while all sets are this network's, and
        so are the attachments that there are.
        """
        table = self._table
        own = set(Exceptions(table, network).names.values())
        for _ in range(ATTEMPTS):
            sets, objects = table.sets(), table.objects()
            if objects is None:
                return
            if table.sets() != sets:
                continue  # what was counted is not of one moment
            attachments = objects - len(sets) - 1
            exceptions = sets.difference(MAPS.values())
            if attachments == 0:
                if self._is_done(*map(table.delete_set, exceptions), *self._no_skeleton()):
                    return
                continue
            if own <= exceptions != own:
                self._is_done(*map(table.delete_set, own))
            return

    def _no_skeleton(self) -> list[Ask]:
        table = self._table
        return [
            table.flush_chain(BASE_CHAIN),
            *(table.delete_map(name) for name in MAPS.values()),
            table.delete_chain(BASE_CHAIN),
            table.delete(),
        ]

    def _is_done(self, *requests: Ask) -> bool:
        """Whether nobody used any of it, and all was there."""
        try:
            self._table.commit(*requests)
        except KernelError as error:
            if error.errno not in (errno.EBUSY, errno.ENOENT):
                raise
            return False
        return True

    def _chain_of(self, address: Interface) -> str | None:
        return self._table.jump(MAPS[address.version], address.ip.packed)

    def _addresses_of(self, chain: str) -> list[Interface]:
        return [
            ipaddress.ip_interface(key)
            for name in MAPS.values()
            for key, target in self._table.jumps(name).items()
            if target == chain
        ]

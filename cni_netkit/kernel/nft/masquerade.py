"""Masquerading in nftables.

What stands in the kernel, as `nft list table inet cni-netkit` shows it:

    map masquerade4 { type ipv4_addr : verdict; elements = { 10.1.0.2 : jump nk0123456789a } }
    map masquerade6 { type ipv6_addr : verdict }
    chain postrouting {
        type nat hook postrouting priority srcnat
        meta nfproto ipv4 ip saddr vmap @masquerade4
        meta nfproto ipv6 ip6 saddr vmap @masquerade6
    }
    chain nk0123456789a {        # one an attachment, named as its host device
        meta nfproto ipv4 ip saddr 10.1.0.2 ip daddr & 255.255.255.0 != 10.1.0.0
            ip daddr & 240.0.0.0 != 224.0.0.0 masquerade
    }

So a packet of one container among a thousand costs one look into a map, and every object of an
attachment is found by its name or its address, without a dump.
"""

import errno
import ipaddress
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Interface, IPv6Interface

from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.netlink.socket import Ask, NetlinkSocket
from cni_netkit.kernel.nft import expressions
from cni_netkit.kernel.nft.transaction import Table
from cni_netkit.spec.addresses import ip_interface

TABLE = "cni-netkit"
BASE_CHAIN = "postrouting"
ATTEMPTS = 100
"""To find the table there, or to make it; others make it and take it away meanwhile."""

MAPS = {4: "masquerade4", 6: "masquerade6"}

Interface = IPv4Interface | IPv6Interface


class Masquerading:
    """What a host masquerades for containers: a chain an attachment."""

    def __init__(self, socket: NetlinkSocket) -> None:
        self._table = Table(socket, TABLE)

    def add(self, chain: str, comment: str, addresses: Sequence[str]) -> None:
        """Masquerade what leaves the host from `addresses` ("10.1.0.2/24") to outside their nets.

        `chain` is made for it; it must not exist.
        """
        interfaces = [ip_interface(address) for address in addresses]
        skeleton: list[Ask] = []
        for _ in range(ATTEMPTS):
            try:
                return self._table.commit(*skeleton, *self._own(chain, comment, interfaces))
            except KernelError as error:
                # The table is not there yet, or another process made it, or took it away, just now.
                if error.errno != (errno.EEXIST if skeleton else errno.ENOENT):
                    raise
                failure = error
            skeleton = [] if skeleton else self._skeleton()
        raise failure

    def remove(self, chain: str, addresses: Iterable[str]) -> None:
        """Take back what `add` made; what is gone already is passed over."""
        if self._table.has_chain(chain):
            self._remove_chain(chain, addresses)
        # Also without: who removed it may have died before this.
        self._remove_unused_skeleton()

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

    def all(self) -> dict[str, str]:
        """The chain of every attachment, with its comment."""
        return {name: text for name, text in self._table.chains().items() if name != BASE_CHAIN}

    def owners(self, addresses: Iterable[str]) -> dict[str, str]:
        """The comment of the chain that has to do with an address, of those of which one has."""
        comments = self.all()
        chains = {str(each.ip): self._chain_of(each) for each in map(ip_interface, addresses)}
        return {address: comments.get(chain, "") for address, chain in chains.items() if chain}

    def _own(self, chain: str, comment: str, interfaces: Sequence[Interface]) -> list[Ask]:
        """An attachment's part. Made anew for each attempt: encoding a message uses it up."""
        table = self._table
        return [
            table.new_chain(chain, comment),
            *(table.new_rule(chain, expressions.masquerade(each)) for each in interfaces),
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
                table.new_rule(BASE_CHAIN, expressions.lookup(version, name))
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

    def _remove_unused_skeleton(self) -> None:
        """Take the table away with the last attachment.

        The kernel refuses (EBUSY) if a map has an entry or the table a chain again by then, and a
        transaction is carried out as a whole or not at all.
        """
        table = self._table
        objects = table.objects()
        if objects is None or objects > 1 + len(MAPS):
            return
        try:
            table.commit(
                table.flush_chain(BASE_CHAIN),
                *(table.delete_map(name) for name in MAPS.values()),
                table.delete_chain(BASE_CHAIN),
                table.delete(),
            )
        except KernelError as error:
            if error.errno not in (errno.EBUSY, errno.ENOENT):
                raise

    def _chain_of(self, address: Interface) -> str | None:
        return self._table.jump(MAPS[address.version], address.ip.packed)

    def _addresses_of(self, chain: str) -> list[Interface]:
        return [
            ipaddress.ip_interface(key)
            for name in MAPS.values()
            for key, target in self._table.jumps(name).items()
            if target == chain
        ]

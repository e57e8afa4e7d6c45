"""An attachment: one device of one container on one network, and the names that follow from it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

ALIAS_PREFIX = "cni-netkit"
ALIAS_BYTES = 250
"""Below IFALIASZ (include/uapi/linux/if.h) and NFT_USERDATA_MAXLEN: an alias is stored in both."""

DEVICE_ALIAS_BYTES = 255
"""IFALIASZ - 1: all that a device's alias can have."""


@dataclass(frozen=True)
class Attachment:
    """`ifname` is the device's name in the container: ifName if configured, or CNI_IFNAME."""

    network: str
    container_id: str
    ifname: str

    @property
    def host_device(self) -> str:
        """Name of the host end; found again without the container, since it is a hash."""
        return "nk" + self._digits

    @property
    def ifb_device(self) -> str:
        """Name of the ifb device that shapes what the container sends, found again likewise."""
        return "nb" + self._digits

    @property
    def alias(self) -> str:
        """The mark on everything in the kernel that is this attachment's."""
        words = (ALIAS_PREFIX, self.network, self.container_id, self.ifname)
        return " ".join(words).encode()[:ALIAS_BYTES].decode(errors="ignore")

    def alias_with(self, nic: str, queues: Sequence[int]) -> str:
        """The alias of the device that has leased these queues of a NIC: `... eth0:7,6`.

        Where not all of them fit, the last ones are left out, and "..." stands for them.
        """
        room = DEVICE_ALIAS_BYTES - len(f"{self.alias} {nic}:".encode())
        numbers = ",".join(map(str, queues))
        if len(numbers) > room:
            whole = numbers[: max(room - len("..."), 0)].rpartition(",")[0]
            numbers = whole and f"{whole},..."
        return f"{self.alias} {nic}:{numbers}" if numbers else self.alias

    @property
    def _digits(self) -> str:
        words = "\0".join((self.network, self.container_id, self.ifname))
        return hashlib.sha256(words.encode()).hexdigest()[:11]

    def __str__(self) -> str:
        return f"{self.ifname} of container {self.container_id} on network {self.network}"


def bears(alias: str | None, mark: str) -> bool:
    """Whether a device's alias is an attachment's mark, with or without its queues."""
    return alias is not None and (alias == mark or alias.startswith(f"{mark} "))


def parse_alias(alias: str | None) -> Attachment | None:
    """Read an alias back, whatever follows the names; None where it is not one of ours."""
    prefix, *names = (alias or "").split(" ")[:4]
    if len(names) != 3 or prefix != ALIAS_PREFIX:
        return None
    return Attachment(*names)

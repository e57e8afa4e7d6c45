"""An attachment: one device of one container on one network, and the names that follow from it."""

import hashlib
from dataclasses import dataclass

ALIAS_PREFIX = "cni-netkit"
ALIAS_BYTES = 250
"""Below IFALIASZ (include/uapi/linux/if.h) and NFT_USERDATA_MAXLEN: an alias is stored in both."""


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

    @property
    def _digits(self) -> str:
        words = "\0".join((self.network, self.container_id, self.ifname))
        return hashlib.sha256(words.encode()).hexdigest()[:11]

    def __str__(self) -> str:
        return f"{self.ifname} of container {self.container_id} on network {self.network}"


def parse_alias(alias: str | None) -> Attachment | None:
    """Read an alias back; None where it is not one of ours."""
    words = (alias or "").split(" ")
    if len(words) != 4 or words[0] != ALIAS_PREFIX:
        return None
    return Attachment(*words[1:])

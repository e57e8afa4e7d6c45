"""What doing the steps of an attachment brought."""

from dataclasses import dataclass, field

from cni_netkit.spec.addresses import ip_interface
from cni_netkit.spec.result import JSON


@dataclass
class Outcome:
    """What the steps of an attachment brought so far; kept in its record.

    `addresses` are {"address", "gateway"?}, `routes` and `dns` as the specification has them,
    `leases` pairs of the NIC's queue and the device's. An index is 0 until there is a device.
    `flow_context` is the RSS context that the flow rules lead into, 0 for none, and
    `foreign_contexts` those that were there before, None until rules are about to be made.
    `untouched` names steps that failed before they made anything: what is found there in their
    name is not theirs, and not theirs to take back.
    """

    addresses: list[JSON] = field(default_factory=list)
    routes: list[JSON] = field(default_factory=list)
    dns: JSON = field(default_factory=dict)
    host_index: int = 0
    host_mac: str = ""
    container_index: int = 0
    container_mac: str = ""
    container_nsid: int | None = None
    leases: list[list[int]] = field(default_factory=list)
    ifb_index: int = 0
    flow_context: int = 0
    foreign_contexts: list[int] | None = None
    untouched: list[str] = field(default_factory=list)

    def has_version(self, version: int) -> bool:
        """Whether there is an address of that IP version."""
        return any(ip_interface(each["address"]).version == version for each in self.addresses)

    def as_dict(self) -> JSON:
        """For the record."""
        return dict(vars(self))

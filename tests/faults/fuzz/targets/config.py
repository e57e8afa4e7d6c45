"""Network configurations: validated, with IPAM's and the plan that would be made of them."""

from cni_netkit import ipam, plan
from cni_netkit.attachment import Attachment
from cni_netkit.facts import Facts
from cni_netkit.spec.config import validate
from cni_netkit.spec.request import Request
from tests.faults.fuzz import mutation, oracle

mutate = mutation.mutate

FACTS = Facts(frozenset({"netkit", "single", "scrub", "queue-create", "xsk-diag"}), 1500)


def one(data: bytes) -> None:
    """Unknown keys are error 2, everything else is 7, and what is believed can be planned."""
    raw = mutation.decoded(data)
    if not isinstance(raw, dict):
        return
    attachment = Attachment("net", "c1", "eth0")
    with oracle.refusing(2, 7):
        conf = validate(raw)
        assert validate(raw) == conf
        ipam.configured(Request("ADD", "1.1.0", config=raw), conf, attachment)
        steps = plan.steps(attachment, conf, "netkit", 1500, "nic0", (7, 6), ())
        assert steps, "nothing to do"
        oracle.sound(plan.to_record(steps))

"""What Kubernetes promises to a pod: the rows that an ADD finds, as `cni-netkit dra` writes them."""

from cni_netkit.claims import Claim, Claims, Share
from tests.kernel.conftest import JSON

POD = "11111111-2222-3333-4444-555555555555"
ARGUMENTS = f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=pod;K8S_POD_UID={POD}"
"""What a runtime says of the pod (CNI_ARGS)."""

PORT = [{"proto": "tcp", "dstPort": 9000}]


def prepare(*shares: Share, name: str = "claim", pod: str = POD) -> Claim:
    """A pod's claim is prepared."""
    claim = Claim("default", name, f"{name}-uid", pod, shares)
    Claims().save(claim)
    return claim


def unprepare(*names: str) -> None:
    """Claims are unprepared."""
    for name in names:
        Claims().remove(f"{name}-uid")


def claimed(nic: str) -> JSON:
    """Promise two devices with flows of their own; the keys of a configuration with claims."""
    prepare(Share("all", nic, 2, {"flows": "address"}), Share("one", nic, 1, {"flows": PORT}))
    previous = {"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.2/24"}]}
    return {"pairing": "single", "ipam": None, "claims": True, "prevResult": previous}

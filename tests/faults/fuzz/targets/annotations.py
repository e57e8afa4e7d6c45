"""Annotations of a pod: `{"own": configuration, "annotations": {...}}`.

Who makes pods is not believed: only what the administrator lists may change.
"""

from cni_netkit.spec.annotations import CAPABILITY, choose
from cni_netkit.spec.config import validate
from tests.faults.fuzz import mutation, oracle

mutate = mutation.mutate


def one(data: bytes) -> None:
    """Keys that are not in allowAnnotations are as they were."""
    given = mutation.decoded(data)
    if not (isinstance(given, dict) and isinstance(given.get("own"), dict)):
        return
    own, runtime = given["own"], {CAPABILITY: given.get("annotations")}
    listed = own.get("allowAnnotations")
    allowed = {key for key in listed if isinstance(key, str)} if isinstance(listed, list) else set()
    with oracle.refusing(7):
        chosen = choose(own, runtime, {CAPABILITY: True}).config
        for key in {*own, *chosen} - allowed - {"lease"}:
            assert chosen.get(key) is own.get(key), key
        if not any(key.partition(".")[0] == "lease" for key in allowed):
            assert chosen.get("lease") is own.get("lease")
        _check_lease(own.get("lease"), chosen.get("lease"), allowed)
    with oracle.refusing(2, 7):
        validate({**own, "runtimeConfig": runtime, "capabilities": {CAPABILITY: True}})


def _check_lease(own: object, chosen: object, allowed: set[str]) -> None:
    """`lease` gives neither the NIC nor its queues away."""
    before = own if isinstance(own, dict) else {}
    after = chosen if isinstance(chosen, dict) else {}
    for key in ("device", "queues"):
        if f"lease.{key}" not in allowed:
            assert before.get(key) is after.get(key), key

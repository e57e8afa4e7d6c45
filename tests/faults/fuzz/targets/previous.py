"""prevResult, and what IPAM plugins answer: `{"version": ..., "result": ...}`."""

from cni_netkit.spec import result as results
from cni_netkit.spec.version import SUPPORTED, at_least
from tests.faults.fuzz import mutation, oracle

mutate = mutation.mutate


def one(data: bytes) -> None:
    """Error 1 or 6; or a result that can be rendered in every version, and read again as the same."""
    given = mutation.decoded(data)
    if not (isinstance(given, dict) and isinstance(given.get("result"), dict)):
        return
    version = given.get("version")
    with oracle.refusing(1, 6):
        result = results.read(given["result"], version if version in SUPPORTED else "1.1.0")
        assert isinstance(result.container_addresses, tuple)
        result.followed_by(result)
        for each in SUPPORTED:
            with oracle.refusing(1):
                oracle.sound(rendered := results.render(result, each))
                if at_least(each, "1.0.0"):
                    assert results.read(rendered, each) == result, rendered

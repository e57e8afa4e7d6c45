"""Which kernel this is."""

import os

from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.namespace import Namespace

FEATURES = frozenset({"netkit", "single", "scrub", "queue-create"})


def kernel_has_netkit() -> bool:
    """Whether the kernel tests can run here, without the lab: all features, and we are root."""
    if os.geteuid() != 0:
        return False
    host = Namespace.current()
    try:
        return host.features(FEATURES) == FEATURES
    except KernelError:
        return False
    finally:
        host.close()

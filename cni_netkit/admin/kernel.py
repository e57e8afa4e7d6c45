"""What the running kernel lacks, and what works all the same: for install.sh."""

import platform
import sys
from collections.abc import Iterator
from contextlib import closing

from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.plan import LACKING

WITHOUT_NETKIT = (
    'works: pairs of configurations with "fallback": "veth", as veth pairs',
    "does not work: other configurations (error 100), single devices, leased queues",
)


def shortcomings(features: frozenset[str]) -> Iterator[str]:
    """A line for each feature that is missing; without netkit what that means."""
    for name, (what, option, since, _) in LACKING.items():
        if name in features:
            continue
        yield (
            f"this kernel ({platform.release()}) has no {what}, which {option} needs "
            f"(in Linux since {since})"
        )
        if name == "netkit":
            yield from WITHOUT_NETKIT
            return


def main() -> int:
    """Print them; nothing where the kernel has everything."""
    try:
        with closing(Namespace.current()) as host:
            features = host.features(LACKING)
    except KernelError as error:
        print(f"what this kernel can do is not known: {error}")
        return 1
    for line in shortcomings(features):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())

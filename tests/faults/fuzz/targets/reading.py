"""Environment and standard input, as far as they are read before anything is looked at.

The same files as for `request`; here many more of them, with the arguments and what GC is to keep.
"""

from cni_netkit.spec import request as requests
from cni_netkit.verbs import VERBS
from tests.faults.fuzz import oracle
from tests.faults.fuzz.targets import request

mutate = request.mutate


def one(data: bytes) -> None:
    """Either a request, whose names are names, or an error with a code of the specification."""
    environment, stdin = request.read(data)
    with oracle.refusing(1, 4, 6, 7):
        found = requests.read(VERBS, environment, lambda: stdin)
        if found.verb == "VERSION":
            return
        for name in (found.network, found.container_id, found.ifname):
            assert not set(name) & set("/\n\0 "), name
            assert name not in (".", ".."), name
        for container, ifname in requests.valid_attachments(found.config):
            assert isinstance(container, str), container
            assert isinstance(ifname, str), ifname

"""CNI_ARGS."""

import os

from cni_netkit.spec import request as requests
from cni_netkit.verbs import VERBS
from tests.faults.fuzz import oracle
from tests.faults.fuzz.targets.request import ENVIRONMENT

CONFIG = b'{"cniVersion": "1.1.0", "name": "net", "type": "netkit"}'


def one(data: bytes) -> None:
    """Every pair is there, or error 4 says which is none; CNI_ARGS has no NUL, as it is a variable."""
    text = os.fsdecode(data.replace(b"\0", b""))
    with oracle.refusing(4):
        found = requests.read(VERBS, {**ENVIRONMENT, "CNI_ARGS": text}, lambda: CONFIG)
        pairs = dict(each.split("=") for each in text.split(";") if each)
        assert found.arguments == pairs, (found.arguments, pairs)

"""The CNI versions this plugin speaks, and what each of them knows."""

import re
from functools import lru_cache

from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.spec.words import shown

SUPPORTED = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
NEWEST = SUPPORTED[-1]

Version = tuple[int, int, int]


def parse(text: object) -> Version:
    """Turn "1.1.0" into (1, 1, 0). Raises error 6 where it is no version."""
    parts = text.split(".") if isinstance(text, str) else []
    if len(parts) != 3 or not all(re.fullmatch("[0-9]{1,9}", part) for part in parts):
        raise CNIError(
            Code.UNDECODABLE,
            f"cniVersion {shown(text)} in the network configuration is not of the form 1.2.3",
            f"supported: {', '.join(SUPPORTED)}",
        )
    major, minor, patch = map(int, parts)
    return major, minor, patch


def negotiate(text: object) -> str:
    """Return a configuration's version if we speak it. Raises error 1 if not, 6 if unreadable."""
    parse(text)
    if text not in SUPPORTED:
        raise CNIError(
            Code.INCOMPATIBLE_VERSION,
            f"the network configuration asks for CNI version {text}, which is not supported",
            f'config is "{text}", plugin supports {list(SUPPORTED)}',
        )
    return str(text)


def at_least(version: str, minimum: str) -> bool:
    """Whether `version` is `minimum` or later."""
    return _numbers(version) >= _numbers(minimum)


@lru_cache(16)
def _numbers(version: str) -> Version:
    return parse(version)

"""CNI errors: the codes of the specification (section 5, "Error") and our own from 100 up."""

import errno
from enum import IntEnum

SHORTAGES = frozenset(
    (errno.ENOMEM, errno.ENOBUFS, errno.ENFILE, errno.EMFILE, errno.EFAULT, errno.EINTR)
)
"""What the system is short of at the moment; it tells nothing of what was asked for."""


class Code(IntEnum):
    """What went wrong, for programs; the text says the rest."""

    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    INVALID_ENVIRONMENT = 4
    IO_FAILURE = 5
    UNDECODABLE = 6
    INVALID_CONFIGURATION = 7
    SAME_NAMESPACE = 8
    TRY_AGAIN_LATER = 11
    NOT_AVAILABLE = 50
    LIMITED_CONNECTIVITY = 51
    KERNEL_LACKS_FEATURE = 100
    NO_FREE_QUEUE = 101
    UNUSABLE_NIC = 102
    ALREADY_EXISTS = 103
    KERNEL_REFUSED = 104
    CHECK_DIFFERENCE = 105
    NO_ADDRESS = 106
    BPF_NOT_ATTACHABLE = 107
    INTERNAL = 999


class CNIError(Exception):
    """A failure as the runtime shall see it.

    `message` says what was tried, on which named thing, and what the kernel said;
    `details` what to do next, or more of the circumstances.
    """

    def __init__(self, code: int, message: str, details: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details

    def also(self, text: str) -> None:
        """Append what failed besides, for example while undoing; the first error stays."""
        self.details = f"{self.details}; {text}" if self.details else text

    def as_dict(self, version: str) -> dict[str, object]:
        """The error object of the specification, in the version of the request."""
        return {
            "cniVersion": version,
            "code": int(self.code),
            "msg": self.message,
            "details": self.details,
        }

"""The one seam where the kernel's refusals get their words."""

import errno
import os


class KernelError(Exception):
    """The kernel refused a request: what was asked, errno, and its extack text."""

    def __init__(self, asked: str, number: int, text: str = "") -> None:
        self.asked = asked
        self.errno = number
        self.text = text
        super().__init__(str(self))

    def __str__(self) -> str:
        name = errno.errorcode.get(self.errno, str(self.errno))
        said = f"{name} ({os.strerror(self.errno)})"
        if self.text:
            said += f': "{self.text}"'
        return f"{self.asked}: the kernel answered {said}"


class LostAnswer(KernelError):
    """A request was sent, or may have been, and its answer did not come: it may be carried out."""


class LackingKind(KernelError):
    """The kernel was built without something that it knows by this name, as tc(8) does."""

    def __init__(self, kind: str, refusal: KernelError) -> None:
        self.kind = kind
        super().__init__(refusal.asked, refusal.errno, refusal.text)


class NoNamespace(Exception):
    """A path that shall name a network namespace does not."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"network namespace {path}: {reason}")


class NoThread(Exception):
    """No thread can be started to enter a network namespace."""

    def __init__(self) -> None:
        super().__init__("enter a network namespace: the system starts no more threads")


class ProgramError(Exception):
    """A BPF program cannot be loaded or attached: what was tried, why not, and what to do."""

"""The plugin executable: environment and standard input in, one JSON document out, exit status."""

import json
import os
import sys
from typing import TYPE_CHECKING

from cni_netkit import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_netkit.verbs import Answer

NO_PLUGINS = "PYDANTIC_DISABLE_PLUGINS"


def main() -> int:
    """Answer one request of a container runtime."""
    if not os.environ.get("CNI_COMMAND"):
        from cni_netkit.spec.version import SUPPORTED

        print(
            f"netkit {__version__}: CNI plugin that connects containers with netkit devices; "
            f"CNI versions {', '.join(SUPPORTED)}",
            file=sys.stderr,
        )
        return 0
    _open_what_is_closed()
    # Standard output is for the result alone; whatever else prints goes to standard error.
    output = os.dup(1)
    os.dup2(2, 1)
    handle = _load()
    from cni_netkit.traces import traced

    on_terminal = os.isatty(output) and os.isatty(2)
    with traced(os.environ) as course:
        environment = course.environment if course else os.environ
        answer = handle(environment, _read_input, on_terminal=on_terminal)
        if answer.output is not None:
            with os.fdopen(output, "w") as stream:
                stream.write(json.dumps(answer.output) + "\n")
        if course and answer.status:
            course.error = answer.output
    _forget_what_nobody_reads()
    return answer.status


def _open_what_is_closed() -> None:
    """Whatever is opened later must not become standard input, output or error by its number.

    Where the caller closed one, writing to it goes nowhere, and reading fails.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_WRONLY)


def _forget_what_nobody_reads() -> None:
    """What is left of the log would be tried again at the end, and make the exit status 120."""
    try:
        if sys.stderr:
            sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _load() -> "Callable[..., Answer]":
    """Import the plugin proper.

    pydantic looks through all installed packages for plugins of its own, which takes a fifth of the
    whole import; there are none. The variable is for pydantic alone, not for delegated plugins.
    """
    given = os.environ.get(NO_PLUGINS)
    os.environ[NO_PLUGINS] = "__all__"
    try:
        from cni_netkit.verbs import handle
    finally:
        if given is None:
            del os.environ[NO_PLUGINS]
        else:
            os.environ[NO_PLUGINS] = given
    return handle


def _read_input() -> bytes:
    # By number: if the caller closed standard input, there is no sys.stdin.
    with open(0, "rb", closefd=False) as stream:
        return stream.read()


if __name__ == "__main__":
    sys.exit(main())

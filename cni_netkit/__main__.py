"""The plugin executable: environment and standard input in, one JSON document out, exit status."""

import json
import os
import sys

from cni_netkit import __version__


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
    # Standard output is for the result alone; whatever else prints goes to standard error.
    output = os.dup(1)
    os.dup2(2, 1)
    from cni_netkit.verbs import handle

    answer = handle(os.environ, _read_input)
    if answer.output is not None:
        with os.fdopen(output, "w") as stream:
            stream.write(json.dumps(answer.output) + "\n")
    return answer.status


def _read_input() -> bytes:
    # By number: if the caller closed standard input, there is no sys.stdin.
    with open(0, "rb", closefd=False) as stream:
        return stream.read()


if __name__ == "__main__":
    sys.exit(main())

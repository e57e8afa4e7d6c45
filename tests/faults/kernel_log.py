"""What the kernel says of itself while it is put under stress: /dev/kmsg, see Documentation/ABI/testing/dev-kmsg."""

import os
import re
from collections.abc import Iterator

KMSG = "/dev/kmsg"
RECORD_BYTES = 8192

ALARMS = re.compile(
    r"WARNING: |BUG: |\bBUG\b at|Oops|kernel BUG|INFO: (possible|task|rcu|trying)|cut here"
    r"|UBSAN|KASAN|ODEBUG|refcount_t: |ref_tracker: .*(leaked|has \d+ users)|list_(add|del) corruption"
    r"|unregister_netdevice: waiting|sleeping function called|suspicious RCU|scheduling while atomic"
    r"|Poison overwritten|Redzone|Object already free|still has locks held|memory leak"
)
"""Harm: lockdep, reference trackers, DEBUG_OBJECTS, SLUB's poison. A failed allocation is none."""


class Log:
    """What is said from now on."""

    def __init__(self) -> None:
        self._descriptor = os.open(KMSG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(self._descriptor, 0, os.SEEK_END)

    def close(self) -> None:
        os.close(self._descriptor)

    def alarms(self) -> list[str]:
        """What must not be; with a few of the lines that follow it."""
        lines = list(self._lines())
        return [
            "\n".join(lines[number : number + 30])
            for number, line in enumerate(lines)
            if ALARMS.search(line)
        ][:3]

    def _lines(self) -> Iterator[str]:
        while True:
            try:
                record = os.read(self._descriptor, RECORD_BYTES)
            except BlockingIOError:
                return
            except BrokenPipeError:
                continue  # what was not read in time is gone
            yield record.decode(errors="replace").partition(";")[2].splitlines()[0]

"""What is imported when it is asked for: by several threads of a new agent at the same time."""

import subprocess
import sys

ALL_AT_ONCE = """
import sys, threading
sys.setswitchinterval(1e-6)
from cni_netkit.kernel.namespace import Namespace

doors = ["queues", "masquerading", "shaping", "ethtool"]
barrier, failures = threading.Barrier(len(doors)), []

def ask(door):
    namespace = Namespace.current()
    barrier.wait()
    try:
        getattr(namespace, door)
    except Exception as failure:
        failures.append(f"{door}: {failure!r}")
    namespace.close()

threads = [threading.Thread(target=ask, args=(door,)) for door in doors]
for thread in threads: thread.start()
for thread in threads: thread.join()
sys.exit("; ".join(failures) or 0)
"""


def test_first_requests_may_come_together() -> None:
    """Whatever they ask the kernel for; every time, since it depends on the moment."""
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", ALL_AT_ONCE], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")

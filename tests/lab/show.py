"""The main job, once, to be looked at: called by ./demo in fresh namespaces."""

import json
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.kernel import judge

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "conf" / "30-single-af-xdp.conflist"
XSK_SOCKET = "/run/cni-netkit/xsk.sock"
SENDER = "sender"
QUEUE = 7
"""Of the NIC: the highest of the pool, which is the first to be lent."""

SECONDS = 20
"""After which a frame is not waited for any longer."""

MOUNTS = {"tmpfs run": "/run", "tmpfs cni": "/var/lib/cni", "sysfs": "/sys", "bpf": "/sys/fs/bpf"}

PLAIN = bool(os.environ.get("NO_COLOR")) or not sys.stdout.isatty()


def say(text: str) -> None:
    """A heading."""
    print(f"\n# {text}" if PLAIN else f"\n\033[1m# {text}\033[0m", flush=True)


def sh(command: str) -> None:
    """Run a command as it would be typed, and show what it prints."""
    print(f"$ {command}", flush=True)
    subprocess.run(command, shell=True, check=True)


def netkit(verb: str, configuration: dict[str, object]) -> dict[str, object]:
    """Call the plugin as a runtime does; its answer."""
    variables = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": "pod",
        "CNI_NETNS": "/run/netns/pod",
        "CNI_IFNAME": "eth0",
    }
    print("$", *(f"{name}={value}" for name, value in variables.items()), "netkit", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "cni_netkit"],
        input=json.dumps(configuration).encode(),
        stdout=subprocess.PIPE,
        env={**os.environ, **variables, "CNI_PATH": "/opt/cni/bin"},
    )
    answer = json.loads(done.stdout) if done.stdout else {}
    if answer:
        compact(answer)
    else:
        print(f"(exit status {done.returncode})", flush=True)
    if done.returncode:
        sys.exit(f"{verb} failed")
    return dict(answer)


def compact(document: object) -> None:
    """Print JSON in few lines."""
    print(textwrap.fill(json.dumps(document), 79, break_on_hyphens=False), flush=True)


def leases(nic: str) -> None:
    """Who holds the NIC's queues, read from the kernel by raw netlink."""
    found = judge.leases(nic)
    for queue, (index, number) in sorted(found.items()):
        print(f"netlink: queue {queue} of {nic} is leased to queue {number} of device {index}")
    if not found:
        print(f"netlink: no queue of {nic} is leased")


def make_nic(number: int, queues: int) -> str:
    """A netdevsim NIC; its device name."""
    Path("/sys/bus/netdevsim/new_device").write_text(f"{number} 1 {queues}")
    driver = Path(f"/sys/bus/netdevsim/devices/netdevsim{number}/net")
    (name,) = judge.wait_for(lambda: os.listdir(driver) if driver.exists() else [], "the NIC")
    return str(name)


def connect(nic: str) -> None:
    """Another machine, a namespace, with a NIC that is linked to ours.

    What it sends arrives on QUEUE, which on a real NIC a rule for flows would see to. netdevsim keeps
    the number that the sender chose by XPS; a number from 0 on becomes one from 1 on (skbuff.h).
    """
    other = make_nic(1, 2 * QUEUE)
    judge.run("ip", "netns", "add", SENDER)
    judge.run("ip", "link", "set", other, "netns", SENDER)
    # Nothing but what is shown: no neighbour discovery.
    judge.run("ip", "-n", SENDER, "link", "set", other, "up", "addrgenmode", "none")
    judge.run("ip", "-n", SENDER, "address", "add", "192.0.2.1/24", "dev", other)
    mac = judge.link(nic)["address"]
    judge.run("ip", "-n", SENDER, "neigh", "add", "192.0.2.10", "lladdr", mac, "dev", other)
    queues = f"/sys/class/net/{other}/queues"
    script = f"for each in {queues}/tx-*; do echo 0 >$each/xps_cpus; done; "
    script += f"echo {judge.every_processor()} >{queues}/tx-{QUEUE + 1}/xps_cpus"
    judge.run("sh", "-c", script, netns=SENDER)
    judge.link_nics(nic, other, SENDER)


@contextmanager
def agent() -> Iterator[None]:
    """The node's agent, listening."""
    with (
        open("/run/agent.log", "wb") as log,
        subprocess.Popen(["cni-netkit", "agent"], stderr=log) as process,
    ):

        def listens() -> bool:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
                return client.connect_ex(XSK_SOCKET) == 0

        try:
            judge.wait_for(listens, "the agent listens")
            yield
        finally:
            process.terminate()


def receive(text: str) -> None:
    """Have the pod's application receive what the other machine sends, and show both."""
    print("pod$ xsk_receive.py --copy eth0 1", flush=True)
    # Without any capability but CAP_NET_RAW; Python without anything of ours.
    enter = ["timeout", str(SECONDS), "ip", "netns", "exec", "pod", "setpriv", "--no-new-privs"]
    enter += ["--bounding-set=-all,+net_raw", "--inh-caps=-all"]
    program = ["/usr/bin/python3", "-I", str(ROOT / "examples" / "xsk_receive.py")]
    with subprocess.Popen(
        [*enter, *program, "--copy", "eth0", "1"], stdout=subprocess.PIPE, text=True
    ) as pod:
        assert pod.stdout
        print(pod.stdout.readline(), end="", flush=True)
        send = f'echo -n "{text}" >/dev/udp/192.0.2.10/9000'
        print(f"{SENDER}$ {send}\npod: ", end="", flush=True)
        judge.run("bash", "-c", send, netns=SENDER)
        arrived = pod.stdout.readline()
        print(arrived, end="", flush=True)
        pod.terminate()
    if not arrived.endswith(f"{text}\n"):
        sys.exit("it has not arrived")


def main() -> None:
    """ADD, look, CHECK, receive, DEL, look."""
    os.makedirs("/var/lib/cni", exist_ok=True)
    for kind, folder in MOUNTS.items():
        subprocess.run(["mount", "-t", kind.split()[0], kind, folder], check=True)
    if PLAIN:
        os.environ["TERM"] = "dumb"
    os.makedirs("/run/netns")
    say(f"Linux {os.uname().release}: a host, its NIC of eight queues (netdevsim), and a pod")
    nic = make_nic(0, 8)
    sh(f"ip link set {nic} up; ip netns add pod; ip -br link show {nic}")
    connect(nic)

    say("The NIC is prepared once: queues 4 to 7 for AF_XDP (by copying: netdevsim has no other)")
    sh(f"cni-netkit nic prepare {nic} --role af_xdp --queues 4-7 --copy")

    conflist = json.loads(EXAMPLE.read_text())
    (plugin,) = conflist["plugins"]
    configuration = {"cniVersion": conflist["cniVersion"], "name": conflist["name"], **plugin}
    say(f"ADD with conf/{EXAMPLE.name}")
    compact(plugin)
    result = netkit("ADD", configuration)

    say("What the kernel has: the pod's device, which has a queue of the NIC")
    sh("ip -n pod -d addr show eth0 | cut -c -79")
    sh("cni-netkit leases | grep -v free")
    leases(nic)

    say("CHECK")
    netkit("CHECK", {**configuration, "prevResult": result})

    say("Traffic: a frame from the wire, through the NIC's queue, into the pod's AF_XDP socket")
    with agent():
        receive("hello, queue")

    say("DEL")
    netkit("DEL", configuration)
    sh("ip -n pod -br link")
    leases(nic)
    for number in (0, 1):
        Path("/sys/bus/netdevsim/del_device").write_text(str(number))


if __name__ == "__main__":
    main()

"""The main job, once, to be looked at: called by ./demo in a guest or in fresh namespaces."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.kernel import judge

EXAMPLE = Path(__file__).parents[2] / "conf" / "20-pair-with-lease.conflist"
NETNS = "/run/netns/pod"


def say(text: str) -> None:
    """A heading."""
    print(f"\n\033[1m# {text}\033[0m", flush=True)


def sh(command: str) -> None:
    """Run a command as it would be typed, and show what it prints."""
    print(f"$ {command}", flush=True)
    subprocess.run(command, shell=True, check=True)


def netkit(verb: str, configuration: dict[str, object]) -> dict[str, object]:
    """Call the plugin as a runtime does; its answer."""
    print(f"$ CNI_COMMAND={verb} CNI_CONTAINERID=pod CNI_NETNS={NETNS} CNI_IFNAME=eth0 netkit")
    done = subprocess.run(
        [sys.executable, "-m", "cni_netkit"],
        input=json.dumps(configuration).encode(),
        stdout=subprocess.PIPE,
        env={
            **os.environ,
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": "pod",
            "CNI_NETNS": NETNS,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": "/opt/cni/bin",
        },
    )
    answer = json.loads(done.stdout) if done.stdout else {}
    print(json.dumps(answer, indent=2) if answer else f"(exit status {done.returncode})")
    if done.returncode:
        sys.exit(f"{verb} failed")
    return dict(answer)


def leases(nic: str) -> None:
    """Who holds the NIC's queues, read from the kernel."""
    found = judge.leases(nic)
    for queue, (index, number) in sorted(found.items()):
        print(
            f"queue {queue} of {nic} is leased to queue {number} of the device with index {index}"
        )
    if not found:
        print(f"no queue of {nic} is leased")


def main() -> None:
    """ADD, look, CHECK, DEL, look."""
    for folder in ("/var/lib/cni", "/run"):
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)
    if not os.environ.get("CNI_NETKIT_IN_LAB"):  # there the machine's own shows the right devices
        subprocess.run(["mount", "-t", "sysfs", "sysfs", "/sys"], check=True)
    say("A host with a NIC of eight queues (netdevsim), and a pod")
    Path("/sys/bus/netdevsim/new_device").write_text("0 1 8")
    driver = Path("/sys/bus/netdevsim/devices/netdevsim0/net")
    (nic,) = judge.wait_for(lambda: os.listdir(driver) if driver.exists() else [], "the NIC")
    sh(f"ip link set {nic} up; mkdir -p /run/netns; ip netns add pod; uname -r")

    conflist = json.loads(EXAMPLE.read_text())
    configuration = {
        "cniVersion": conflist["cniVersion"],
        "name": conflist["name"],
        **conflist["plugins"][0],
    }
    configuration["lease"]["device"] = nic
    configuration["lease"]["flows"] = "none"  # netdevsim has no ntuple filters

    say("The NIC is prepared, once")
    sh(f"cni-netkit nic prepare {nic} --role io_uring --queues 4-7; cni-netkit nic show {nic}")

    say(f"The configuration (conf/{EXAMPLE.name})")
    print(json.dumps(configuration, indent=2))

    say("ADD")
    result = netkit("ADD", configuration)

    say("What the kernel has: the pair, the addresses, the leased queue")
    sh("ip -br link; ip -d link show type netkit")
    sh("ip -n pod -d addr show eth0; ip -n pod route")
    leases(nic)
    address = str(judge.ip("addr", "show", "dev", "eth0", netns="pod")[0]["addr_info"][0]["local"])
    sh(f"ping -c 1 {address}")

    say("CHECK")
    netkit("CHECK", {**configuration, "prevResult": result})

    say("DEL")
    netkit("DEL", configuration)
    sh("ip -br link; ip -n pod -br link")
    leases(nic)
    Path("/sys/bus/netdevsim/del_device").write_text("0")


if __name__ == "__main__":
    main()

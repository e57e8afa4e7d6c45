"""What is done on a node that systemd has booted, and judged there: standard library only.

Runs in the lab's guest as root: `python3 guest.py NAME ...` carries out the steps named, in that order,
and prints one JSON object for each: {"step": NAME, "problem": null or a text}.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PLUGIN = Path("/opt/cni/bin/netkit")
PYTHON_PLUGIN = Path("/opt/cni/bin/netkit-python")
CURRENT = Path("/opt/cni-netkit/current")
SOCKET = Path("/run/cni-netkit/agent.sock")
SERVICE, SOCKET_UNIT = "cni-netkit-agent.service", "cni-netkit-agent.socket"
DEADLINE = 60.0
PROBE = """#!/usr/bin/python3
# An IPAM plugin that does what real ones do: state, a daemon's socket, an API server, the container.
import json, os, socket, subprocess, sys
conf = json.load(sys.stdin)
if os.environ["CNI_COMMAND"] != "VERSION":
    os.makedirs("/var/lib/probe", exist_ok=True)
    open("/var/lib/probe/state", "w").close()
    open("/run/probe", "w").close()
    socket.create_connection(("127.0.0.1", conf["ipam"]["port"]), 10).close()
if os.environ["CNI_COMMAND"] == "ADD":
    subprocess.run(["nsenter", "--net=" + os.environ["CNI_NETNS"], "ip", "link"], check=True, stdout=2)
    name = os.path.basename(os.environ["CNI_NETNS"])
    subprocess.run(["ip", "netns", "exec", name, "ip", "link"], check=True, stdout=2)
    print(json.dumps({"cniVersion": "1.0.0", "ips": [{"address": "10.9.0.2/24", "gateway": "10.9.0.1"}]}))
"""

Json = dict[str, Any]


def run(*command: str, check: bool = True) -> str:
    """Run a command; what it prints on both channels."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert not check or done.returncode == 0, (
        f"{' '.join(command)}: {done.returncode}: {done.stdout}"
    )
    return done.stdout


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """Wait until the condition holds; fail at the deadline."""
    deadline = time.monotonic() + DEADLINE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {DEADLINE} s: {what}"
        time.sleep(0.05)
    return value


def configuration(**keys: Any) -> Json:
    """A masqueraded l3 pair unless told otherwise."""
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]]}
    base = {"cniVersion": "1.0.0", "name": "net", "type": "netkit", "ipMasq": True, "ipam": ipam}
    return {key: value for key, value in {**base, **keys}.items() if value is not None}


def call(verb: str, name: str, conf: Json, *, netns: str | None = None) -> tuple[int, str]:
    """Call the plugin as a runtime does; exit status and answer."""
    variables = {
        "PATH": os.environ["PATH"],
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": name,
        "CNI_NETNS": f"/run/netns/{name}" if netns is None else netns,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/opt/cni/bin",
    }
    done = subprocess.run(
        [PLUGIN], input=json.dumps(conf), stdout=subprocess.PIPE, env=variables, text=True
    )
    return done.returncode, done.stdout


def do(verb: str, name: str, conf: Json, *, netns: str | None = None) -> str:
    """A call that must work; its answer."""
    status, output = call(verb, name, conf, netns=netns)
    assert status == 0, f"{verb} {name}: {output}"
    return output


@contextmanager
def container(name: str):  # type: ignore[no-untyped-def]
    """A fresh network namespace."""
    run("ip", "netns", "add", name)
    try:
        yield name
    finally:
        run("ip", "netns", "del", name)


@contextmanager
def only_the_agent():  # type: ignore[no-untyped-def]
    """Within, what the agent does not answer fails: there is no Python entry point."""
    aside = PYTHON_PLUGIN.with_name("aside")
    PYTHON_PLUGIN.rename(aside)
    try:
        yield
    finally:
        aside.rename(PYTHON_PLUGIN)


def state(unit: str) -> str:
    return run("systemctl", "is-active", unit, check=False).strip()


def agent() -> int:
    """The process number of the agent that runs."""
    return int(run("systemctl", "show", "--property=MainPID", "--value", SERVICE))


def version_of_agent() -> str:
    """The folder of the environment from which the agent was started."""
    command = Path(f"/proc/{agent()}/cmdline").read_bytes().split(b"\0")[0].decode()
    return Path(command).parents[1].name


def add_and_delete() -> None:
    """The main job through the agent: devices, a packet, masquerading, and nothing afterwards."""
    log = Path("/var/log/netkit.log")
    conf = configuration(log={"level": "debug", "file": str(log)})
    before = run("ip", "-o", "link")
    with container("c1"), only_the_agent():
        # Which address it is depends on how many there were before.
        address = json.loads(do("ADD", "c1", conf))["ips"][0]["address"].partition("/")[0]
        assert "netkit" in run("ip", "-d", "link", "show", "type", "netkit")
        run("ip", "netns", "exec", "c1", "ping", "-c", "1", "-W", "5", "10.88.0.1")
        assert f"{address} : jump" in run("nft", "list", "table", "inet", "cni-netkit")
        assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "1\n"
        do("DEL", "c1", conf)
        assert "eth0" not in run("ip", "-n", "c1", "link")
    assert run("ip", "-o", "link") == before
    assert "c1" in log.read_text()


def booted() -> None:
    """After a boot the socket listens, and the agent answers what comes in over it."""
    wait_for(lambda: state(SOCKET_UNIT) == "active", "the socket listens")
    wait_for(lambda: state(SERVICE) == "active", "the agent runs")
    assert SOCKET.stat().st_mode & 0o777 == 0o600
    add_and_delete()


def fresh_install() -> None:
    """An installation on a running node starts the agent at once."""
    assert not PLUGIN.exists()
    said = run("/media/install.sh", "--wheels", "/media/one", "--conflist")
    print(said, file=sys.stderr)
    assert "warning" not in said, "this kernel has everything"
    assert (state(SOCKET_UNIT), state(SERVICE)) == ("active", "active")
    assert version_of_agent() == CURRENT.resolve().name
    add_and_delete()


def hardened() -> None:
    """The kernel confirms what the unit says."""
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{agent()}/status").read_text().splitlines()
        if ":\t" in line
    )
    # NET_ADMIN 12, NET_RAW 13, SYS_PTRACE 19, SYS_ADMIN 21, DAC_OVERRIDE 1 (linux/capability.h)
    allowed = sum(1 << number for number in (1, 12, 13, 19, 21))
    assert int(status["CapBnd"], 16) == int(status["CapEff"], 16) == allowed, status["CapEff"]
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    inside = ["nsenter", f"--mount=/proc/{agent()}/ns/mnt", "touch"]
    assert "Read-only" in run(*inside, "/usr/there", check=False)
    assert "Read-only" in run(*inside, "/etc/there", check=False)
    run(*inside, "/var/lib/cni/there")
    Path("/var/lib/cni/there").unlink()


def names_of_namespaces() -> None:
    """A namespace that is named after the agent's start is found by its path: DEL without CNI_NETNS."""
    conf = configuration(pairing="single", ipMasq=None, ipam=None)
    with container("c2"), only_the_agent():
        do("ADD", "c2", conf)
        assert "eth0" in run("ip", "-n", "c2", "link")
        do("DEL", "c2", conf, netns="")
        assert "eth0" not in run("ip", "-n", "c2", "link")
    # Nothing of the agent keeps a namespace alive whose name is gone.
    with container("c3"):
        run("ip", "link", "add", "pinned", "type", "veth", "peer", "inside", "netns", "c3")
    wait_for(lambda: "pinned" not in run("ip", "link"), "the namespace dies with its name")


def delegated_ipam() -> None:
    """A child of the agent may do what IPAM plugins do."""
    import socket

    probe = Path("/opt/cni/bin/probe")
    probe.write_text(PROBE)
    probe.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as server, container("c4"), only_the_agent():
        conf = configuration(ipam={"type": "probe", "port": server.getsockname()[1]})
        assert "10.9.0.2/24" in do("ADD", "c4", conf)
        do("DEL", "c4", conf)
    assert Path("/var/lib/probe/state").exists()
    assert Path("/run/probe").exists()
    probe.unlink()


def af_xdp() -> None:
    """The unit lets the agent load and pin the XDP program of a NIC, and put a socket into its map."""
    listed = Path("/etc/cni-netkit/nics.json")
    Path("/sys/bus/netdevsim/new_device").write_text("1 1 4")
    (nic,) = os.listdir("/sys/bus/netdevsim/devices/netdevsim1/net")
    run("ip", "link", "set", nic, "up")
    wanted = {"device": nic, "role": "af_xdp", "queues": "2-3", "copy": True}
    listed.parent.mkdir(exist_ok=True)
    listed.write_text(json.dumps({"nics": [wanted]}))
    run("systemctl", "restart", SERVICE)
    wait_for(lambda: "prog/xdp" in run("ip", "-d", "link", "show", nic), "the NIC is prepared")
    assert Path("/sys/fs/bpf/cni-netkit", nic, "link").exists()
    lease = {"device": nic, "workload": "af_xdp"}
    conf = configuration(pairing="single", ipMasq=None, ipam=None, lease=lease)
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    nobody += ["--inh-caps=-all,+net_raw", "--ambient-caps=-all,+net_raw"]
    with container("c8"), only_the_agent():
        do("ADD", "c8", conf)
        receive = [*nobody, "python3", "/xsk_receive.py", "--copy", "eth0", "1"]
        enter = ["ip", "netns", "exec", "c8"]
        with subprocess.Popen([*enter, *receive], stdout=subprocess.PIPE) as client:
            assert client.stdout
            assert client.stdout.readline() == b"receiving\n"
            do("DEL", "c8", conf)
            client.kill()
    listed.unlink()
    run("systemctl", "restart", SERVICE)
    run(str(CURRENT / "bin" / "cni-netkit"), "nic", "restore", nic)
    assert "prog/xdp" not in run("ip", "-d", "link", "show", nic)
    assert not Path("/sys/fs/bpf/cni-netkit", nic).exists()
    Path("/sys/bus/netdevsim/del_device").write_text("1")


def installed_while_requests_come(*arguments: str) -> None:
    """Run install.sh while containers come and go; no request may fail."""
    failures: list[str] = []
    done = 0
    finished = threading.Event()
    socket_before, process_before = SOCKET.stat().st_ino, agent()

    def come_and_go(name: str) -> None:
        nonlocal done
        result = "{}"
        conf = configuration()
        with container(name):
            while not finished.is_set():
                for verb in ("ADD", "CHECK", "DEL"):
                    more = {"prevResult": json.loads(result)} if verb == "CHECK" else {}
                    status, output = call(verb, name, {**conf, **more})
                    result = output if verb == "ADD" and not status else "{}"
                    done += 1
                    if status:
                        failures.append(f"{verb} {name}: {output}")

    threads = [threading.Thread(target=come_and_go, args=(f"r{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        print(run("/media/install.sh", *arguments), file=sys.stderr)
    finally:
        finished.set()
        for thread in threads:
            thread.join()
    assert not failures, f"{len(failures)} of {done} requests failed: {failures[:3]}"
    assert done > 20, done
    assert SOCKET.stat().st_ino == socket_before
    assert agent() != process_before
    assert version_of_agent() == CURRENT.resolve().name
    print(f"{done} requests, none failed", file=sys.stderr)


def upgrade() -> None:
    """Another version, put into use while containers come and go."""
    before = CURRENT.resolve()
    installed_while_requests_come("--wheels", "/media/two")
    assert CURRENT.resolve() != before
    assert before.is_dir()


def rollback() -> None:
    """Back, and forth again, while containers come and go."""
    before = CURRENT.resolve()
    installed_while_requests_come("--rollback")
    assert CURRENT.resolve() != before
    installed_while_requests_come("--rollback")
    assert CURRENT.resolve() == before


def records_across_versions() -> None:
    """What the newer version recorded the older one leaves alone; what that did the newer one knows."""
    conf = configuration(cniVersion="1.1.0")

    def check(name: str) -> None:
        do("CHECK", name, {**conf, "prevResult": json.loads(results[name])})

    run("/media/install.sh", "--wheels", "/media/three")
    with container("newer"), container("older"), only_the_agent():
        results = {"newer": do("ADD", "newer", conf)}
        run("/media/install.sh", "--rollback")
        results["older"] = do("ADD", "older", conf)
        alive = run("ip", "-o", "link")
        valid = {"cni.dev/valid-attachments": [{"containerID": "older", "ifname": "eth0"}]}
        previous = {"prevResult": json.loads(results["newer"])}
        for verb, more in (("CHECK", previous), ("DEL", {}), ("GC", valid)):
            status, output = call(verb, "newer", {**conf, **more})
            assert (status, json.loads(output)["code"]) == (1, 11), f"{verb}: {output}"
            assert "container newer on network net was made by a newer release" in output, output
        assert run("ip", "-o", "link") == alive
        check("older")
        run("/media/install.sh", "--rollback")
        for name in ("newer", "older"):
            check(name)
            run("ip", "netns", "exec", name, "ping", "-c", "1", "-W", "5", "10.88.0.1")
            do("DEL", name, conf)
    assert attachments() == []
    run("/media/install.sh", "--rollback")


def nothing_to_do() -> None:
    """The same version again leaves the agent alone."""
    before = agent()
    assert "nothing to do" in run("/media/install.sh", "--wheels", "/media/two")
    assert agent() == before


def what_is_stopped_stays_stopped() -> None:
    """An upgrade does not start what the administrator has stopped and disabled."""
    run("systemctl", "disable", "--now", SOCKET_UNIT, SERVICE)
    assert not SOCKET.exists()
    run("/media/install.sh", "--rollback")
    assert (state(SOCKET_UNIT), state(SERVICE)) == ("inactive", "inactive")
    with container("c5"):
        do("ADD", "c5", configuration())
        do("DEL", "c5", configuration())
    run("systemctl", "enable", "--now", SOCKET_UNIT, SERVICE)
    run("/media/install.sh", "--rollback")


def killed() -> None:
    """Who comes while the agent is dead waits for the next one."""
    with container("c6"), only_the_agent():
        os.kill(agent(), signal.SIGKILL)
        do("ADD", "c6", configuration())
        do("DEL", "c6", configuration())


def broken_agent() -> None:
    """An agent that cannot start is given up, and netkit works by itself."""
    program = CURRENT.resolve() / "bin" / "cni-netkit"
    aside = program.with_name("aside")
    program.rename(aside)
    os.kill(agent(), signal.SIGKILL)
    wait_for(lambda: state(SOCKET_UNIT) == "failed", "systemd gives the socket up")
    with container("c7"):
        do("ADD", "c7", configuration())
        do("DEL", "c7", configuration())
    aside.rename(program)
    run("systemctl", "reset-failed", SOCKET_UNIT, SERVICE)
    run("systemctl", "start", SOCKET_UNIT)
    add_and_delete()


def uninstall() -> None:
    """Nothing runs afterwards; the record of a living container stays and is told."""
    run("ip", "netns", "add", "alive")
    do("ADD", "alive", configuration())
    said = run("/media/install.sh", "--uninstall")
    assert "1 attachments of containers are still recorded" in said, said
    assert [each.name for each in Path("/var/lib/cni/netkit/net").iterdir()] == ["alive:eth0.json"]
    for gone in (PLUGIN, PYTHON_PLUGIN, CURRENT.parent, SOCKET.parent):
        assert not gone.exists(), gone
    assert not Path("/etc/cni/net.d/10-netkit.conflist").exists()
    assert "not-found" in run("systemctl", "show", "--property=LoadState", SERVICE, SOCKET_UNIT)
    assert "cni-netkit" not in run("ps", "-e", "-o", "args") if Path("/bin/ps").exists() else True
    assert "eth0" in run("ip", "-n", "alive", "link")


def before_a_reboot() -> None:
    """Containers that nobody will DEL: the machine is switched off."""
    for name in ("lost1", "lost2"):
        run("ip", "netns", "add", name)
        do("ADD", name, configuration())
    # The first is of the time before the uninstallation.
    assert attachments() == ["alive", "lost1", "lost2"]


def after_a_reboot() -> None:
    """What they had is still taken; cni-netkit gc gives it back, with the agent running."""
    wait_for(lambda: state(SERVICE) == "active", "the agent runs")
    addresses = Path("/var/lib/cni/networks/net")
    with container("new"), only_the_agent():
        do("ADD", "new", configuration())
        assert attachments() == ["alive", "lost1", "lost2", "new"]
        taken = {each.name for each in addresses.iterdir() if each.name[0] == "1"}
        assert len(taken) == 4, taken
        before = run("ip", "-o", "link")
        for said in (run("cni-netkit", "gc", "--dry-run"), run("cni-netkit", "gc")):
            assert said.count("release") == said.count("made before the last boot") == 3, said
            assert "kept 1: its network namespace is there" in said, said
        assert attachments() == ["new"]
        (left,) = [each.name for each in addresses.iterdir() if each.name[0] == "1"]
        assert left in json.dumps(json.loads(run("cni-netkit", "list", "--json")))
        assert run("ip", "-o", "link") == before
        run("ip", "netns", "exec", "new", "ping", "-c", "1", "-W", "5", "10.88.0.1")
        do("DEL", "new", configuration())
    assert attachments() == []
    assert "table inet cni-netkit" not in run("nft", "list", "tables")


def attachments() -> list[str]:
    """The containers that have records."""
    report = json.loads(run("cni-netkit", "list", "--json"))
    return sorted(each["containerID"] for each in report["attachments"])


def main() -> int:
    """Carry out the steps and report each; the rest is not tried after one that failed."""
    status = 0
    for name in sys.argv[1:]:
        started = time.monotonic()
        problem = None
        try:
            if not status:
                globals()[name]()
            else:
                problem = "not tried, since a step before it failed"
        except Exception:
            status, problem = 1, traceback.format_exc()
        seconds = round(time.monotonic() - started, 1)
        print(json.dumps({"step": name, "problem": problem, "seconds": seconds}), flush=True)
    if status:
        print(run("journalctl", "--no-pager", "-n", "60", check=False), file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())

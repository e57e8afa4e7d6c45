"""What is tried: for each role the NIC is prepared, queues leased and used, and all is put back."""

import argparse
import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.hardware import traffic
from tests.hardware.machine import (
    JSON,
    NETWORK,
    Machine,
    differences,
    executable,
    expect_same,
    sysctls,
)
from tests.hardware.runner import Failed, NotRun, Step
from tests.kernel import judge

CONTAINER = "container"
ENVIRONMENT, PEER, PEER_BACK, AGENT = "environment", "peer", "peer back", "agent"


def plan(arguments: argparse.Namespace, machine: Machine) -> list[Step]:
    """Every step, in order."""
    whole = Whole(arguments, machine)
    roles = ["io_uring", "af_xdp"] if arguments.role == "both" else [arguments.role]
    return [
        Step(ENVIRONMENT, whole.environment),
        Step(PEER, whole.peer, (ENVIRONMENT,)),
        *(step for role in roles for step in Role(role, arguments, machine).steps()),
        Step(PEER_BACK, whole.peer_back, undoes=PEER),
        Step("as found", whole.as_found, undoes=ENVIRONMENT),
    ]


class Whole:
    """What frames all roles: what this machine is, and whether it is that again at the end."""

    def __init__(self, arguments: argparse.Namespace, machine: Machine) -> None:
        self.machine, self.device, self.other = machine, arguments.device, arguments.peer
        devices = [each for each in (self.device, self.other) if each]
        self.look: Callable[[], dict[str, list[str]]] = lambda: machine.state(*devices)
        self.before = self.look()
        self.sysctls = sysctls(*devices)

    def environment(self) -> str:
        """Kernel, driver, firmware; what the kernel must have."""
        # Its exit status is 1 where something is missing; what, is told here.
        words = executable("cni-netkit"), "doctor", "--json"
        report = json.loads(self.machine.run(*words, check=False))
        about = dict(re.findall(r"^(\S+): (.*)$", self.machine.ethtool("-i", self.device), re.M))
        features = {each["name"]: each["present"] for each in report["kernel"]["features"]}
        if lacking := [name for name in ("netkit", "single", "queue-create") if not features[name]]:
            raise Failed(f"expected a kernel with {', '.join(lacking)}, found {os.uname().release}")
        firmware = about.get("firmware-version", "").strip()
        return f"Linux {os.uname().release}, driver {about['driver']}, firmware {firmware or '?'}"

    def peer(self) -> str:
        """Put the second port into a namespace of its own, with a way to the containers."""
        if not self.other:
            raise NotRun("no --peer DEVICE2, cabled to DEVICE: there is nobody to send")
        run = self.machine.run
        run("ip", "netns", "add", traffic.SENDER)
        run("ip", "link", "set", self.other, "netns", traffic.SENDER)
        run("ip", "addr", "add", traffic.NIC_ADDRESS + "/24", "dev", self.device)
        for words in (
            ("addr", "add", traffic.SENDER_ADDRESS + "/24", "dev", self.other),
            ("link", "set", self.other, "up"),
            ("route", "add", "default", "via", traffic.NIC_ADDRESS),
        ):
            run("ip", "-n", traffic.SENDER, *words)
        judge.wait_for(self._carrier, f"{self.device} and {self.other} have a carrier")
        return f"{self.other} sends"

    def _carrier(self) -> bool:
        ends = (judge.link(self.device), judge.link(self.other, traffic.SENDER))
        return all("LOWER_UP" in each["flags"] for each in ends)

    def peer_back(self) -> str:
        """Each part by itself, for the step may have been cut off anywhere."""
        run = self.machine.run
        here = str(os.getpid())
        run("ip", "addr", "del", traffic.NIC_ADDRESS + "/24", "dev", self.device, check=False)
        run("ip", "-n", traffic.SENDER, "link", "set", self.other, "netns", here, check=False)
        was = "\n".join(self.before[f"{self.other}, ip -d link"])
        mode = re.search(r"^inet6_addr_gen_mode: (\S+)$", was, re.M)
        if mode:
            run("ip", "link", "set", self.other, "addrgenmode", mode[1])
        for path, value in self.sysctls.items():
            with suppress(OSError):  # what cannot be put back, the comparison names
                if Path(path).read_text().strip() != value:
                    Path(path).write_text(value)
        run("ip", "link", "set", self.other, "up" if "'UP'" in was else "down")
        run("ip", "netns", "del", traffic.SENDER, check=False)
        return f"{self.other} is back"

    def as_found(self) -> str:
        """Everything by itself is compared, whatever the steps say."""
        expect_same(self.before, self.look)
        return "everything is as before"


class Role:
    """One role: prepared, leased without and with flow rules, used, and put back."""

    def __init__(self, role: str, arguments: argparse.Namespace, machine: Machine) -> None:
        self.role, self.machine = role, machine
        self.device, self.channels = arguments.device, arguments.channels
        self.options = ["--role", role, "--queues", arguments.queues]
        if arguments.channels:
            self.options += ["--channels", str(arguments.channels)]
        self.copies = role == "af_xdp" and arguments.copy
        if self.copies:
            self.options.append("--copy")
        self.pool = numbers(arguments.queues)
        self.before: dict[str, list[str]] = {}
        self.conf: JSON = {}
        self.result: JSON = {}
        self.agent: traffic.Agent | None = None

    def steps(self) -> list[Step]:
        """All of the role; what it needs of the NIC is looked at by ethtool, one by one."""
        prepared = ("prepare",)
        made = [
            self._step("dry run", self.dry_run, ENVIRONMENT),
            self._step("prepare", self.prepare, "dry run"),
            self._step("channels", self.channels_set, *prepared),
            self._step("RSS table", self.rss_spares_the_pool, *prepared),
            self._step("ntuple filters", self.ntuple_on, *prepared),
        ]
        if self.role == "io_uring":
            made.append(self._step("header-data split", self.split_on, *prepared))
        else:
            made.append(self._step("XDP program", self.program_there, *prepared))
            made.append(self._step(AGENT, self.start_agent, *prepared))
        made += [
            self._step("prepare again", self.prepare_again, *prepared),
            *self._attachment("ADD", "none"),
        ]
        if self.role == "io_uring":
            made += [
                self._step("ping", self.ping, "ADD", PEER),
                self._step("TCP", self.tcp, "ping"),
            ]
            receive = self._step("receive", self.zero_copy_tcp, "rules", PEER)
            flows: object = "address"
        else:
            made.append(self._step("socket", lambda: self.frames(sent=False), "ADD", AGENT))
            receive = self._step("receive", lambda: self.frames(sent=True), "rules", AGENT, PEER)
            flows = [{"proto": "udp", "dstPort": traffic.PORT}]
        made += [
            self._step("DEL", self.delete, undoes="ADD"),
            *self._attachment("ADD with flows", flows),
            self._step("rules", self.rules, "ADD with flows"),
            receive,
            self._step("DEL with flows", self.delete, undoes="ADD with flows"),
        ]
        if self.role == "af_xdp":
            made.append(self._step("agent stopped", self.stop_agent, undoes=AGENT))
        return [*made, self._step("restore", self.restore, undoes="prepare")]

    def _attachment(self, name: str, flows: object) -> list[Step]:
        end = name.removeprefix("ADD")
        return [
            self._step(name, lambda: self.add(flows), "prepare"),
            self._step("lease" + end, self.lease, name),
            self._step("CHECK" + end, self.check, name),
        ]

    def _step(self, name: str, do: Callable[[], str], *needs: str, undoes: str = "") -> Step:
        def full(other: str) -> str:
            return other if other in ("", ENVIRONMENT, PEER) else f"{self.role}: {other}"

        return Step(full(name), do, tuple(map(full, needs)), full(undoes))

    def nic(self, word: str, *options: str) -> JSON:
        """`cni-netkit nic WORD DEVICE ...`."""
        answer: JSON = self.machine.cni_netkit("nic", word, self.device, *options)
        return answer

    def dry_run(self) -> str:
        """Nothing may change."""
        self.before = self.machine.settings(self.device)
        answer = self.nic("prepare", *self.options, "--dry-run")
        if found := differences(self.before, self.machine.settings(self.device)):
            raise Failed("; ".join(found))
        return f"would change {changes(answer)}"

    def prepare(self) -> str:
        """Before anything is changed the machine has noted what was there."""
        return f"changed {changes(self.nic('prepare', *self.options))}"

    def prepare_again(self) -> str:
        """The second time there is nothing to change."""
        if (found := changes(self.nic("prepare", *self.options))) != "nothing":
            raise Failed(f"expected nothing to change, found {found}")
        return "nothing to change"

    def channels_set(self) -> str:
        """As many as asked for."""
        text = self.machine.ethtool("-l", self.device).partition("Current")[2]
        found = {name: int(number) for name, number in re.findall(r"(RX|Combined):\s+(\d+)", text)}
        queues = found.get("Combined") or found.get("RX")
        if not queues or queues != (self.channels or queues) or max(self.pool) >= queues:
            raise Failed(f"expected {self.channels or 'room for the pool'}, found {found}")
        return f"{queues} queues"

    def rss_spares_the_pool(self) -> str:
        """Other traffic must not come to leased queues."""
        text = self.machine.ethtool("-x", self.device)
        table = rss_queues(text)
        if not table or table & self.pool:
            found = f"queues {sorted(table)}" if table else text.strip()
            raise Failed(f"expected a table without queues {sorted(self.pool)}, found: {found}")
        return f"over queues {sorted(table)}"

    def ntuple_on(self) -> str:
        """Without them no traffic is brought to a leased queue."""
        text = self.machine.ethtool("-k", self.device)
        found = "".join(re.findall(r"^ntuple-filters: (.*)$", text, re.M))
        if not found.startswith("on"):
            raise Failed(f"expected ntuple-filters: on, found: {found or 'none'}")
        return found

    def split_on(self) -> str:
        """ethtool(8) before 6.13 does not show the threshold: that is asked for by netlink."""
        text = self.machine.ethtool("-g", self.device)
        found = "".join(re.findall(r"^TCP data split:\s+(.*)$", text, re.M))
        threshold = judge.rings(self.device).get("hds_thresh", 0)
        if found != "on" or threshold:
            raise Failed(
                f"expected on, threshold 0; found {found or 'none'}, threshold {threshold}"
            )
        return "on, threshold 0"

    def program_there(self) -> str:
        """An XDP program is on the NIC, in the driver unless it was asked to copy."""
        found = (judge.link(self.device) or {}).get("xdp")
        if not found:
            raise Failed("expected an XDP program, found none (ip -d link)")
        return f"{found['prog'].get('name', 'without a name')}, mode {found['mode']} (1: driver)"

    def add(self, flows: object) -> str:
        """An attachment in a fresh namespace."""
        lease = {"device": self.device, "workload": self.role, "flows": flows}
        pairing = "pair" if self.role == "io_uring" else "single"
        self.result = {}
        self.conf = {
            "cniVersion": "1.1.0",
            "name": NETWORK,
            "type": "netkit",
            "pairing": pairing,
            "ipam": {"type": "static", **traffic.CONTAINER_ADDRESSES},
            "lease": lease,
        }
        self.machine.run("ip", "netns", "add", CONTAINER)
        self.result = self.machine.plugin("ADD", self.conf, CONTAINER)
        return f"a {pairing}, flows {json.dumps(flows)}"

    def lease(self) -> str:
        """One queue of the pool is queue 1 of the container's device, as the NIC has it."""
        index = judge.link("eth0", CONTAINER)["ifindex"]
        found = judge.leases(self.device)
        if not set(found) <= self.pool or list(found.values()) != [(index, 1)]:
            raise Failed(
                f"expected one queue of {sorted(self.pool)} leased to ({index}, 1), found {found}"
            )
        return f"queue {next(iter(found))} of {self.device} is queue 1 of the container's eth0"

    def check(self) -> str:
        """The plugin's own look."""
        self.machine.plugin("CHECK", {**self.conf, "prevResult": self.result}, CONTAINER)
        return "no difference"

    def ping(self) -> str:
        """From the sender, until the link lets it through."""
        return traffic.ping(self.machine)

    def tcp(self) -> str:
        """A line there and one back."""
        return traffic.tcp()

    def rules(self) -> str:
        """ethtool(8) lists a rule for the container's address, to a queue that is leased."""
        found = flow_rules(self.machine.ethtool("-n", self.device))
        leased = {str(number) for number in judge.leases(self.device)}
        ours = [rule for rule in found if traffic.CONTAINER_ADDRESS in rule.get("Dest IP addr", "")]
        targets = {rule.get("Action", "").rpartition(" ")[2] for rule in ours}
        if not ours or not targets <= leased:
            raise Failed(
                f"expected rules for {traffic.CONTAINER_ADDRESS} to queue {leased}, found {found}"
            )
        return f"{len(ours)} to queue {', '.join(targets)}"

    def zero_copy_tcp(self) -> str:
        """The example receives, on its leased queue."""
        return traffic.zero_copy_tcp(self.machine, CONTAINER)

    def start_agent(self) -> str:
        """An agent of this run's own, which takes AF_XDP sockets."""
        self.agent = traffic.Agent(executable("cni-netkit"))
        return self.agent.wait_until_ready()

    def frames(self, *, sent: bool) -> str:
        """The example has a socket on its leased queue, and receives frames."""
        return traffic.frames(self.machine, CONTAINER, copies=self.copies, sent=sent)

    def stop_agent(self) -> str:
        """Stop it; its log is part of the report."""
        return self.agent.stop(self.machine.commands) if self.agent else "it never ran"

    def delete(self) -> str:
        """Leases and rules are gone before the container is; also where ADD failed."""
        more = {"prevResult": self.result} if self.result else {}
        try:
            self.machine.plugin("DEL", {**self.conf, **more}, CONTAINER)
            leases = judge.leases(self.device)
            rules = flow_rules(self.machine.ethtool("-n", self.device))
            ours = [each for each in rules if traffic.CONTAINER_ADDRESS in str(each)]
            if leases or ours:
                raise Failed(f"expected no lease and no rule, found {leases} and {ours}")
        finally:
            self.machine.run("ip", "netns", "del", CONTAINER, check=False)
        return "no lease, no rule"

    def restore(self) -> str:
        """As ethtool(8) showed it before."""
        found = changes(self.nic("restore"))
        expect_same(self.before, lambda: self.machine.settings(self.device))
        return f"put back {found}; all settings as before"


def numbers(text: str) -> set[int]:
    """ "8-11,14" as numbers. Raises ValueError."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def changes(answer: JSON) -> str:
    """Which settings a command changed, or would."""
    return ", ".join(each["key"] for each in answer["changes"]) or "nothing"


def rss_queues(text: str) -> set[int]:
    """The queues in the table that `ethtool -x` shows."""
    rows = re.findall(r"^ *\d+:([ \d]+)$", text, re.M)
    return {int(number) for row in rows for number in row.split()}


def flow_rules(text: str) -> list[dict[str, str]]:
    """The rules that `ethtool -n` lists, by the words before each colon."""
    parts = re.split(r"^Filter: ", text, flags=re.M)[1:]
    return [dict(re.findall(r"^\s*([^:\n]+): (.*?)\s*$", part, re.M)) for part in parts]

"""The first seeds of each target: made of the examples in conf/, of tests/records and of prepared bytes."""

import itertools
import json
import struct
from collections.abc import Iterator
from typing import Any

from tests.faults.fuzz.run import CORPUS, ROOT

JSON = Any
FORMS = ("VERSION", "STATUS", "CHECK", "DEL", "GC")


def main() -> None:
    """Write them all; those that have been found since stay."""
    for target, make in SEEDS.items():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in make():
            (folder / f"seed-{name}").write_bytes(data)


def configurations() -> Iterator[tuple[str, JSON]]:
    """What a runtime passes of each example: entries of type netkit with name and version."""
    for path in sorted((ROOT / "conf").glob("*.conflist")):
        conflist = json.loads(path.read_text())
        for number, plugin in enumerate(conflist["plugins"]):
            if plugin["type"] == "netkit":
                common = {key: conflist[key] for key in ("cniVersion", "name")}
                yield f"{path.stem}-{number}", common | plugin


def usual(**more: JSON) -> JSON:
    """One that has an effect on any kernel."""
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    }
    return {
        "cniVersion": "1.1.0",
        "name": "net",
        "type": "netkit",
        "fallback": "veth",
        "ipam": ipam,
        **more,
    }


PREVIOUS = {
    "cniVersion": "1.1.0",
    "interfaces": [
        {"name": "br0", "mac": "02:00:00:00:00:01"},
        {"name": "eth0", "sandbox": "/run/netns/fuzz", "mtu": 1500},
    ],
    "ips": [{"address": "10.2.0.5/24", "gateway": "10.2.0.1", "interface": 1}],
    "routes": [
        {"dst": "0.0.0.0/0", "gw": "10.2.0.1", "mtu": 1400, "priority": 5, "table": 254, "scope": 0}
    ],
    "dns": {"nameservers": ["10.2.0.1"], "search": ["example.org"]},
    "example.org/extension": {"a": 1},
}
STATIC = {
    "type": "static",
    "addresses": [{"address": "10.3.0.5/24", "gateway": "10.3.0.1"}, {"address": "fd00:3::5/64"}],
    "routes": [
        {"dst": "10.4.0.0/16", "gw": "10.3.0.1", "mtu": 1400, "advmss": 1300, "priority": 3}
    ],
    "dns": {"nameservers": ["10.3.0.1"], "domain": "example.org"},
}
RUNTIME = {
    "mac": "02:00:00:00:00:07",
    "ips": ["10.1.0.9/24"],
    "ipRanges": [[{"subnet": "10.9.0.0/24", "rangeStart": "10.9.0.5", "rangeEnd": "10.9.0.9"}]],
    "dns": {"servers": ["10.0.0.1"], "searches": ["a.example"], "options": ["ndots:5"]},
    "bandwidth": {
        "ingressRate": 1000000,
        "ingressBurst": 100000,
        "egressRate": 1000000,
        "egressBurst": 100000,
    },
    "deviceID": "0000:03:00.0",
}


def variations() -> Iterator[tuple[str, JSON]]:
    """Configurations with what the examples have not."""
    yield "usual", usual()
    yield "static", usual(ipam=STATIC)
    yield "chained", usual(prevResult=PREVIOUS, ifName="zc0")
    yield "asked", usual(runtimeConfig={**RUNTIME, "mac": None, "deviceID": None})
    yield (
        "l2",
        usual(
            mode="l2",
            runtimeConfig=RUNTIME,
            args={"cni": {"ips": ["10.1.0.7"], "mac": "02:00:00:00:00:08"}},
        ),
    )
    yield "old", usual(cniVersion="0.2.0", ipMasq=True, log={"level": "debug", "file": "/run/log"})
    yield (
        "odd",
        usual(
            mtu=1400,
            headroom=64,
            tailroom=64,
            policy="blackhole",
            dns={"nameservers": ["10.0.0.1"]},
        ),
    )
    yield "other", usual(ipam={"type": "dhcp", "daemonSocketPath": "/run/dhcp.sock"})
    yield (
        "folder",
        usual(
            ipam={
                "type": "host-local",
                "subnet": "10.5.0.0/28",
                "dataDir": "/run/ipam",
                "resolvConf": "/etc/resolv.conf",
            }
        ),
    )
    yield "valid", usual(**{"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]})


def requests() -> Iterator[tuple[str, bytes]]:
    """Environment and standard input."""
    every = [*configurations(), *variations()]
    for name, config in every:
        yield (
            name,
            request(
                dict(config, fallback="veth")
                if config.get("pairing") != "single" and "lease" not in config
                else config
            ),
        )
    for verb in FORMS:
        yield verb, request(usual(prevResult=PREVIOUS), CNI_COMMAND=verb)
    yield "gc", request(dict(every)["valid"], CNI_COMMAND="GC")
    yield (
        "arguments",
        request(
            usual(), CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAME=a;IP=10.1.0.8/24;MAC=02:00:00:00:00:01"
        ),
    )
    yield "own", request(usual(), CNI_NETNS="/proc/self/ns/net", CNI_NETNS_OVERRIDE="1")


def request(config: JSON, **environment: str) -> bytes:
    """As targets/request.py reads it."""
    entries = b"\0".join(f"{name}={value}".encode() for name, value in environment.items())
    return entries + b"\0\0" + json.dumps(config).encode()


def as_json(documents: Iterator[tuple[str, JSON]]) -> Iterator[tuple[str, bytes]]:
    """Each as a file."""
    return ((name, json.dumps(document).encode()) for name, document in documents)


def configs() -> Iterator[tuple[str, bytes]]:
    """Network configurations alone."""
    return as_json(itertools.chain(configurations(), variations()))


def arguments() -> Iterator[tuple[str, bytes]]:
    """CNI_ARGS as runtimes have it."""
    yield (
        "containerd",
        b"IgnoreUnknown=1;K8S_POD_NAMESPACE=n;K8S_POD_NAME=a;K8S_POD_INFRA_CONTAINER_ID=0a1b;K8S_POD_UID=u",
    )
    yield "podman", b"IP=10.1.0.9;MAC=02:00:00:00:00:01"
    yield "odd", b"IgnoreUnknown=TRUE;;a=;=b;IP=\xff"
    yield "none", b";"


CAPABILITY = "io.kubernetes.cri.pod-annotations"


def annotations() -> Iterator[tuple[str, JSON]]:
    """What pods choose, allowed and not."""
    texts = {"mode": "l2", "policy": "blackhole", "scrub": "none", "mtu": "1400", "headroom": "64"}
    chosen = {f"cni-netkit/{key}": value for key, value in texts.items()}
    lease = {"cni-netkit/lease": json.dumps({"count": 2, "workload": "io_uring", "flows": "none"})}
    its = {"cni-netkit/lease": json.dumps({"device": "nic0", "queues": "4-7"})}
    own = usual(lease={"device": "nic1", "queues": [1]}, allowAnnotations=[*texts, "lease"])
    yield "texts", {"own": own, "annotations": {**chosen, "kubernetes.io/other": "a"}}
    yield "lease", {"own": own, "annotations": lease}
    yield (
        "device",
        {"own": own | {"allowAnnotations": ["lease.device", "lease.queues"]}, "annotations": its},
    )
    yield (
        "refused",
        {"own": own, "annotations": its | {"cni-netkit/ipam": "{}", "cni-netkit/lease.count": "1"}},
    )
    yield "none", {"own": own | {"allowAnnotations": None}, "annotations": chosen}


def previous() -> Iterator[tuple[str, JSON]]:
    """Results of all forms."""
    yield "new", {"version": "1.1.0", "result": PREVIOUS}
    yield "without-version", {"version": "0.4.0", "result": {**PREVIOUS, "cniVersion": None}}
    old = {
        "ip4": {"ip": "10.2.0.5/24", "gateway": "10.2.0.1", "routes": [{"dst": "0.0.0.0/0"}]},
        "ip6": {"ip": "fd00::5/64"},
        "dns": {"domain": "a"},
    }
    yield "old", {"version": "0.2.0", "result": old}
    yield (
        "case",
        {
            "version": "1.0.0",
            "result": {"CNIVersion": "1.0.0", "IPs": [{"Address": "10.2.0.5/24", "Version": "4"}]},
        },
    )


def frames() -> Iterator[tuple[str, bytes]]:
    """Requests with and without descriptors, answers, and what is neither."""
    for verb in ("ADD", "DEL", "STATUS", "VERSION", "CHECK", "GC"):
        yield f"request-{verb}", b"\1" + frame(verb, 1)
    yield "request-alone", b"\0" + frame("ADD", 0)
    yield "request-both", b"\2" + frame("DEL", 2)
    yield "answer", b"\4" + struct.pack("!4sHHI", b"NKAN", 1, 1, 2) + b"{}"
    yield "newer", b"\0" + struct.pack("!4sHHIII", b"NKRQ", 2, 0, 0, 0, 0)
    yield "huge", b"\0" + struct.pack("!4sHHIII", b"NKRQ", 1, 9, 2, 2**32 - 1, 2**24)


def frame(verb: str, count: int) -> bytes:
    """A request as the launcher sends it."""
    variables = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/run/netns/fuzz",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/opt/cni/bin",
    }
    environment = b"".join(f"{name}={value}\0".encode() for name, value in variables.items())
    stdin = json.dumps(usual()).encode()
    header = struct.pack("!4sHHIII", b"NKRQ", 1, count, 0, len(environment), len(stdin))
    return header + environment + stdin


def messages() -> Iterator[tuple[str, bytes]]:
    """None to three descriptors of every kind."""
    for first in range(32):
        yield f"{first}", bytes([first]) + b"xsk"[: first % 4]


def records() -> Iterator[tuple[str, bytes]]:
    """As releases wrote them, cut off, of another format, and none."""
    for path in sorted((ROOT / "tests" / "records").glob("attachments-*/*.json")):
        kept = path.parent.name.rpartition("-")[2]
        yield f"{path.name.partition('.')[0]}-{kept}", _renamed(path.read_bytes())
    whole = _renamed(
        (ROOT / "tests" / "records" / "attachments-1" / "12-dual-stack.eth0.json").read_bytes()
    )
    yield "cut", whole[:100]
    yield "newer", whole.replace(b"{", b'{"format":99,', 1)
    yield "incomplete", whole.replace(b'"complete":true', b'"complete":false')
    for number, text in enumerate(("null", "[]", "{}", "7", '""', "[" * 5000, '{"format":1}')):
        yield f"none-{number}", text.encode()


def _renamed(data: bytes) -> bytes:
    """Of the attachment in whose place it is put."""
    fields = json.loads(data)
    fields["attachment"] = {"network": "net", "container_id": "c1", "ifname": "eth0"}
    return json.dumps({**fields, "netns": "/run/netns/fuzz", "netns_identity": []}).encode()


def addresses() -> Iterator[tuple[str, bytes]]:
    """Folders of host-local."""
    taken = b"\0".join(b"10.1.0.%d\0c2\r\neth0" % each for each in range(2, 15))
    yield "empty", b""
    yield "full", taken
    yield "some", b"10.1.0.2\0c2\r\neth0\x0010.1.0.4\0c3\r\neth0\0last_reserved_ip.0\x0010.1.0.2"
    yield "ours", b"10.1.0.2\0c1\r\neth0\x0010.1.0.5\0c1"
    yield (
        "links",
        b"lock\0LINK\0last_reserved_ip.0\0DANGLING\x0010.1.0.2\0LINK\x0010.1.0.3\0DANGLING",
    )
    yield "folders", b"10.1.0.2\0DIRECTORY\0last_reserved_ip.1\0DIRECTORY\x0010.1.0.3\0FIFO"
    yield "odd", b"last_reserved_ip.0\0999\0fd00:1::2\0c2\x0010.1.0.2\0\xff\xfe\0a\nb\0c"


def nics() -> Iterator[tuple[str, bytes]]:
    """nics.json, and records of NICs."""
    yield "example", (ROOT / "conf" / "nics.json").read_bytes()
    several = [
        {
            "device": "nic0",
            "role": "af_xdp",
            "queues": "4-7,9",
            "channels": 16,
            "ring": 512,
            "copy": True,
        },
        {"device": "nic1", "role": "io_uring", "queues": [1, 2]},
    ]
    yield "several", json.dumps({"nics": several}).encode()
    for path in sorted((ROOT / "tests" / "records").glob("nics-*/*.json")):
        yield path.stem, path.read_bytes()


def delegated() -> Iterator[tuple[str, bytes]]:
    """Answers of IPAM plugins."""
    yield "result", b"\0" + json.dumps(PREVIOUS).encode()
    yield (
        "error",
        b"\1"
        + json.dumps(
            {"cniVersion": "1.1.0", "code": 100, "msg": "none left", "details": "a"}
        ).encode(),
    )
    yield "silent", b"\1"
    yield "nothing", b"\0"
    yield "text", b"\1panic: runtime error\n"
    yield "deep", b"\0" + b"[" * 5000


def launcher() -> Iterator[tuple[str, bytes]]:
    """As launcher.c reads them: every way in which an agent can answer, and what is around it."""

    def of(answer: bytes, verb: int = 0, closed: int = 0, variables: bytes = b"A=b\0") -> bytes:
        config = b'{"cniVersion": "1.0.0", "name": "net", "type": "netkit"}'
        parts = (struct.pack("!H", len(each)) + each for each in (variables, config))
        return bytes([verb, closed]) + b"".join(parts) + answer

    good = struct.pack("!4sHHI", b"NKAN", 1, 1, 2) + b"{}"
    yield "good", of(good)
    version = b'{"cniVersion": "1.' + b"1" * 40 + b'"}'
    yield "long-version", b"\0\0\0\0" + struct.pack("!H", len(version)) + version + good
    yield "short", of(good[:7], verb=1)
    yield "long", of(good + b"x", verb=2)
    yield "newer", of(struct.pack("!4sHHI", b"NKAN", 2, 0, 0), verb=4)
    yield "huge", of(struct.pack("!4sHHI", b"NKAN", 1, 999, 2**32 - 1), verb=5)
    yield "closed", of(good, closed=7)
    yield "nobody", of(b"", verb=4, closed=8)
    yield "no-verb", of(good, verb=6)
    yield "odd-verb", of(b"", verb=7)
    socket = b"CNI_NETKIT_SOCKET=" + b"a" * 200
    yield (
        "environment",
        of(good, variables=b"A\0=\0A=1\0A=2\0CNI_NETNS=/dev/null\0" + socket + b"\0"),
    )


SEEDS = {
    "launcher": launcher,
    "request": requests,
    "reading": requests,
    "arguments": arguments,
    "config": configs,
    "annotations": lambda: as_json(annotations()),
    "previous": lambda: as_json(previous()),
    "frames": frames,
    "xsk": messages,
    "records": records,
    "addresses": addresses,
    "nics": nics,
    "delegated": delegated,
}

if __name__ == "__main__":
    main()

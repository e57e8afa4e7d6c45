"""`cni-netkit doctor`: what this node can do, and what to do about what it cannot."""

import platform
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from cni_netkit import facts
from cni_netkit.admin import leases, verdicts
from cni_netkit.admin.advice import print_advice
from cni_netkit.admin.output import JSON, print_json, print_table, print_text
from cni_netkit.facts import Nic
from cni_netkit.kernel.errors import KernelError
from cni_netkit.kernel.namespace import Namespace
from cni_netkit.nics import readiness, settings
from cni_netkit.nics.prepare import LEASING
from cni_netkit.nics.state import NicState, read_state
from cni_netkit.plan import LACKING
from cni_netkit.spec.errors import CNIError
from cni_netkit.spec.lease import ranges

Looked = tuple[Nic, NicState]


def report(features: frozenset[str], nics: Sequence[Looked], judged: Iterable[JSON]) -> JSON:
    """The report, as docs/admin.md describes it."""
    found = list(judged)
    return {
        "ok": all(each["ok"] for each in found if each["needed"]),
        "kernel": {
            "release": platform.release(),
            "features": [
                {
                    "name": name,
                    "present": name in features,
                    "what": what,
                    "option": option,
                    "since": since,
                }
                for name, (what, option, since, _) in LACKING.items()
            ],
        },
        "nics": [_nic(*each) for each in nics],
        "verdicts": found,
    }


def main(*, as_json: bool, conflist: str | None) -> int:
    """Print the report; the exit status, which is 1 where something that is needed is missing."""
    host = Namespace.current()
    try:
        features = host.features(LACKING)
        nics, unknown = _look(host, features)
        judged = [
            *verdicts.of_uses(features, [nic for nic, _ in nics], needed=conflist is None),
            *unknown,
            *(each for nic in nics for each in verdicts.of_workloads(features, *nic)),
            *verdicts.of_configuration(host, conflist),
            *verdicts.of_networks(conflist),
            verdicts.of_agent(),
            verdicts.of_launcher(),
            *verdicts.of_node(),
        ]
    finally:
        host.close()
    made = report(features, nics, judged)
    if as_json:
        print_json(made)
    else:
        _print(made, conflist)
    return 0 if made["ok"] else 1


def _look(host: Namespace, features: frozenset[str]) -> tuple[list[Looked], list[JSON]]:
    """The NICs; and a verdict on each whose record is of a newer release."""
    found, unknown = [], []
    for nic in facts.nics(host):
        trial = nic.link.up and features >= LEASING
        refusal = host.queues.refusal_to_lend(nic.link) if trial else None
        state = read_state(host, nic.link)
        try:
            record = readiness.prepared(nic.link)
        except CNIError as error:
            record, about = None, f"preparation of {nic.link.name}"
            unknown.append(verdicts.verdict(about, reason=error.message, remedy=error.details))
        known = replace(
            nic,
            refusal=refusal,
            preparation=record.preparation if record else None,
            lacking=readiness.lacking(state, record) if record else (),
        )
        found.append((known, state))
    return found, unknown


def _nic(nic: Nic, state: NicState) -> JSON:
    behind = facts.SYSFS / nic.link.name / "device"
    preparation = nic.preparation
    return {
        "name": nic.link.name,
        "driver": _driver(behind),
        "up": nic.link.up,
        "mtu": nic.link.mtu,
        "numaNode": _numa_node(behind),
        "rxQueues": len(nic.queues) if nic.link.up else None,
        "leased": sum(queue.leased_index is not None for queue in nic.queues),
        "free": sum(queue.free for queue in nic.queues),
        "refusal": _words(nic.refusal),
        "role": preparation.role if preparation else None,
        "pool": list(preparation.queues) if preparation else None,
        "tcpDataSplit": state.data_split,
        "hdsThresh": state.rings.hds_thresh if state.rings else None,
        "rss": None if state.table is None else sorted(set(state.table)),
        "ntuple": state.ntuple.on if state.ntuple else None,
        "xdp": state.xdp,
        "xskZeroCopy": "xsk-zerocopy" in state.xdp_features,
    }


def _abilities(nic: JSON) -> list[object]:
    pool, spread = (ranges(nic[key] or ()) for key in ("pool", "rss"))
    split, threshold = nic["tcpDataSplit"], nic["hdsThresh"]
    # As text: 0 is a threshold, not nothing.
    threshold = None if threshold is None else str(threshold)
    ntuple, xdp = nic["ntuple"], settings.words(settings.XDP, nic["xdp"])
    return [
        *(nic["name"], nic["role"], pool, split, threshold, spread),
        *(ntuple, xdp, nic["xskZeroCopy"]),
    ]


def _words(refusal: KernelError | None) -> str | None:
    return None if refusal is None else str(refusal)


def _driver(behind: Path) -> str | None:
    driver = behind / "driver"
    return driver.resolve().name if driver.exists() else None


def _numa_node(behind: Path) -> int | None:
    """None where the machine has one node only, or the device belongs to none (-1)."""
    try:
        node = int((behind / "numa_node").read_text())
    except (OSError, ValueError):
        return None
    return node if node >= 0 else None


def _print(made: JSON, conflist: str | None = None) -> None:
    """The answer to what was asked comes first: whether a configuration would work."""
    found = made["verdicts"]
    if conflist is not None:
        asked = [each for each in found if each["needed"]]
        found = [each for each in found if not each["needed"]]
        _print_answer(conflist, asked)
        print()
    _print_kernel(made["kernel"])
    print()
    _print_nics(made["nics"])
    print()
    print_table(("", "works"), [(each["about"], each["ok"]) for each in found])
    print_advice(found)


def _print_answer(conflist: str, asked: Sequence[JSON]) -> None:
    works = all(each["ok"] for each in asked)
    print_text(f"{conflist}: {'works here' if works else 'does not work here'}")
    print_advice(
        {**each, "about": each["about"].removeprefix(f"{conflist}: ").replace(conflist, "the file")}
        for each in asked
    )


def _print_kernel(kernel: JSON) -> None:
    print_table(
        ("feature", "here", "needed for", "in Linux since"),
        [
            (each["what"], each["present"], each["option"], each["since"])
            for each in kernel["features"]
        ],
        title=f"Linux {kernel['release']}",
    )


def _print_nics(nics: Sequence[JSON]) -> None:
    columns = ("name", "driver", "up", "mtu", "numaNode", "rxQueues", "leased", "free")
    print_table(
        ("NIC", "driver", "up", "MTU", "NUMA node", "receive queues", "leased", "free"),
        [[nic[key] for key in columns] for nic in nics],
        empty=leases.NO_NIC,
    )
    if nics:
        print()
        print_table(
            ("NIC", "role", "pool", "HDS", "threshold", "RSS", "ntuple", "XDP", "AF_XDP zero copy"),
            [_abilities(nic) for nic in nics],
        )

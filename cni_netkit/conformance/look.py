"""What there is on a host: asked of ip(8), /proc and the tools that list packet filters' rules."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cni_netkit.conformance import namespaces

Snapshot = dict[str, set[str]]
"""What there is: kind -> each thing in words."""


class Unprepared(Exception):
    """The row cannot even begin; not the plugin's fault."""


def everything(ours: set[int]) -> Snapshot:
    """All that a plugin may leave something in; `ours` are processes that are not its."""
    running = set(children()) - ours
    return {
        **_network(),
        "rule": _rules(),
        "file": _files(),
        "process": {_command(each) for each in running},
    }


def run(*command: str) -> str:
    """Run a tool that has to work; its standard output."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise Unprepared(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def ip(*arguments: str) -> Any:
    """What `ip -json` says, as objects."""
    text = run("ip", "-json", *arguments)
    # An empty list is nothing at all, or [{}] in older releases.
    return [each for each in json.loads(text or "[]") if each]


def _network() -> Snapshot:
    """Interfaces, addresses and routes of the host, without link-local ones, which come and go."""
    links = ip("addr")
    routes = [
        route for family in ("-4", "-6") for route in ip(family, "route", "show", "table", "all")
    ]
    policies = [rule for family in ("-4", "-6") for rule in ip(family, "rule")]
    return {
        "interface": {each["ifname"] for each in links},
        "address": {
            f"{item['local']}/{item['prefixlen']} on {each['ifname']}"
            for each in links
            for item in each["addr_info"]
            if item["scope"] != "link"
        },
        "route": {
            f"{each.get('type', '')} {each['dst']} {each.get('dev', '')}".strip()
            for each in routes
            if not each["dst"].startswith(("fe80:", "ff00:"))
        },
        "routing rule": {json.dumps(each, sort_keys=True) for each in policies},
    }


def _rules() -> set[str]:
    """Rules of the packet filter, as far as there are tools to list them."""
    found = set()
    for command in RULES:
        if shutil.which(command[0]):
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            lines = (line.strip() for line in done.stdout.splitlines())
            found |= {line for line in lines if line and not line.startswith(("#", ":"))}
    return found


RULES = (
    ("nft", "--stateless", "list", "ruleset"),
    ("iptables-legacy-save",),
    ("ip6tables-legacy-save",),
)
"""What lists rules; those of iptables-nft are nftables', too."""


def _files() -> set[str]:
    """Files that are not locks, below what is each row's own."""
    ignored = namespaces.NAMED
    return {
        str(path)
        for folder in namespaces.PRIVATE
        for path in Path(folder).rglob("*")
        if path.is_file() and not path.is_relative_to(ignored) and not path.is_mount()
    }


def more(after: Snapshot, before: Snapshot) -> list[tuple[str, str]]:
    """What was not there before: (kind, in words)."""
    return [
        (kind, each) for kind in after for each in sorted(after[kind] - before.get(kind, set()))
    ]


def staying(found: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """What nobody but the plugin would take away; the kernel ends the rest, sooner or later."""
    return [each for each in found if each[0] in ("rule", "routing rule", "file")]


def children(*, dead: bool = False) -> Iterator[int]:
    """Processes whose parent is this one; with dead ones that nobody has waited for."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        state, parent, *_ = text.rpartition(")")[2].split()
        if int(parent) == os.getpid() and (dead or state != "Z"):
            yield int(stat.parent.name)


def _command(process: int) -> str:
    try:
        words = Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        words = ""
    return f"{words.replace(chr(0), ' ').strip()} (PID {process})"

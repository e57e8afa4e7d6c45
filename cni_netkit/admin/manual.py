"""The man page, made from the parser when the package is built (man(7) has the requests)."""

import argparse
from collections.abc import Iterator

from cni_netkit import __version__
from cni_netkit.admin.parser import EXAMPLES, EXIT_STATUS, PROGRAM, WHAT, commands_of, parser

DESCRIPTION = """\
For whoever runs a node with the CNI plugin netkit, which connects containers with netkit devices
and lends them receive queues of a NIC. The plugin itself is called by container runtimes, not by
hand. Everything but --help and schema needs root."""

FILES = {
    "/opt/cni/bin/netkit": "the plugin",
    "/etc/cni/net.d": "configurations of networks",
    "/etc/cni-netkit/nics.json": "NICs that the agent prepares",
    "/var/lib/cni/netkit": "records of attachments, and what prepared NICs were before",
    "/run/cni-netkit/agent.sock": "where the agent listens",
    "/opt/cni-netkit/current/share/cni-netkit/docs": "documentation",
}
ENVIRONMENT = {
    "NO_COLOR": "if it is set, tables have no colours on a terminal, either",
    "CNI_NETKIT_SOCKET": "where the agent is looked for, and by the plugin's launcher too",
}


def page() -> str:
    """cni-netkit(8) in roff."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    made = parser()
    yield f'.TH {PROGRAM.upper()} 8 "" "{PROGRAM} {__version__}" "System Administration"'
    yield from (".SH NAME", _plain(f"{PROGRAM} - {WHAT}"))
    yield from (".SH SYNOPSIS", f".B {_plain(PROGRAM)}", r".I COMMAND\c", r"\& ...", ".br")
    yield f".B {_plain(PROGRAM)} \\-\\-version"
    yield from (".SH DESCRIPTION", _plain(DESCRIPTION), ".SH COMMANDS")
    for command in commands_of(made):
        yield from _command(command)
    yield from (".SH EXIT STATUS", *_terms({str(key): it for key, it in EXIT_STATUS.items()}))
    yield from (".SH ENVIRONMENT", *_terms(ENVIRONMENT), ".SH FILES", *_terms(FILES))
    yield from (".SH EXAMPLES", *_preformatted(EXAMPLES))
    yield from (".SH SEE ALSO", ".BR ip (8), ethtool (8), nft (8)")


def _command(command: argparse.ArgumentParser) -> Iterator[str]:
    actions = [each for each in command._actions if not isinstance(each, argparse._HelpAction)]
    actions.sort(key=lambda each: not each.option_strings)
    usage = " ".join((command.prog, *map(_usage, actions)))
    yield f'.SS "{_plain(usage)}"'
    yield _plain(command.description or "")
    yield from _terms({_invocation(each): each.help or "" for each in actions})
    yield ".P"
    yield from _preformatted((command.epilog or "").splitlines()[1:])


def _usage(action: argparse.Action) -> str:
    said = _invocation(action)
    return said if action.required and action.nargs != "?" else f"[{said}]"


def _invocation(action: argparse.Action) -> str:
    """An option with its value, or an argument, as it is typed."""
    value = action.metavar or ("|".join(action.choices) if action.choices else action.dest.upper())
    if not action.option_strings:
        return str(value)
    name = action.option_strings[-1]
    return name if action.nargs == 0 else f"{name} {value}"


def _terms(meanings: dict[str, str]) -> Iterator[str]:
    for term, meaning in meanings.items():
        yield from (".TP", f".B {_plain(term)}", _plain(meaning))


def _preformatted(lines: Iterator[str] | tuple[str, ...] | list[str]) -> Iterator[str]:
    yield from (".RS", ".nf", *(_plain(each.strip()) for each in lines), ".fi", ".RE")


def _plain(text: str) -> str:
    r"""Text that roff prints as it is: "-" to be typed, no escapes, no requests."""
    text = text.replace("\\", r"\e").replace("-", r"\-").replace('"', r"\(dq")
    return "\n".join(f"\\&{line}" if line[:1] in (".", "'") else line for line in text.split("\n"))

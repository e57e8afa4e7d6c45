"""Verdicts for people: what stands in the way, and what to do about it."""

from collections.abc import Iterable, Sequence

from cni_netkit.admin.output import JSON, print_text


def print_advice(verdicts: Iterable[JSON]) -> None:
    """Print each "no" with its reason, those with the same remedy together, and that once."""
    alike: dict[str | None, list[JSON]] = {}
    for each in verdicts:
        if not each["ok"]:
            alike.setdefault(each["remedy"], []).append(each)
    for remedy, found in alike.items():
        print()
        _print_reasons(found)
        if remedy:
            print_text(remedy, "    ")
        # A narrow terminal leaves a command whole, to be copied.
        for command in dict.fromkeys(filter(None, (each["command"] for each in found))):
            print(f"    $ {command}")


def _print_reasons(found: Sequence[JSON]) -> None:
    by_reason: dict[str, list[str]] = {}
    for each in found:
        by_reason.setdefault(each["reason"], []).append(each["about"])
    for reason, abouts in by_reason.items():
        print_text(f"{', '.join(abouts)}: {reason}")

"""How tables are laid out: in the terminal's width, with words whole, or in blocks."""

import sys
from collections.abc import Sequence

import pytest
from rich.cells import cell_len

from cni_netkit.admin import output
from tests.unit.given import Terminal, terminal

HEADINGS = ("NIC", "pod", "addresses", "what")
ROWS = [
    ("eth7", "kube-system/coredns-5d78c9869d-7xkq2", ["10.88.0.2", "fd00:88:12::2"], "a b c d e f"),
    ("enp65s0f0np0", "shop/till-0", ["10.88.0.3"], "in the namespace with id 5"),
    ("eth8", None, [], True),
]
WHOLE_LINES = [
    "NIC           pod                                   addresses                 what",
    "eth7          kube-system/coredns-5d78c9869d-7xkq2  10.88.0.2, fd00:88:12::2  a b c d e f",
    "enp65s0f0np0  shop/till-0                           10.88.0.3                 "
    "in the namespace with id 5",
    "eth8          -                                     -                         yes",
]


def printed(screen: Terminal, rows: Sequence[Sequence[object]] = ROWS) -> list[str]:
    """The lines of a table."""
    output.print_table(HEADINGS, rows)
    return screen.lines()


def test_what_fits_is_not_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last column of the terminal."""
    width = max(map(len, WHOLE_LINES))
    assert printed(terminal(monkeypatch, width)) == WHOLE_LINES
    assert printed(terminal(monkeypatch, width - 1)) != WHOLE_LINES


def test_cells_are_broken_between_words_and_behind_a_slash(monkeypatch: pytest.MonkeyPatch) -> None:
    """The widest columns give way."""
    assert printed(terminal(monkeypatch, 80)) == [
        "NIC           pod                       addresses      what",
        "eth7          kube-system/              10.88.0.2,     a b c d e f",
        "              coredns-5d78c9869d-7xkq2  fd00:88:12::2",
        "enp65s0f0np0  shop/till-0               10.88.0.3      in the namespace with id",
        "                                                       5",
        "eth8          -                         -              yes",
    ]


def test_names_are_broken_only_where_nothing_else_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a hyphen."""
    assert printed(terminal(monkeypatch, 60)) == [
        "NIC           pod           addresses      what",
        "eth7          kube-system/  10.88.0.2,     a b c d e f",
        "              coredns-      fd00:88:12::2",
        "              5d78c9869d-",
        "              7xkq2",
        "enp65s0f0np0  shop/till-0   10.88.0.3      in the namespace",
        "                                           with id 5",
        "eth8          -             -              yes",
    ]


def test_lists_are_broken_between_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not within one."""
    rows = [("eth7", "a/b", "100-111,112-123,124-135", "x")]
    assert printed(terminal(monkeypatch, 32), rows) == [
        "NIC   pod  addresses        what",
        "eth7  a/b  100-111,         x",
        "           112-123,124-135",
    ]


@pytest.mark.parametrize("columns", range(20, 120))
def test_no_word_is_broken_on_any_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """Lines fit, in columns or in blocks."""
    lines = printed(terminal(monkeypatch, columns))
    assert max(map(len, lines)) <= max(columns, len(LONGEST))
    text = " ".join(lines)
    for word in ("enp65s0f0np0", "coredns-", "fd00:88:12::2", "addresses", "namespace"):
        assert word in text


LONGEST = "pod        kube-system/coredns-5d78c9869d-7xkq2"


def test_a_terminal_that_is_too_narrow_has_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is folded into columns of a few characters."""
    assert printed(terminal(monkeypatch, 40), ROWS[:2]) == [
        "NIC        eth7",
        LONGEST,
        "addresses  10.88.0.2, fd00:88:12::2",
        "what       a b c d e f",
        "",
        "NIC        enp65s0f0np0",
        "pod        shop/till-0",
        "addresses  10.88.0.3",
        "what       in the namespace with id 5",
    ]


def test_wide_characters_have_two_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device can be called so."""
    rows: list[Sequence[object]] = [("网卡", "a b", [], "x"), ("eth0", "a b", [], "x")]
    _, *lines = printed(terminal(monkeypatch, 80), rows)
    assert [cell_len(line.partition("a")[0]) for line in lines] == [6, 6]
    for columns in range(28, 44):
        lines = printed(terminal(monkeypatch, columns), [("网卡", "网 卡 网 卡 网 卡", [], "x")])
        assert max(map(cell_len, lines)) <= columns


def test_paragraphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between words on a terminal, at once elsewhere; a word that is too long stays whole."""
    text = "cni-netkit nic show tells what a NIC is like, see /var/lib/cni/netkit/nics"
    screen = terminal(monkeypatch, 20)
    output.print_text(text, "    ")
    assert screen.lines() == [
        *("    cni-netkit nic", "    show tells what", "    a NIC is like,", "    see"),
        "    /var/lib/cni/netkit/nics",
    ]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    output.print_text(text, "    ")
    assert screen.lines()[5:] == [f"    {text}"]

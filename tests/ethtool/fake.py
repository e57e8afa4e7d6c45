"""A NIC that does not exist: receive-side scaling, RSS contexts, rules for flows, their feature.

It answers the bytes of ioctl(SIOCETHTOOL), and of the netlink messages that netdevsim has no answer
to, as a driver and net/ethtool/ioctl.c do. The structures are read by the compiler's rules (ctypes)
from include/uapi/linux/ethtool.h, apart from how the program under test packs them. ethtool(8)
itself works on it through preload.c, which is how a test knows that it is right.
"""

import errno
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import (
    BigEndianStructure,
    Structure,
    Union,
    c_uint8,
    c_uint16,
    c_uint32,
    c_uint64,
    sizeof,
)
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent
NTUPLE = "rx-ntuple-filter"
ANY_LOCATION, CHOOSES_LOCATIONS, RSS, NEW = 0xFFFFFFFF, 0x80000000, 0x20000000, 0xFFFFFFFF
NO_CHANGE = 0xFFFFFFFF


class TCPIP4(BigEndianStructure):
    """Struct ethtool_tcpip4_spec."""

    _fields_ = (
        ("source", c_uint8 * 4),
        ("destination", c_uint8 * 4),
        ("source_port", c_uint16),
        ("port", c_uint16),
        ("tos", c_uint8),
    )


class TCPIP6(BigEndianStructure):
    """Struct ethtool_tcpip6_spec."""

    _fields_ = (
        ("source", c_uint8 * 16),
        ("destination", c_uint8 * 16),
        ("source_port", c_uint16),
        ("port", c_uint16),
        ("tclass", c_uint8),
    )


class Union52(Union):
    """Union ethtool_flow_union."""

    _fields_ = (("v4", TCPIP4), ("v6", TCPIP6), ("hdata", c_uint8 * 52))


class Extension(Structure):
    """Struct ethtool_flow_ext."""

    _fields_ = (
        ("padding", c_uint8 * 2),
        ("h_dest", c_uint8 * 6),
        ("vlan_etype", c_uint16),
        ("vlan_tci", c_uint16),
        ("data", c_uint32 * 2),
    )


class FlowSpec(Structure):
    """Struct ethtool_rx_flow_spec."""

    _fields_ = (
        ("flow_type", c_uint32),
        ("h_u", Union52),
        ("h_ext", Extension),
        ("m_u", Union52),
        ("m_ext", Extension),
        ("ring_cookie", c_uint64),
        ("location", c_uint32),
    )


class Rxnfc(Structure):
    """Struct ethtool_rxnfc."""

    _fields_ = (
        ("cmd", c_uint32),
        ("flow_type", c_uint32),
        ("data", c_uint64),
        ("fs", FlowSpec),
        ("rule_cnt", c_uint32),  # or the RSS context
    )


class Rxfh(Structure):
    """Struct ethtool_rxfh."""

    _fields_ = (
        ("cmd", c_uint32),
        ("rss_context", c_uint32),
        ("indir_size", c_uint32),
        ("key_size", c_uint32),
        ("hfunc", c_uint8),
        ("input_xfrm", c_uint8),
        ("rsvd8", c_uint8 * 2),
        ("rsvd32", c_uint32),
    )


PLACES_OF_RULES = Rxnfc.rule_cnt.offset + 4


@dataclass
class FakeNic:
    """What such a NIC has and can. `ntuple` None: the driver cannot have the feature on.

    `chooses`: the driver chooses the location of a rule. `requests` are those received so far.
    """

    name: str
    queues: int = 8
    table: list[int] = field(default_factory=lambda: [number % 8 for number in range(16)])
    contexts: dict[int, list[int]] = field(default_factory=dict)
    rules: dict[int, Rxnfc] = field(default_factory=dict)
    ntuple: bool | None = True
    knows_contexts: bool = True
    chooses: bool = False
    places: int = 16
    key: bytes = bytes(range(40))
    requests: list[bytes] = field(default_factory=list)

    def ioctl(self, request: bytes) -> bytes:
        """The kernel's answer to a structure. Raises OSError."""
        self.requests.append(request)
        command = int.from_bytes(request[:4], "little")
        known = {
            0x2D: self._rings,
            0x2E: self._count,
            0x2F: self._rule,
            0x30: self._all_rules,
            0x31: self._delete,
            0x32: self._insert,
            0x46: self._get_rxfh,
            0x47: self._set_rxfh,
        }
        if command not in known:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return known[command](request)

    def switch_ntuple(self, on: bool) -> None:
        """As the feature is switched: without it a driver has no rules."""
        if self.ntuple is not None:
            self.ntuple = on
            if not on:
                self.rules.clear()

    # Rules

    def _rings(self, request: bytes) -> bytes:
        asked = Rxnfc.from_buffer_copy(request)
        asked.data = self.queues
        return bytes(asked)

    def _count(self, request: bytes) -> bytes:
        asked = self._for_rules(request)
        asked.rule_cnt = len(self.rules)
        asked.data = CHOOSES_LOCATIONS if self.chooses else 0
        return bytes(asked)

    def _rule(self, request: bytes) -> bytes:
        asked = self._for_rules(request)
        if asked.fs.location not in self.rules:
            raise OSError(errno.ENOENT, "no rule there")
        found = Rxnfc.from_buffer_copy(self.rules[asked.fs.location])
        found.cmd, found.data = asked.cmd, self.queues
        return bytes(found)

    def _all_rules(self, request: bytes) -> bytes:
        asked = self._for_rules(request)
        if asked.rule_cnt < len(self.rules):
            raise OSError(errno.EMSGSIZE, "no room for all rules")
        if len(request) < PLACES_OF_RULES + 4 * asked.rule_cnt:
            raise OSError(errno.EFAULT, "the memory is too short")
        asked.rule_cnt, asked.data = len(self.rules), self.places
        answer = bytearray(request)
        answer[: sizeof(asked)] = bytes(asked)
        for number, location in enumerate(sorted(self.rules)):
            place = PLACES_OF_RULES + 4 * number
            answer[place : place + 4] = location.to_bytes(4, "little")
        return bytes(answer)

    def _insert(self, request: bytes) -> bytes:
        asked = self._for_rules(request)
        if not self.ntuple:
            raise OSError(errno.EOPNOTSUPP, "the feature is off")
        spec = asked.fs
        flow_type, has_context = spec.flow_type & ~RSS, bool(spec.flow_type & RSS)
        if flow_type not in (1, 2, 5, 6) or any(bytes(spec.h_ext)) or any(bytes(spec.m_ext)):
            raise OSError(errno.EINVAL, "not this form of rule")
        mask = spec.m_u.v4 if flow_type < 5 else spec.m_u.v6
        whole = all(byte == 255 for byte in mask.destination)
        if not whole or any(mask.source) or mask.source_port or mask.port not in (0, 0xFFFF):
            raise OSError(errno.EINVAL, "not this mask")
        if has_context and (asked.rule_cnt not in self.contexts or spec.ring_cookie):
            raise OSError(errno.EINVAL, "no such context")
        if spec.ring_cookie >= self.queues:
            raise OSError(errno.EINVAL, "no such queue")
        if spec.location == ANY_LOCATION and self.chooses:
            free = set(range(self.places)) - set(self.rules)
            if not free:
                raise OSError(errno.ENOSPC, "no place is free")
            spec.location = min(free)
        if spec.location >= self.places:
            raise OSError(errno.EINVAL, "no such place")
        self.rules[spec.location] = asked
        return bytes(asked)

    def _delete(self, request: bytes) -> bytes:
        asked = self._for_rules(request)
        if self.rules.pop(asked.fs.location, None) is None:
            raise OSError(errno.ENOENT, "no rule there")
        return bytes(asked)

    def _for_rules(self, request: bytes) -> Rxnfc:
        if len(request) < sizeof(Rxnfc):
            raise OSError(errno.EFAULT, "the memory is too short")
        if self.ntuple is None:
            raise OSError(errno.EOPNOTSUPP, "no rules at all")
        return Rxnfc.from_buffer_copy(request)

    # Receive-side scaling

    def _get_rxfh(self, request: bytes) -> bytes:
        asked = self._for_rss(request)
        size, key_size = asked.indir_size, asked.key_size
        if size not in (0, len(self.table)) or key_size not in (0, len(self.key)):
            raise OSError(errno.EINVAL, "another size")
        if asked.rss_context and asked.rss_context not in self.contexts:
            raise OSError(errno.ENOENT, "no such context")
        table = self.contexts[asked.rss_context] if asked.rss_context else self.table
        asked.indir_size, asked.key_size, asked.hfunc = len(self.table), len(self.key), 1
        entries = b"".join(entry.to_bytes(4, "little") for entry in table[:size])
        return bytes(asked) + entries + self.key[:key_size]

    def _set_rxfh(self, request: bytes) -> bytes:
        asked = self._for_rss(request)
        if asked.rss_context and asked.input_xfrm not in (0, 0xFF):
            raise OSError(errno.EOPNOTSUPP, "not for a context")
        if asked.indir_size not in (0, NO_CHANGE, len(self.table)):
            raise OSError(errno.EINVAL, "another size")
        size = 0 if asked.indir_size == NO_CHANGE else asked.indir_size
        data = request[sizeof(Rxfh) : sizeof(Rxfh) + 4 * size]
        if len(data) != 4 * size:
            raise OSError(errno.EFAULT, "the memory is too short")
        table = [int.from_bytes(data[at : at + 4], "little") for at in range(0, 4 * size, 4)]
        if any(queue >= self.queues for queue in table):
            raise OSError(errno.EINVAL, "no such queue")
        self._change_table(asked, table)
        return bytes(asked) + request[sizeof(Rxfh) :]

    def _change_table(self, asked: Rxfh, table: list[int]) -> None:
        default = [number % self.queues for number in range(len(self.table))]
        if asked.rss_context == NEW:
            if asked.indir_size == 0:
                raise OSError(errno.EINVAL, "a context to be removed")
            asked.rss_context = min(set(range(1, 8)) - set(self.contexts))
            self.contexts[asked.rss_context] = table or default
        elif asked.rss_context == 0:
            self.table = self.table if asked.indir_size == NO_CHANGE else table or default
        elif asked.rss_context not in self.contexts:
            raise OSError(errno.ENOENT, "no such context")
        elif asked.indir_size == 0:
            if any(self._context_of(rule) == asked.rss_context for rule in self.rules.values()):
                raise OSError(errno.EBUSY, "a rule uses the context")
            del self.contexts[asked.rss_context]
        elif table:
            self.contexts[asked.rss_context] = table

    def _context_of(self, rule: Rxnfc) -> int | None:
        return int(rule.rule_cnt) if rule.fs.flow_type & RSS else None

    def _for_rss(self, request: bytes) -> Rxfh:
        asked = Rxfh.from_buffer_copy(request)
        if any(asked.rsvd8) or asked.rsvd32:
            raise OSError(errno.EINVAL, "reserved")
        if not self.table or (asked.rss_context and not self.knows_contexts):
            raise OSError(errno.EOPNOTSUPP, "none")
        return asked


class Ethtool:
    """The real ethtool(8), with the fake NIC as its device."""

    def __init__(self, program: str, nic: FakeNic, library: Path, path: Path) -> None:
        self._nic = nic
        self._command = program
        self._environment = os.environ | {
            "LD_PRELOAD": str(library),
            "FAKE_SOCKET": str(path),
            "FAKE_DEVICE": nic.name,
        }
        self.netlink: list[bytes] = []
        self.status = 0
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self._listener.listen()

    def run(self, *arguments: str, only_ioctl: bool = True) -> str:
        """What it prints, complaints included; its `status` is kept."""
        more = {"FAKE_ONLY_IOCTL": "1"} if only_ioctl else {}
        stop = threading.Event()
        serving = threading.Thread(target=self._serve, args=(stop,))
        serving.start()
        try:
            done = subprocess.run(
                [self._command, *arguments],
                env=self._environment | more,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        finally:
            stop.set()
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as last:
                last.connect(self._listener.getsockname())
            serving.join()
        self.status = done.returncode
        return done.stdout

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()

    def _serve(self, stop: threading.Event) -> None:
        while not stop.is_set():
            served, _ = self._listener.accept()
            with served:
                while request := served.recv(1 << 16):
                    served.send(self._answer(request))

    def _answer(self, request: bytes) -> bytes:
        if request[:1] == b"N":
            self.netlink.append(request[1:])
            return bytes(4)
        try:
            return bytes(4) + self._nic.ioctl(request[17:])
        except OSError as error:
            return (error.errno or errno.EIO).to_bytes(4, "little")


def compiled(folder: Path) -> Path:
    """preload.c as a library."""
    library = folder / "preload.so"
    options = ("-Wall", "-Werror", "-O2", "-shared", "-fPIC")
    subprocess.run(["cc", *options, "-o", library, FOLDER / "preload.c", "-ldl"], check=True)
    return library


@contextmanager
def ethtool(program: str, nic: FakeNic, library: Path, folder: Path) -> Iterator[Ethtool]:
    """The real ethtool on a fake NIC, while the context lasts."""
    made = Ethtool(program, nic, library, folder / f"{nic.name}.sock")
    try:
        yield made
    finally:
        made.close()

"""Shaping what devices send (rtnetlink, RTM_*QDISC, RTM_*TFILTER).

A token bucket (net/sched/sch_tbf.c) shapes what its device sends, and nothing can hold back what a
device receives. So all of that is redirected to an ifb device, which sends it through a bucket of
its own, and what passed is received as if nothing had been (drivers/net/ifb.c).
Follows include/uapi/linux/pkt_sched.h, pkt_cls.h and tc_act/tc_mirred.h.
"""

import errno
import socket as sockets
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from cni_netkit.kernel import uapi
from cni_netkit.kernel.errors import KernelError, LackingKind, LostAnswer
from cni_netkit.kernel.model import Bucket, FoundBucket, Link
from cni_netkit.kernel.netlink.message import Attributes, attribute, nested, text, u32
from cni_netkit.kernel.netlink.socket import Ask, NetlinkSocket
from cni_netkit.kernel.uapi import (
    NLM_F_CREATE,
    NLM_F_ECHO,
    NLM_F_EXCL,
    RTM_GETQDISC,
    RTM_GETTFILTER,
    RTM_NEWQDISC,
    RTM_NEWTFILTER,
    TC_H_CLSACT,
    TC_H_CLSACT_INGRESS,
    TC_H_ROOT,
)

TCMSG = struct.Struct("=BxxxiIII")
RATESPEC = struct.Struct("=BBHhHI")
TBF_QOPT = struct.Struct(f"={RATESPEC.size}s{RATESPEC.size}sIII")
U32_SEL = struct.Struct("=BBBxHHhhI")
U32_KEY_BYTES = 16
MIRRED = struct.Struct("=IIiiiiI")

TBF, CLSACT, U32, MIRRED_KIND = "tbf", "clsact", "u32", "mirred"
HANDLE = 0x10000
"""1: as tc(8) writes it, the handle that the reference plugin gives its token bucket."""

FIRST_AND_ALL = 1 << 16 | sockets.htons(uapi.ETH_P_ALL)
"""struct tcmsg's tcm_info of a filter: preference 1, packets of every protocol."""

U32_MAX = 0xFFFFFFFF
NOTHING_THERE = (errno.ENOENT, errno.EINVAL)
"""What the kernel answers who asks for shaping that is not there."""

NO_QUEUE = "Cannot find ingress queue"
"""What it says with ENOENT where it had no memory for one."""


class Shaping:
    """Over an rtnetlink socket in the namespace where the devices are."""

    def __init__(self, socket: NetlinkSocket) -> None:
        self._socket = socket

    def shape(self, index: int, device: str, bucket: Bucket) -> None:
        """Let what a device sends pass a token bucket. Raises `LackingKind`."""
        rate = RATESPEC.pack(0, uapi.TC_LINKLAYER_ETHERNET, 0, 0, 0, min(bucket.rate, U32_MAX))
        no_peak = bytes(RATESPEC.size)
        options = (
            attribute(uapi.TCA_TBF_PARMS, TBF_QOPT.pack(rate, no_peak, bucket.limit, 0, 0)),
            attribute(uapi.TCA_TBF_RATE64, struct.pack("=Q", bucket.rate)),
            # In bytes: as a time in ticks, the older form, large bursts at low rates overflow.
            u32(uapi.TCA_TBF_BURST, bucket.burst),
        )
        request = (
            TCMSG.pack(0, index, HANDLE, TC_H_ROOT, 0)
            + text(uapi.TCA_KIND, TBF)
            + nested(uapi.TCA_OPTIONS, *options)
        )
        asked = f"shape what the device {device} sends to {bucket.rate} bytes a second ({TBF})"
        with _lacking(TBF):
            self._socket.ask(Ask(asked, request, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL))

    def redirect(self, index: int, device: str, target: Link) -> None:
        """Let another device send all that one receives. Raises `LackingKind`."""
        request = TCMSG.pack(0, index, TC_H_CLSACT & 0xFFFF0000, TC_H_CLSACT, 0)
        asked = f"let filters see what the device {device} receives ({CLSACT})"
        with _lacking(CLSACT):
            request += text(uapi.TCA_KIND, CLSACT)
            self._socket.ask(Ask(asked, request, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL))
        asked = (
            f"redirect what the device {device} receives to {target.name} ({U32}, {MIRRED_KIND})"
        )
        with _lacking(U32, MIRRED_KIND):
            request = _redirection(index, target.index)
            self._socket.ask(Ask(asked, request, RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL))

    def bucket(self, index: int) -> FoundBucket | None:
        """The token bucket on what a device sends; None where there is none."""
        request = TCMSG.pack(0, index, 0, TC_H_ROOT, 0)
        # The kernel tells it to all who listen, and with NLM_F_ECHO to who asked.
        asked = Ask("look up what shapes a device", request, RTM_GETQDISC, NLM_F_ECHO)
        try:
            (answers,) = self._socket.ask(asked)
        except KernelError as error:
            if error.errno in NOTHING_THERE:
                return None
            raise
        if not answers:  # it had no memory to tell it, which is no error there
            raise LostAnswer(asked.asked, errno.ENOBUFS)
        for answer in answers:
            attributes = Attributes(answer[TCMSG.size :])
            if attributes.text(uapi.TCA_KIND) != TBF:
                continue
            options = attributes.nest(uapi.TCA_OPTIONS)
            rate, _, limit, ticks, _ = TBF_QOPT.unpack(options.raw(uapi.TCA_TBF_PARMS) or b"")
            small = RATESPEC.unpack(rate)[-1]
            return FoundBucket(options.number(uapi.TCA_TBF_RATE64) or small, limit, ticks)
        return None

    def redirected(self, index: int) -> int | None:
        """Index of the device that all goes to which one receives; None: it is not redirected."""
        request = TCMSG.pack(0, index, 0, TC_H_CLSACT_INGRESS, FIRST_AND_ALL)
        for answer in self._socket.dump("list the filters", request, RTM_GETTFILTER, NOTHING_THERE):
            *_, info = TCMSG.unpack_from(answer)
            attributes = Attributes(answer[TCMSG.size :])
            if info == FIRST_AND_ALL and attributes.text(uapi.TCA_KIND) == U32:
                target = _target(attributes.nest(uapi.TCA_OPTIONS))
                if target is not None:
                    return target
        return None


def _redirection(index: int, target: int) -> bytes:
    # A selector without keys: every packet matches, however short.
    selector = U32_SEL.pack(uapi.TC_U32_TERMINAL, 0, 0, 0, 0, 0, 0, 0)
    action = MIRRED.pack(0, 0, uapi.TC_ACT_STOLEN, 0, 0, uapi.TCA_EGRESS_REDIR, target)
    first = nested(
        1,
        text(uapi.TCA_ACT_KIND, MIRRED_KIND),
        nested(uapi.TCA_ACT_OPTIONS, attribute(uapi.TCA_MIRRED_PARMS, action)),
    )
    return (
        TCMSG.pack(0, index, 0, TC_H_CLSACT_INGRESS, FIRST_AND_ALL)
        + text(uapi.TCA_KIND, U32)
        + nested(
            uapi.TCA_OPTIONS,
            attribute(uapi.TCA_U32_SEL, selector),
            nested(uapi.TCA_U32_ACT, first),
        )
    )


def _target(options: Attributes) -> int | None:
    """Where a filter of u32 sends every packet."""
    selector = options.raw(uapi.TCA_U32_SEL)
    action = options.nest(uapi.TCA_U32_ACT).nest(1)
    parameters = action.nest(uapi.TCA_ACT_OPTIONS).raw(uapi.TCA_MIRRED_PARMS)
    if not selector or not parameters:
        return None
    masks = [selector[at : at + 4] for at in range(U32_SEL.size, len(selector), U32_KEY_BYTES)]
    *_, direction, target = MIRRED.unpack_from(parameters)
    every = not any(map(any, masks))
    return int(target) if direction == uapi.TCA_EGRESS_REDIR and every else None


@contextmanager
def _lacking(*kinds: str) -> Iterator[None]:
    """What the kernel lacks is ENOENT, or EOPNOTSUPP for a whole family; an action comes last."""
    try:
        yield
    except KernelError as error:
        if error.errno not in (errno.ENOENT, errno.EOPNOTSUPP) or NO_QUEUE in error.text:
            raise
        raise LackingKind(kinds[-1 if "action" in error.text else 0], error) from None

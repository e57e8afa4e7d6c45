"""Network devices: netkit, veth and ifb, created, read back, deleted (rtnetlink, RTM_*LINK).

Follows drivers/net/netkit.c and Documentation/netlink/specs/rt-link.yaml.
"""

import errno
from socket import AF_INET6

from cni_netkit.kernel import uapi
from cni_netkit.kernel.errors import KernelError, LackingKind, LostAnswer
from cni_netkit.kernel.model import Link, LinkSpec
from cni_netkit.kernel.netlink import message
from cni_netkit.kernel.netlink.socket import Ask, NetlinkSocket
from cni_netkit.kernel.uapi import (
    IFF_UP,
    NETKIT_MODE,
    NETKIT_PAIRING,
    NETKIT_POLICY,
    NETKIT_SCRUB,
    NLM_F_CREATE,
    NLM_F_ECHO,
    NLM_F_EXCL,
    RTM_DELLINK,
    RTM_GETLINK,
    RTM_NEWLINK,
    RTM_SETLINK,
)

UNUSED_VALUE = 0xFFFF
IFB = "ifb"
NO_STATISTICS = message.u32(uapi.IFLA_EXT_MASK, uapi.RTEXT_FILTER_SKIP_STATS)


def create_pair(host: NetlinkSocket, spec: LinkSpec, container_netns: int) -> Link:
    """Create a pair: primary here, peer born in the namespace of descriptor `container_netns`.

    The kernel's echo tells both indexes (the peer's as IFLA_LINK), so nothing is looked up.
    """
    # Flags in the peer's header have no effect: netkit configures its peer without them.
    peer = message.link(
        message.text(uapi.IFLA_IFNAME, spec.peer_name),
        message.u32(uapi.IFLA_MTU, spec.mtu),
        message.u32(uapi.IFLA_NET_NS_FD, container_netns),
        message.mac(uapi.IFLA_ADDRESS, spec.peer_mac) if spec.peer_mac else b"",
        message.u32(uapi.IFLA_NUM_RX_QUEUES, spec.rx_queues) if spec.kind == "netkit" else b"",
    )
    if spec.kind == "netkit":
        data = _netkit_attributes(spec) + message.attribute(uapi.IFLA_NETKIT_PEER_INFO, peer)
    else:
        data = message.attribute(uapi.VETH_INFO_PEER, peer)
    asked = f"create the {spec.kind} pair {spec.name} (host) and {spec.peer_name} (container)"
    return _create(host, spec, asked, data)


def create_single(container: NetlinkSocket, spec: LinkSpec) -> Link:
    """Create a single netkit device in the namespace of the socket."""
    asked = f"create the single netkit device {spec.name}"
    return _create(container, spec, asked, _netkit_attributes(spec))


def create_ifb(host: NetlinkSocket, name: str, alias: str, mtu: int) -> Link:
    """Create an ifb device (drivers/net/ifb.c), down; whatever it sends comes back as received.

    Raises `LackingKind` where the kernel has none.
    """
    request = message.link(
        message.text(uapi.IFLA_IFNAME, name),
        message.u32(uapi.IFLA_MTU, mtu),
        _info(IFB, b""),
    )
    try:
        return _make(host, name, alias, f"create the ifb device {name}", request)
    except KernelError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise LackingKind("ifb", error) from None
        raise


def get(
    socket: NetlinkSocket, *, name: str = "", index: int = 0, nsid: int | None = None
) -> Link | None:
    """Look a device up by name or index, here or in the namespace with id `nsid`."""
    request = message.link(
        NO_STATISTICS,
        b"" if index else message.text(uapi.IFLA_IFNAME, name),
        b"" if nsid is None else message.u32(uapi.IFLA_TARGET_NETNSID, nsid),
        index=index,
    )
    asked = f"look up the device {name or index}"
    try:
        ((answer,),) = socket.ask(Ask(asked, request, RTM_GETLINK))
    except KernelError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    return _read(answer)


def dump(socket: NetlinkSocket) -> list[Link]:
    """Every device of the socket's namespace."""
    request = message.link(NO_STATISTICS)
    return [_read(answer) for answer in socket.dump("list the devices", request, RTM_GETLINK)]


def set_alias(name: str, alias: str, index: int = 0) -> Ask:
    """Request: give a device an alias; by its index where that is known."""
    which = b"" if index else message.text(uapi.IFLA_IFNAME, name)
    request = message.link(which, message.attribute(uapi.IFLA_IFALIAS, alias.encode()), index=index)
    return Ask(f"mark the device {name} as ours", request, RTM_SETLINK)


def set_up(index: int, name: str) -> Ask:
    """Request: bring a device up."""
    return Ask(f"bring the device {name} up", message.link(index=index, flags=IFF_UP), RTM_SETLINK)


def without_link_local(index: int, name: str) -> Ask:
    """Request: give a device that is down yet no IPv6 link-local address when it comes up.

    EAFNOSUPPORT where there is no IPv6 on it anyway.
    """
    mode = message.u8(uapi.IFLA_INET6_ADDR_GEN_MODE, uapi.IN6_ADDR_GEN_MODE_NONE)
    inet6 = message.nested(AF_INET6, mode)
    request = message.link(message.nested(uapi.IFLA_AF_SPEC, inet6), index=index)
    return Ask(f"keep the device {name} from having an IPv6 address", request, RTM_SETLINK)


def delete(socket: NetlinkSocket, index: int, name: str, target_nsid: int | None = None) -> None:
    """Delete a device; a pair goes as a whole. One that is gone already counts as deleted.

    `target_nsid`: the namespace it is in, by its id as seen from here.
    """
    where, gone = b"", {errno.ENODEV}
    if target_nsid is not None:
        where = message.u32(uapi.IFLA_TARGET_NETNSID, target_nsid)
        gone.add(errno.EINVAL)  # no namespace has the id any more, so the device went with it
    try:
        socket.ask(Ask(f"delete the device {name}", message.link(where, index=index), RTM_DELLINK))
    except KernelError as error:
        if error.errno not in gone:
            raise


def refuses_xdp(
    socket: NetlinkSocket, asked: str, index: int, program: int, mode: int
) -> KernelError | None:
    """Why a device does not take an XDP program, in the driver's words; None: it would.

    bpf(2), by which programs are attached, has no words. So the same is asked once more; where it
    works after all it is taken back.
    """

    def change(descriptor: int, flags: int) -> None:
        number = descriptor & 0xFFFFFFFF
        xdp = (message.u32(uapi.IFLA_XDP_FD, number), message.u32(uapi.IFLA_XDP_FLAGS, flags))
        request = message.link(message.nested(uapi.IFLA_XDP, *xdp), index=index)
        socket.ask(Ask(asked, request, RTM_SETLINK))

    try:
        change(program, mode | uapi.XDP_FLAGS_UPDATE_IF_NOEXIST)
    except KernelError as error:
        return error
    change(-1, mode)
    return None


def knows(socket: NetlinkSocket, attribute: int | None) -> bool:
    """Whether the kernel has netkit (None), or one attribute of it (IFLA_NETKIT_PAIRING).

    Nothing is created: the value is one that a kernel refuses if it knows the attribute (EINVAL,
    ERANGE), in a request without NLM_F_CREATE that otherwise ends with ENODEV.
    """
    # The kernel knows IFLA_NETKIT_PRIMARY, and that it is read only.
    probe = message.u8(uapi.IFLA_NETKIT_PRIMARY, 1)
    if attribute:
        probe = message.u32(attribute, UNUSED_VALUE)
    request = message.link(message.text(uapi.IFLA_IFNAME, "netkit-probe"), _info("netkit", probe))
    try:
        socket.ask(Ask("ask for netkit", request, RTM_NEWLINK))
    except KernelError as error:
        if error.errno not in (errno.EINVAL, errno.ERANGE, errno.ENODEV, errno.EOPNOTSUPP):
            raise
        return error.errno in (errno.EINVAL, errno.ERANGE)
    return False


def _info(kind: str, data: bytes) -> bytes:
    return message.nested(
        uapi.IFLA_LINKINFO,
        message.text(uapi.IFLA_INFO_KIND, kind),
        message.attribute(uapi.IFLA_INFO_DATA, data),
    )


def _netkit_attributes(spec: LinkSpec) -> bytes:
    attributes = [message.u32(uapi.IFLA_NETKIT_MODE, NETKIT_MODE[spec.mode])]
    if spec.pairing == "single":
        attributes.append(message.u32(uapi.IFLA_NETKIT_PAIRING, NETKIT_PAIRING["single"]))
    else:
        attributes += [
            message.u32(uapi.IFLA_NETKIT_POLICY, NETKIT_POLICY[spec.policy]),
            message.u32(uapi.IFLA_NETKIT_PEER_POLICY, NETKIT_POLICY[spec.peer_policy]),
        ]
        # Defaults are left out: kernels before the attribute ignore it, and mean the default.
        if spec.scrub != "default":
            attributes.append(message.u32(uapi.IFLA_NETKIT_SCRUB, NETKIT_SCRUB[spec.scrub]))
        if spec.peer_scrub != "default":
            attributes.append(
                message.u32(uapi.IFLA_NETKIT_PEER_SCRUB, NETKIT_SCRUB[spec.peer_scrub])
            )
    if spec.headroom:
        attributes.append(message.u16(uapi.IFLA_NETKIT_HEADROOM, spec.headroom))
    if spec.tailroom:
        attributes.append(message.u16(uapi.IFLA_NETKIT_TAILROOM, spec.tailroom))
    return b"".join(attributes)


def _create(socket: NetlinkSocket, spec: LinkSpec, asked: str, data: bytes) -> Link:
    is_single = spec.pairing == "single"
    request = message.link(
        message.text(uapi.IFLA_IFNAME, spec.name),
        message.u32(uapi.IFLA_MTU, spec.mtu),
        message.mac(uapi.IFLA_ADDRESS, spec.mac) if spec.mac else b"",
        message.u32(uapi.IFLA_NUM_RX_QUEUES, spec.rx_queues) if is_single else b"",
        _info(spec.kind, data),
        flags=IFF_UP if is_single else 0,
    )
    return _make(socket, spec.name, spec.alias, asked, request)


def _make(socket: NetlinkSocket, name: str, alias: str, asked: str, request: bytes) -> Link:
    marking = set_alias(name, alias)
    create = Ask(asked, request, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO)
    # Together, so that no process dies in between. But the kernel goes on after a refusal: where
    # the name is taken, the mark would go to the device that has it.
    is_taken = get(socket, name=name) is not None
    try:
        echoed, _ = (
            socket.ask(create) + socket.ask(marking) if is_taken else socket.ask(create, marking)
        )
    except KernelError as error:
        # A device without our mark would not be known as ours later on.
        if error.asked == marking.asked:
            _delete_unmarked(socket, name, error)
        raise
    if echoed:
        return _read(echoed[0])
    link = get(socket, name=name)  # kernels before 6.2 do not echo
    if link is None:
        raise KernelError(asked, errno.ENODEV)
    return link


def _delete_unmarked(socket: NetlinkSocket, name: str, error: KernelError) -> None:
    try:
        if unmarked := get(socket, name=name):
            delete(socket, unmarked.index, unmarked.name)
    except KernelError:
        raise LostAnswer(error.asked, error.errno, error.text) from error


def _read(answer: bytes) -> Link:
    _, _, index, flags, _ = message.IFINFOMSG.unpack_from(answer)
    attributes = message.Attributes(answer[message.IFINFOMSG.size :])
    info = attributes.nest(uapi.IFLA_LINKINFO)
    kind = info.text(uapi.IFLA_INFO_KIND)
    own = info.nest(uapi.IFLA_INFO_DATA if kind == "netkit" else 0)
    xdp = attributes.nest(uapi.IFLA_XDP)

    def name(attribute: int, names: dict[str, int]) -> str | None:
        value = own.number(attribute)
        by_number = {number: name for name, number in names.items()}
        return None if value is None else by_number.get(value, str(value))

    return Link(
        index=index,
        name=attributes.text(uapi.IFLA_IFNAME) or "",
        kind=kind,
        up=bool(flags & IFF_UP),
        mtu=attributes.number(uapi.IFLA_MTU) or 0,
        mac=attributes.mac(uapi.IFLA_ADDRESS),
        alias=attributes.text(uapi.IFLA_IFALIAS),
        peer_index=attributes.number(uapi.IFLA_LINK),
        rx_queues=attributes.number(uapi.IFLA_NUM_RX_QUEUES),
        primary=bool(own.number(uapi.IFLA_NETKIT_PRIMARY)) if kind == "netkit" else None,
        pairing=name(uapi.IFLA_NETKIT_PAIRING, NETKIT_PAIRING),
        mode=name(uapi.IFLA_NETKIT_MODE, NETKIT_MODE),
        policy=name(uapi.IFLA_NETKIT_POLICY, NETKIT_POLICY),
        peer_policy=name(uapi.IFLA_NETKIT_PEER_POLICY, NETKIT_POLICY),
        scrub=name(uapi.IFLA_NETKIT_SCRUB, NETKIT_SCRUB),
        peer_scrub=name(uapi.IFLA_NETKIT_PEER_SCRUB, NETKIT_SCRUB),
        headroom=own.number(uapi.IFLA_NETKIT_HEADROOM),
        tailroom=own.number(uapi.IFLA_NETKIT_TAILROOM),
        # Where there are two, one of them in hardware, only the numbers by mode are given.
        xdp_program=xdp.number(uapi.IFLA_XDP_PROG_ID) or xdp.number(uapi.IFLA_XDP_DRV_PROG_ID),
    )

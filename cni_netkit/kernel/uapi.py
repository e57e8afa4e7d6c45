"""Attribute tables and constants that pyroute2 does not have, each with its kernel header."""

from pyroute2.netlink import NLA_F_NESTED, genlmsg, nla
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg, ifinfveth

# include/uapi/linux/netlink.h
NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12
NETLINK_GENERIC = 16
SOL_NETLINK = 270
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
NETLINK_GET_STRICT_CHK = 12
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_ECHO = 0x8
NLM_F_DUMP = 0x300
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLM_F_NONREC = 0x100
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200
NLM_F_DUMP_INTR = 0x10
NLMSGERR_ATTR_MSG = 1

# include/uapi/linux/rtnetlink.h
RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_SETLINK = 19
RTM_NEWADDR = 20
RTM_GETADDR = 22
RTM_NEWROUTE = 24
RTM_GETROUTE = 26
RTM_NEWNSID = 88
RTM_GETNSID = 90
RTPROT_BOOT = 3
RTN_UNICAST = 1
RT_SCOPE_UNIVERSE = 0
RT_SCOPE_LINK = 253
RTM_F_FIB_MATCH = 0x2000
RTNH_F_ONLINK = 4

# include/uapi/linux/rtnetlink.h, enum rtattr_type_t, RTAX_*; include/uapi/linux/if_addr.h, IFA_*
RTA_DST = 1
RTA_OIF = 4
RTA_GATEWAY = 5
RTA_PRIORITY = 6
RTA_PREFSRC = 7
RTA_METRICS = 8
RTA_TABLE = 15
RTAX_MTU = 2
RTAX_ADVMSS = 8
IFA_ADDRESS = 1
IFA_LOCAL = 2
IFA_FLAGS = 8

# include/uapi/linux/if_link.h, IFLA_*; veth.h
IFLA_ADDRESS = 1
IFLA_IFNAME = 3
IFLA_MTU = 4
IFLA_LINKINFO = 18
IFLA_IFALIAS = 20
IFLA_GROUP = 27
IFLA_NET_NS_FD = 28
IFLA_EXT_MASK = 29
IFLA_NUM_RX_QUEUES = 32
IFLA_TARGET_NETNSID = 46
IFLA_INFO_KIND = 1
IFLA_INFO_DATA = 2
VETH_INFO_PEER = 1
IFLA_NETKIT_PEER_INFO = 1
IFLA_NETKIT_PRIMARY = 2
IFLA_NETKIT_POLICY = 3
IFLA_NETKIT_PEER_POLICY = 4
IFLA_NETKIT_MODE = 5
IFLA_NETKIT_SCRUB = 6
IFLA_NETKIT_PEER_SCRUB = 7
IFLA_NETKIT_HEADROOM = 8
IFLA_NETKIT_TAILROOM = 9
IFLA_NETKIT_PAIRING = 10
RTEXT_FILTER_SKIP_STATS = 8

# include/uapi/linux/if.h, include/uapi/linux/if_addr.h
IFF_UP = 0x1
IFA_F_NODAD = 0x02
IFA_F_NOPREFIXROUTE = 0x200

# include/uapi/linux/genetlink.h
GENL_ID_CTRL = 16
CTRL_CMD_GETFAMILY = 3

# include/uapi/linux/nsfs.h, include/uapi/linux/sched.h
NS_GET_NSTYPE = 0xB703
CLONE_NEWNET = 0x40000000

# include/uapi/linux/if_link.h, enum netkit_mode, netkit_action, netkit_scrub, netkit_pairing
NETKIT_MODE = {"l2": 0, "l3": 1}
NETKIT_POLICY = {"forward": 0, "blackhole": 2}
NETKIT_SCRUB = {"none": 0, "default": 1}
NETKIT_PAIRING = {"pair": 0, "single": 1}


class netkit(nla):
    """IFLA_INFO_DATA of kind "netkit": include/uapi/linux/if_link.h, IFLA_NETKIT_*."""

    prefix = "IFLA_NETKIT_"
    nla_map = (
        ("IFLA_NETKIT_UNSPEC", "none"),
        ("IFLA_NETKIT_PEER_INFO", "peer_info"),
        ("IFLA_NETKIT_PRIMARY", "uint8"),
        ("IFLA_NETKIT_POLICY", "uint32"),
        ("IFLA_NETKIT_PEER_POLICY", "uint32"),
        ("IFLA_NETKIT_MODE", "uint32"),
        ("IFLA_NETKIT_SCRUB", "uint32"),
        ("IFLA_NETKIT_PEER_SCRUB", "uint32"),
        ("IFLA_NETKIT_HEADROOM", "uint16"),
        ("IFLA_NETKIT_TAILROOM", "uint16"),
        ("IFLA_NETKIT_PAIRING", "uint32"),
    )

    @staticmethod
    def peer_info(self, *_args, **_kwargs):  # type: ignore[no-untyped-def]  # noqa: D102, PLW0211
        # struct ifinfomsg and IFLA_*, the same form as VETH_INFO_PEER.
        return ifinfveth


ifinfmsg.ifinfo.register_link_kind(module={"netkit": netkit})

# include/uapi/linux/netdev.h
NETDEV_CMD_QUEUE_GET = 10
NETDEV_CMD_QUEUE_CREATE = 16
NETDEV_QUEUE_TYPE_RX = 0


class queue_message(genlmsg):
    """Message of family "netdev" about a queue: include/uapi/linux/netdev.h, NETDEV_A_QUEUE_*."""

    prefix = "NETDEV_A_QUEUE_"
    nla_map = (
        ("NETDEV_A_QUEUE_UNSPEC", "none"),
        ("NETDEV_A_QUEUE_ID", "uint32"),
        ("NETDEV_A_QUEUE_IFINDEX", "uint32"),
        ("NETDEV_A_QUEUE_TYPE", "uint32"),
        ("NETDEV_A_QUEUE_NAPI_ID", "uint32"),
        ("NETDEV_A_QUEUE_DMABUF", "uint32"),
        ("NETDEV_A_QUEUE_IO_URING", "hex"),
        ("NETDEV_A_QUEUE_XSK", "hex"),
        ("NETDEV_A_QUEUE_LEASE", "lease"),
    )

    class lease(nla):
        """NETDEV_A_LEASE_*."""

        # The kernel parses this nest strictly: without the bit it answers EINVAL.
        nla_flags = NLA_F_NESTED
        prefix = "NETDEV_A_LEASE_"
        nla_map = (
            ("NETDEV_A_LEASE_UNSPEC", "none"),
            ("NETDEV_A_LEASE_IFINDEX", "uint32"),
            ("NETDEV_A_LEASE_QUEUE", "queue"),
            ("NETDEV_A_LEASE_NETNS_ID", "int32"),
        )

        class queue(nla):
            """NETDEV_A_QUEUE_ID and NETDEV_A_QUEUE_TYPE of the other side's queue."""

            nla_flags = NLA_F_NESTED
            prefix = "NETDEV_A_QUEUE_"
            nla_map = (
                ("NETDEV_A_QUEUE_UNSPEC", "none"),
                ("NETDEV_A_QUEUE_ID", "uint32"),
                ("NETDEV_A_QUEUE_IFINDEX", "uint32"),
                ("NETDEV_A_QUEUE_TYPE", "uint32"),
            )

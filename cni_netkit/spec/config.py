"""The network configuration of plugin type "netkit", believed only after every field was looked at.

Keys and meanings are the contract's (README, "Configuration"); names follow the kernel's own
(Documentation/netlink/specs/rt-link.yaml) in camelCase.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from cni_netkit.spec import faults, ipam
from cni_netkit.spec.addresses import Network
from cni_netkit.spec.annotations import CHOICES, Chosen, choose, valid_choice
from cni_netkit.spec.dns import DNS, CapabilityDNS
from cni_netkit.spec.errors import CNIError
from cni_netkit.spec.faults import Fault
from cni_netkit.spec.forms import SUBNET
from cni_netkit.spec.lease import Lease
from cni_netkit.spec.model import IFNAME, PATH, Form, Model, at_most, fold_keys, zero_or
from cni_netkit.spec.runtime import DeviceID, Limits, RuntimeConfig

MTU = zero_or(68, 65535, "automatic")

FOREIGN_KEYS = frozenset(
    {"type", "args", "capabilities", "cniVersions", "disableCheck", "disableGC"}
    | {"loadOnlyInlinedPlugins", "plugins"}
)
"""Keys that the specification or libcni puts beside ours, and that we have no use for."""

BRIDGE_KEYS = frozenset(
    {"bridge", "isGateway", "isDefaultGateway", "forceAddress", "hairpinMode", "promiscMode"}
)
"""Keys that are left standing where "netkit" is written in the place of "bridge"."""

PLANNED_KEY = Form("left out", schema={"type": "null"})
RANGES = at_most(1024, "subnets of the form 10.244.0.0/16")
CHOICE_WORDS = f"the keys that a pod may choose: {', '.join(CHOICES)}"
CHOICE = Form(f"one of {CHOICE_WORDS}", valid_choice, {"enum": [*CHOICES]})

Forwarding = Literal["forward", "blackhole"]
Scrubbing = Literal["default", "none"]


class Log(Model):
    """Where the log goes besides standard error, and from which level on."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Lines below this level are left out. What works is `debug`."""

    file: Annotated[str, PATH] | None = None
    """A file that gets a copy of each line. Standard error always has them."""


class NetConf(Model):
    """A network configuration of type "netkit"."""

    cni_version: Annotated[str, Field(alias="cniVersion")] = "0.1.0"
    """The version of the specification that request and result are in: 0.1.0, 0.2.0, 0.3.0, 0.3.1,
    0.4.0, 1.0.0 or 1.1.0. In a list it stands beside `plugins`. Set it: without it 0.1.0 holds,
    whose results have no interfaces, and in which there is no CHECK, GC or STATUS.
    """

    name: str
    """The network's name: a letter or digit, then also `_`, `.` and `-`. In a list it stands beside
    `plugins`.
    """

    pairing: Literal["pair", "single"] = "pair"
    """A pair, its primary end on the host and its peer end in the container; or one device in the
    container, for AF_XDP and io_uring.

    Linux: 6.7, `single` 7.1
    """

    mode: Literal["l3", "l2"] = "l3"
    """netkit's operating mode: without MAC addresses and neighbours, or with them.

    Linux: 6.7
    """

    policy: Forwarding = "forward"
    """What the primary end does with a packet while no BPF program is attached to it.

    Linux: 6.7
    Needs: `pairing: pair` for `blackhole`
    """

    peer_policy: Forwarding = "forward"
    """The same of the peer end.

    Linux: 6.7
    Needs: `pairing: pair` for `blackhole`
    """

    scrub: Scrubbing = "default"
    """Whether packets lose mark and priority where they leave the primary end's namespace.

    Linux: 6.12
    Needs: `pairing: pair` for `none`
    """

    peer_scrub: Scrubbing = "default"
    """The same of the peer end.

    Linux: 6.12
    Needs: `pairing: pair` for `none`
    """

    headroom: Annotated[int, Field(ge=0, le=65535)] = 0
    """Room before each packet, in bytes.

    Linux: 6.14
    """

    tailroom: Annotated[int, Field(ge=0, le=65535)] = 0
    """Room behind each packet, in bytes.

    Linux: 6.14
    """

    mtu: Annotated[int, MTU] = 0
    """MTU of both ends, in bytes. Automatic is that of `lease.device`, else of the device that the
    default route uses, else 1500.
    """

    if_name: Annotated[str, IFNAME] | None = None
    """Name of the device in the container, where it shall differ from CNI_IFNAME: for a single
    device behind another plugin.
    """

    ipam: dict[str, Any] | None = None
    """Who gives addresses. `type` must be in it: `host-local` and `static` are built in, any other
    type is executed from CNI_PATH.
    """

    ip_masq: bool = False
    """Masquerade what leaves the node from the container's addresses.

    Needs: `ipam`, and `pairing: pair`
    """

    ip_masq_backend: Literal["nftables"] = "nftables"
    """What masquerades."""

    non_masquerade_cidrs: Annotated[
        tuple[Annotated[Network, SUBNET], ...],
        Field(alias="nonMasqueradeCIDRs", strict=False),
        RANGES,
    ] = ()
    """What goes to these ranges is not masqueraded, for example to other nodes' pods; nor is what
    goes to the container's own subnet, and multicast. The newest list holds for all containers of
    the network at once.

    Needs: `ipMasq: true`
    """

    lease: Lease | None = None
    """Receive queues of a physical NIC for the container's device.

    Linux: 7.1
    Needs: a NIC whose driver lends queues, and no `fallback`
    """

    claims: bool = False
    """A single device for each NIC that the pod has queues of by its ResourceClaims (`cni-netkit
    dra`), with those queues; for a pod without claims nothing. The devices are called as the claim
    says, else `ifName`, which is `zc` here, and a number.

    Linux: 7.1
    Needs: `pairing: single`, Kubernetes, and no `lease`, `ipam`
    """

    device_id: Annotated[DeviceID, Field(alias="deviceID")] = ""
    """The NIC, as a runtime writes it beside these keys (Multus, for a network with a resource)."""

    pci_bus_id: Annotated[DeviceID, Field(alias="pciBusID")] = ""
    """The same under another name."""

    bpf: Annotated[Any, PLANNED_KEY] = None
    """BPF programs for the ends. Planned: refused with error 2 until then."""

    fallback: Literal["none", "veth"] = "none"
    """On a kernel without netkit: an error, or a veth pair in its place, of which result and log
    tell.

    Linux: any
    Needs: `pairing: pair`, and no `lease`, for `veth`
    """

    dns: DNS | None = None
    """Name servers for the result, instead of IPAM's."""

    log: Log = Log()
    """The log."""

    allow_annotations: Annotated[
        tuple[Annotated[str, CHOICE], ...], Field(strict=False), Form(f"a list of {CHOICE_WORDS}")
    ] = ()
    """What a pod may choose by annotation (`cni-netkit/mode: l2`), with containerd and CRI-O.

    Needs: the capability `io.kubernetes.cri.pod-annotations`
    """

    runtime_config: RuntimeConfig = RuntimeConfig()
    """What the runtime passes for the capabilities that are declared; it writes this itself."""

    prev_result: dict[str, Any] | None = None
    """The result of the plugins before; the runtime writes this itself."""

    @model_validator(mode="after")
    def _combinations(self) -> "NetConf":
        faults = list(_impossible(self))
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def mac(self) -> str | None:
        """The hardware address that the runtime asked for, if any."""
        return self.runtime_config.mac

    @property
    def nic_id(self) -> str:
        """What the runtime calls the NIC, if anything.

        First what stands beside our keys: Multus writes there what a device plugin gave to the pod,
        whereas a capability may come from the pod's own annotation.
        """
        return self.device_id or self.pci_bus_id or self.runtime_config.device_id or ""

    @property
    def limits(self) -> Limits | None:
        """How much the container may receive and send; None: as much as it can."""
        limits = self.runtime_config.bandwidth
        return limits if limits and (limits.ingress_rate or limits.egress_rate) else None


def _impossible(conf: NetConf) -> Iterable[str]:
    """Combinations that the kernel would refuse (drivers/net/netkit.c, netkit_new_link())."""
    if conf.pairing == "single":
        yield from _impossible_for_single(conf)
    if conf.lease is not None:
        yield from _impossible_with_lease(conf, conf.lease)
    if conf.claims:
        yield from _impossible_with_claims(conf)
    if conf.mac is not None and conf.mode == "l3":
        yield 'a MAC address needs mode "l2": an l3 device has none'
    if conf.ip_masq and conf.ipam is None:
        yield "ipMasq needs ipam: there are no addresses to masquerade"
    if conf.non_masquerade_cidrs and not conf.ip_masq:
        yield "nonMasqueradeCIDRs needs ipMasq: without it nothing is masqueraded"
    if conf.ipam is not None and not isinstance(conf.ipam.get("type"), str):
        yield "ipam.type is missing: name an IPAM plugin, for example host-local"


def _impossible_for_single(conf: NetConf) -> Iterable[str]:
    for name, value, default in (
        ("policy", conf.policy, "forward"),
        ("peerPolicy", conf.peer_policy, "forward"),
        ("scrub", conf.scrub, "default"),
        ("peerScrub", conf.peer_scrub, "default"),
        ("fallback", conf.fallback, "none"),
    ):
        if value != default:
            yield f'{name} "{value}" needs pairing "pair": a single device has no other end'
    if conf.ip_masq:
        yield 'ipMasq needs pairing "pair": no packet leaves the host through a single device'
    if conf.limits is not None:
        yield (
            'the capability bandwidth needs pairing "pair": what a single device receives and '
            "sends passes no device of the host that could shape it"
        )


def _impossible_with_lease(conf: NetConf, lease: Lease) -> Iterable[str]:
    if conf.fallback == "veth":
        yield 'lease and fallback "veth" exclude each other: a veth device cannot lease queues'
    if lease.workload == "af_xdp" and conf.pairing != "single":
        yield 'lease.workload "af_xdp" needs pairing "single" (an XSK binds to a single device)'


def _impossible_with_claims(conf: NetConf) -> Iterable[str]:
    if conf.pairing != "single":
        yield 'claims need pairing "single": queues that are claimed come on devices of their own'
    if conf.lease is not None:
        yield "claims and lease exclude each other: the claim says which queues"
    if conf.ipam is not None:
        yield "claims and ipam exclude each other: a plugin before this one gives the addresses"


PLANNED = ("bpf",)
"""Keys of the contract that this version knows and refuses."""


def validate(raw: Mapping[str, Any], requested_mac: str | None = None) -> NetConf:
    """Turn a raw network configuration into a `NetConf`, a pod's own choices included.

    `requested_mac` is MAC of CNI_ARGS (podman); args.cni.mac and the mac capability go before it.
    Raises error 2 where there are only unknown or planned keys, else 7; the text names every
    fault with its path.
    """
    own = {
        key: value
        for key, value in raw.items()
        if key not in FOREIGN_KEYS and not key.startswith("cni.dev/")
    }
    chosen = choose(own, own.get("runtimeConfig"), raw.get("capabilities"))
    own = chosen.config
    runtime = own.get("runtimeConfig")
    runtime = {} if runtime is None else runtime
    if isinstance(runtime, dict):
        runtime = fold_keys(RuntimeConfig, runtime)
        if isinstance(runtime.get("dns"), dict):
            runtime["dns"] = fold_keys(CapabilityDNS, runtime["dns"])
        if isinstance(runtime.get("bandwidth"), dict):
            folded = fold_keys(Limits, runtime["bandwidth"])
            runtime["bandwidth"] = {key: value for key, value in folded.items() if value != []}
        runtime = {key: value for key, value in runtime.items() if value not in (None, "", [])}
        if mac := requested_mac_of(raw) or requested_mac:
            runtime.setdefault("mac", mac)
        own["runtimeConfig"] = runtime
    return _validated(chosen)


def requested_mac_of(raw: Mapping[str, Any]) -> str | None:
    """args.cni.mac of the configuration (CNI conventions document)."""
    arguments = raw.get("args")
    cni = arguments.get("cni") if isinstance(arguments, dict) else None
    mac = cni.get("mac") if isinstance(cni, dict) else None
    return mac if isinstance(mac, str) and mac else None


def _validated(chosen: Chosen) -> NetConf:
    raw = chosen.config
    found: list[Fault] = []
    conf: NetConf | None = None
    try:
        conf = NetConf.model_validate(raw)
    except ValidationError as error:
        found += faults.read(error, NetConf)
    found += ipam.find_faults(raw.get("ipam"))
    found += [
        Fault(key, "planned, not built yet", raw[key], unknown=True)
        for key in PLANNED
        if raw.get(key) is not None
    ]
    if conf is None or found:
        raise _refusal(chosen, found)
    return conf


def _refusal(chosen: Chosen, found: list[Fault]) -> CNIError:
    error = faults.refusal(found, chosen.configuration, chosen.named)
    if BRIDGE_KEYS.intersection(fault.path for fault in found if fault.unknown):
        error.also(
            "leave out what is meant for a bridge: netkit has none, its host end always is "
            "the gateway; the default route that isDefaultGateway makes goes into ipam.routes"
        )
    return error

"""The network configuration of plugin type "netkit", believed only after every field was looked at.

Keys and meanings are the contract's (README, "Configuration"); names follow the kernel's own
(Documentation/netlink/specs/rt-link.yaml) in camelCase.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from cni_netkit.spec.annotations import Chosen, choose, valid_choice
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.spec.lease import LIST, WORD, Lease
from cni_netkit.spec.model import Foreign, Model, fold_keys, valid_ifname

MTU_MIN, MTU_MAX = 68, 65535
DEVICE_ID_FORM = r"[A-Za-z0-9][A-Za-z0-9_.:@-]*"
"""What becomes part of a path under /sys/bus."""

RATE_MAX = 2**64 - 1
BURST_MAX = 8 * (2**32 - 1) - 1
"""In bits, as in the reference plugin: below 4 GiB less a byte."""

FOREIGN_KEYS = frozenset(
    {"type", "args", "capabilities", "cniVersions", "disableCheck", "disableGC"}
    | {"loadOnlyInlinedPlugins", "plugins"}
)
"""Keys that the specification or libcni puts beside ours, and that we have no use for."""

BRIDGE_KEYS = frozenset(
    {"bridge", "isGateway", "isDefaultGateway", "forceAddress", "hairpinMode", "promiscMode"}
)
"""Keys that are left standing where "netkit" is written in the place of "bridge"."""

Forwarding = Literal["forward", "blackhole"]
Scrubbing = Literal["default", "none"]


def _valid_mtu(value: int) -> int:
    if value != 0 and not MTU_MIN <= value <= MTU_MAX:
        raise ValueError(f"must be 0 (automatic) or from {MTU_MIN} to {MTU_MAX}")
    return value


def _valid_mac(value: str) -> str:
    if not re.fullmatch(r"([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}", value):
        raise ValueError("is not of the form 02:00:00:00:00:01")
    if int(value[:2], 16) & 1:
        raise ValueError("is a multicast address, no device can have it")
    if value == "00:00:00:00:00:00":
        raise ValueError("is all zero")
    return value.lower()


def _valid_device_id(value: str) -> str:
    if value and not re.fullmatch(DEVICE_ID_FORM, value):
        raise ValueError("is neither a bus address such as 0000:03:00.0 nor a device's name")
    return value


DeviceID = Annotated[str, AfterValidator(_valid_device_id)]


def _valid_rate(value: int) -> int:
    if value != 0 and not 8 <= value <= RATE_MAX:
        raise ValueError(f"must be 0 (no limit) or from 8 to {RATE_MAX} bits a second")
    return value


def _valid_burst(value: int) -> int:
    if value != 0 and not 8 <= value <= BURST_MAX:
        raise ValueError(f"must be 0 (no limit) or from 8 to {BURST_MAX} bits")
    return value


class DNS(Foreign):
    """Specification section 2, "dns"; overrides what IPAM says."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class CapabilityDNS(Foreign):
    """The dns capability: other names than in the configuration (CNI conventions document)."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class Limits(Model):
    """The bandwidth capability: bits a second, and bits at once; 0 and 0: no limit.

    CNI conventions document. The kernel counts in bytes, and has 32 bits for a burst
    (TCA_TBF_BURST, include/uapi/linux/pkt_sched.h).
    """

    ingress_rate: Annotated[int, AfterValidator(_valid_rate)] = 0
    ingress_burst: Annotated[int, AfterValidator(_valid_burst)] = 0
    egress_rate: Annotated[int, AfterValidator(_valid_rate)] = 0
    egress_burst: Annotated[int, AfterValidator(_valid_burst)] = 0

    @model_validator(mode="after")
    def _rate_and_burst(self) -> "Limits":
        for which, rate, burst in (
            ("ingress", self.ingress_rate, self.ingress_burst),
            ("egress", self.egress_rate, self.egress_burst),
        ):
            if bool(rate) != bool(burst):
                given, missing = ("Rate", "Burst") if rate else ("Burst", "Rate")
                raise ValueError(f"{which}{given} needs {which}{missing}: set both, or neither")
        return self


class RuntimeConfig(Foreign):
    """Per-container values for the capabilities that the configuration declares."""

    mac: Annotated[str, AfterValidator(_valid_mac)] | None = None
    ips: tuple[str, ...] = ()
    ip_ranges: tuple[tuple[dict[str, Any], ...], ...] = ()
    dns: CapabilityDNS | None = None
    device_id: Annotated[DeviceID | None, Field(alias="deviceID")] = None
    bandwidth: Limits | None = None


class Log(Model):
    """Where the log goes besides standard error, and from which level on."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    file: str | None = None


class NetConf(Model):
    """A network configuration of type "netkit"."""

    cni_version: Annotated[str, Field(alias="cniVersion")] = "0.1.0"
    name: str
    pairing: Literal["pair", "single"] = "pair"
    mode: Literal["l3", "l2"] = "l3"
    policy: Forwarding = "forward"
    peer_policy: Forwarding = "forward"
    scrub: Scrubbing = "default"
    peer_scrub: Scrubbing = "default"
    headroom: Annotated[int, Field(ge=0, le=65535)] = 0
    tailroom: Annotated[int, Field(ge=0, le=65535)] = 0
    mtu: Annotated[int, AfterValidator(_valid_mtu)] = 0
    if_name: Annotated[str, AfterValidator(valid_ifname)] | None = None
    ipam: dict[str, Any] | None = None
    ip_masq: bool = False
    ip_masq_backend: Literal["nftables"] = "nftables"
    lease: Lease | None = None
    device_id: Annotated[DeviceID, Field(alias="deviceID")] = ""
    pci_bus_id: Annotated[DeviceID, Field(alias="pciBusID")] = ""
    bpf: Any = None
    fallback: Literal["none", "veth"] = "none"
    dns: DNS | None = None
    log: Log = Log()
    allow_annotations: Annotated[
        tuple[Annotated[str, AfterValidator(valid_choice)], ...], Field(strict=False)
    ] = ()
    runtime_config: RuntimeConfig = RuntimeConfig()
    prev_result: dict[str, Any] | None = None

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
    if conf.mac is not None and conf.mode == "l3":
        yield 'a MAC address needs mode "l2": an l3 device has none'
    if conf.ip_masq and conf.ipam is None:
        yield "ipMasq needs ipam: there are no addresses to masquerade"
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
    unsupported: list[tuple[str, object]] = []
    faults: list[str] = []
    conf: NetConf | None = None
    try:
        conf = NetConf.model_validate(raw)
    except ValidationError as error:
        for fault in error.errors(include_url=False):
            path = ".".join(str(part) for part in fault["loc"] if part not in (WORD, LIST))
            if fault["type"] == "extra_forbidden":
                unsupported.append((path, fault["input"]))
            else:
                faults.append(_describe(chosen.named(path), fault["msg"], fault["input"]))
    unsupported += [(path, value) for path in PLANNED if (value := _at(raw, path)) is not None]
    if unsupported and not faults:
        details = "; ".join(f"{path}: {value!r}" for path, value in unsupported)
        if BRIDGE_KEYS.intersection(path for path, _ in unsupported):
            details += (
                "; leave out what is meant for a bridge: netkit has none, its host end always is "
                "the gateway; the default route that isDefaultGateway makes goes into ipam.routes"
            )
        raise CNIError(
            Code.UNSUPPORTED_FIELD,
            "the network configuration has keys that are not supported: "
            + ", ".join(path + _planned(path) for path, _ in unsupported),
            details,
        )
    if faults:
        faults += [f"{path} is not supported{_planned(path)}" for path, _ in unsupported]
        raise CNIError(
            Code.INVALID_CONFIGURATION,
            f"{chosen.configuration} is not valid: {'; '.join(faults)}",
            "mend the named keys; the README lists every key with its values",
        )
    assert conf is not None
    return conf


def _planned(path: str) -> str:
    return " (planned, not built yet)" if path in PLANNED else ""


def _describe(path: str, message: str, value: object) -> str:
    message = message.removeprefix("Value error, ")
    if not path:
        return message
    if isinstance(value, dict):
        return f"{path}: {message}"
    return f"{path}: {message[:1].lower()}{message[1:]} (found {value!r})"


def _at(raw: Mapping[str, Any], path: str) -> object:
    value: Any = raw
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value

"""The host-local IPAM: same configuration, files and lock as the reference plugin's.

One file an address under dataDir/NETWORK, named as the address, holding the container id, CR LF and
the interface name; `last_reserved_ip.N` remembers where range set N goes on; flock(2) on `lock`
keeps two from allocating at once. So this one and the reference plugin can take turns.
Model: the host-local documentation of containernetworking/plugins.
"""

import contextlib
import fcntl
import os
from collections.abc import Collection, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from cni_netkit.ipam.base import Address, Context, believe, canonical, capability, requested
from cni_netkit.spec.config import Foreign
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.spec.result import JSON, Result

DATA_DIR = "/var/lib/cni/networks"
LINE_BREAK = "\r\n"
LAST_RESERVED = "last_reserved_ip."


class Range(Foreign):
    """Part of a subnet from which addresses are given."""

    subnet: IPv4Network | IPv6Network
    range_start: Any = None
    range_end: Any = None
    gateway: Any = None

    @field_validator("range_start", "range_end", "gateway")
    @classmethod
    def _address(cls, value: object) -> Address | None:
        return canonical(value) if value not in (None, "") else None

    @model_validator(mode="after")
    def _inside(self) -> "Range":
        if self.subnet.prefixlen > self.subnet.max_prefixlen - 2:
            raise ValueError(f"the subnet {self.subnet} is too small to allocate from")
        for name in ("range_start", "range_end", "gateway"):
            address = getattr(self, name)
            if address is not None and address not in self.subnet:
                raise ValueError(f"{name.replace('_', ' ')} {address} is not in {self.subnet}")
        if int(self.first) > int(self.last):
            raise ValueError(f"the range {self.first} to {self.last} runs backwards")
        return self

    @property
    def first(self) -> Address:
        """First address, inclusive."""
        return self.range_start or self.subnet.network_address + 1

    @property
    def last(self) -> Address:
        """Last address, inclusive; without rangeEnd all of the subnet but an IPv4 broadcast."""
        if self.range_end:
            return self.range_end  # type: ignore[no-any-return]
        end = self.subnet.broadcast_address
        return end - 1 if self.subnet.version == 4 else end

    @property
    def router(self) -> Address:
        """The gateway; the first address of the subnet if none is configured."""
        return self.gateway or self.subnet.network_address + 1

    def has(self, address: Address) -> bool:
        """Whether the address can be given from this range."""
        return address.version == self.subnet.version and int(self.first) <= int(address) <= int(
            self.last
        )

    def overlaps(self, other: "Range") -> bool:
        """Whether an address could come from both."""
        return self.subnet.version == other.subnet.version and (
            int(self.first) <= int(other.last) and int(other.first) <= int(self.last)
        )


class Config(Foreign):
    """The "ipam" object of type host-local."""

    ranges: tuple[tuple[Range, ...], ...] = ()
    subnet: Any = None
    range_start: Any = None
    range_end: Any = None
    gateway: Any = None
    routes: tuple[JSON, ...] = ()
    data_dir: str = Field(DATA_DIR)
    resolv_conf: str = ""

    @field_validator("routes", mode="before")
    @classmethod
    def _none(cls, value: object) -> object:
        return value or ()

    @field_validator("routes")
    @classmethod
    def _destinations(cls, value: tuple[JSON, ...]) -> tuple[JSON, ...]:
        for route in value:
            ip_network(route.get("dst", ""), strict=False)
        return value

    @field_validator("ranges")
    @classmethod
    def _not_empty(cls, value: tuple[tuple[Range, ...], ...]) -> tuple[tuple[Range, ...], ...]:
        for number, range_set in enumerate(value):
            if not range_set:
                raise ValueError(f"range set {number} is empty")
            if len({each.subnet.version for each in range_set}) > 1:
                raise ValueError(f"range set {number} mixes IPv4 and IPv6")
        return value

    @model_validator(mode="after")
    def _disjoint(self) -> "Config":
        every = [(number, each) for number, range_set in enumerate(self.sets) for each in range_set]
        if not every:
            raise ValueError("no IP ranges are specified: name a subnet or ranges")
        for position, (number, one) in enumerate(every):
            for other_number, other in every[position + 1 :]:
                if one.overlaps(other):
                    raise ValueError(f"range set {number} overlaps with {other_number}")
        return self

    @property
    def sets(self) -> tuple[tuple[Range, ...], ...]:
        """Every range set; a single range in the old style goes first."""
        if not self.subnet:
            return self.ranges
        single = {
            "subnet": self.subnet,
            "rangeStart": self.range_start,
            "rangeEnd": self.range_end,
            "gateway": self.gateway,
        }
        return ((Range.model_validate(single),), *self.ranges)


class HostLocal:
    """host-local for one request."""

    def __init__(self, context: Context) -> None:
        self._context = context
        raw = dict(context.config["ipam"])
        ranges = capability(context, "ipRanges")
        if ranges:
            raw["ranges"] = [*ranges, *(raw.get("ranges") or ())]
        self._config = believe(Config, _with_ipam(context, raw))
        self._folder = Path(self._config.data_dir or DATA_DIR, context.network)
        self._owner = context.container_id + LINE_BREAK + context.ifname

    def add(self) -> Result:
        """One address from every range set, all or none. Raises error 106 when exhausted."""
        wanted = self._requested()
        resolver = _resolver(self._config.resolv_conf)
        ips: list[JSON] = []
        with self._locked():
            for range_set in self._config.sets:
                if any(_range_of(range_set, address) for address in self._owned()):
                    raise CNIError(
                        Code.ALREADY_EXISTS,
                        f"{self._who()} has an address on network {self._context.network} already",
                        "DEL the attachment first",
                    )
            try:
                for number, range_set in enumerate(self._config.sets):
                    ips.append(self._reserve_one(number, range_set, wanted))
                if wanted:
                    raise CNIError(
                        Code.NO_ADDRESS,
                        f"requested addresses {', '.join(map(str, wanted))} are in no range set "
                        f"of network {self._context.network}",
                        f"range sets: {'; '.join(map(_describe, self._config.sets))}",
                    )
            except BaseException:
                self._release()
                raise
        return Result(ips=tuple(ips), routes=self._config.routes, dns=resolver)

    def delete(self) -> None:
        """Release every address of the attachment."""
        with self._locked():
            self._release()

    def check(self) -> None:
        """Raises error 105 if no address is reserved for the attachment."""
        with self._locked():
            if not any(self._owned()):
                raise CNIError(
                    Code.CHECK_DIFFERENCE,
                    f"IPAM: expected an address reserved for {self._who()} under {self._folder}, "
                    "found none",
                )

    def status(self) -> None:
        """Raises error 50 if the store cannot be used. Exhausted ranges are no error."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o755)
            usable = os.access(self._folder, os.R_OK | os.W_OK | os.X_OK)
        except OSError as error:
            raise CNIError(
                Code.NOT_AVAILABLE, f"create the IPAM folder {self._folder}: {error.strerror}"
            ) from None
        if not usable:
            raise CNIError(Code.NOT_AVAILABLE, f"the IPAM folder {self._folder} is not writable")

    def collect(self, valid: Collection[tuple[str, str]]) -> None:
        """Release every address of this network whose owner is not valid."""
        if not self._folder.is_dir():
            return
        owners = {container + LINE_BREAK + ifname for container, ifname in valid}
        # Files that old versions of the reference plugin wrote name the container only.
        owners |= {container for container, _ in valid}
        with self._locked():
            for _, path, owner in self._reservations():
                if owner not in owners:
                    path.unlink(missing_ok=True)

    def _requested(self) -> list[Address]:
        texts = [text for text in (self._context.arguments.get("IP"),) if text]
        found: list[Address] = []
        for text in [*texts, *requested(self._context)]:
            try:
                address = canonical(text.partition("/")[0])
            except ValueError:
                raise CNIError(
                    Code.INVALID_CONFIGURATION, f"the requested address {text!r} is none"
                ) from None
            if address not in found:
                found.append(address)
        return found

    def _reserve_one(self, number: int, range_set: Sequence[Range], wanted: list[Address]) -> JSON:
        """Reserve in one range set, and strike off `wanted` what it served."""
        for address in wanted:
            if each := _range_of(range_set, address):
                if address == each.router:
                    problem = f"{address} is the gateway of {each.subnet}"
                elif self._reserve(address, number):
                    wanted.remove(address)
                    return _entry(address, each)
                else:
                    problem = f"{address} is taken by {self._holder(address)}"
                raise CNIError(
                    Code.NO_ADDRESS,
                    f"the requested address {problem} on network {self._context.network}",
                )
        for address, each in self._candidates(number, range_set):
            if self._reserve(address, number):
                return _entry(address, each)
        raise CNIError(
            Code.NO_ADDRESS,
            f"no address is free in range set {number} ({_describe(range_set)}) "
            f"of network {self._context.network}",
            f"the taken ones are files in {self._folder}; GC releases those of containers that "
            "are gone",
        )

    def _candidates(
        self, number: int, range_set: Sequence[Range]
    ) -> Iterator[tuple[Address, Range]]:
        """Every address of a set once, from the one behind the last reserved one round.

        So a crash-looping container does not see the same address again at once.
        """
        start, at = 0, range_set[0].first - 1
        with contextlib.suppress(OSError, ValueError):
            last = canonical((self._folder / f"{LAST_RESERVED}{number}").read_text().strip())
            for position, each in enumerate(range_set):
                if each.has(last):
                    start, at = position, last
        rounds = [*range_set[start:], *range_set[: start + 1]]
        for position, each in enumerate(rounds):
            first = at + 1 if position == 0 else each.first
            final = at if position == len(rounds) - 1 and position else each.last
            for value in range(int(first), int(final) + 1):
                address = type(each.first)(value)
                if address != each.router and each.has(address):
                    yield address, each

    def _reserve(self, address: Address, number: int) -> bool:
        path = self._folder / str(address)
        try:
            with path.open("x", newline="") as file:
                file.write(self._owner)
        except FileExistsError:
            return False
        except OSError as error:
            path.unlink(missing_ok=True)
            raise _io_failure(path, error) from None
        (self._folder / f"{LAST_RESERVED}{number}").write_text(str(address))
        return True

    def _release(self) -> None:
        found = [path for _, path, owner in self._reservations() if owner == self._owner]
        if not found:
            # As old versions of the reference plugin wrote them.
            found = [
                path
                for _, path, owner in self._reservations()
                if owner == self._context.container_id
            ]
        for path in found:
            path.unlink(missing_ok=True)

    def _owned(self) -> Iterator[Address]:
        owners = (self._owner, self._context.container_id)
        return (address for address, _, owner in self._reservations() if owner in owners)

    def _reservations(self) -> Iterator[tuple[Address, Path, str]]:
        for entry in os.scandir(self._folder):
            try:
                address = ip_address(entry.name)
                with open(entry.path, newline="") as file:
                    owner = file.read().strip()
            except (ValueError, OSError):
                continue  # the lock, last_reserved_ip.N, or just released
            yield address, Path(entry.path), owner

    def _holder(self, address: Address) -> str:
        for found, _, owner in self._reservations():
            if found == address:
                return f"container {owner.replace(LINE_BREAK, ' ')}"
        return "another container"

    def _who(self) -> str:
        return f"{self._context.ifname} of container {self._context.container_id}"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o755)
            lock = (self._folder / "lock").open("a")
        except OSError as error:
            raise _io_failure(self._folder, error) from None
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _with_ipam(context: Context, ipam: JSON) -> Context:
    return Context(**vars(context) | {"config": {**context.config, "ipam": ipam}})


def _range_of(range_set: Sequence[Range], address: Address) -> Range | None:
    return next((each for each in range_set if each.has(address)), None)


def _entry(address: Address, each: Range) -> JSON:
    return {"address": f"{address}/{each.subnet.prefixlen}", "gateway": str(each.router)}


def _describe(range_set: Sequence[Range]) -> str:
    return ", ".join(f"{each.first}-{each.last}" for each in range_set)


def _io_failure(path: Path, error: OSError) -> CNIError:
    return CNIError(Code.IO_FAILURE, f"IPAM: use {path}: {error.strerror}")


def _resolver(path: str) -> JSON:
    """Read a resolv.conf(5) into a dns object of the specification."""
    if not path:
        return {}
    try:
        lines = Path(path).read_text().splitlines()
    except OSError as error:
        raise CNIError(
            Code.INVALID_CONFIGURATION, f"ipam.resolvConf: read {path}: {error.strerror}"
        ) from None
    found: JSON = {"nameservers": [], "search": [], "options": []}
    for line in lines:
        words = line.split()
        if not words or words[0].startswith(("#", ";")):
            continue
        key, values = words[0], words[1:]
        if key == "nameserver":
            found["nameservers"] += values[:1]
        elif key == "domain" and values:
            found["domain"] = values[0]
        elif key in ("search", "options"):
            found[key] += values
    return {key: value for key, value in found.items() if value}

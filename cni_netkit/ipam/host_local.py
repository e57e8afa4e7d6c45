"""The host-local IPAM: same configuration, files and lock as the reference plugin's.

One file an address under dataDir/NETWORK, named as the address, holding the container id, CR LF and
the interface name; `last_reserved_ip.N` remembers where range set N goes on; flock(2) on `lock`
keeps two from allocating at once. So this one and the reference plugin can take turns.
Model: the host-local documentation of containernetworking/plugins.
"""

import contextlib
import errno
import fcntl
import ipaddress
import json
import os
from collections.abc import Collection, Iterator, Sequence
from functools import partial

from cni_netkit import deadline, log
from cni_netkit.ipam.base import (
    Invocation,
    LeftBehind,
    capability_ranges,
    one_per_family,
    requested,
)
from cni_netkit.ipam.owners import Owners, forget
from cni_netkit.spec.addresses import ip_address, ip_interface
from cni_netkit.spec.errors import SHORTAGES, CNIError, Code
from cni_netkit.spec.forms import Address, canonical
from cni_netkit.spec.ipam import DATA_DIR, host_local
from cni_netkit.spec.ranges import Range
from cni_netkit.spec.result import JSON, Result
from cni_netkit.spec.words import shown

LINE_BREAK = "\r\n"
LAST_RESERVED = "last_reserved_ip."
RESOLVER_BYTES = 64 << 10
CUT_OFF = "a reservation was cut off while it was written: it is released"
OWNER_BYTES = 4096
"""A container id and an interface name are a few hundred at most."""


class HostLocal:
    """host-local for one request."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation
        ranges = capability_ranges(invocation)
        ipam = invocation.config["ipam"]
        self._config, self._sets = host_local(json.dumps(ipam), json.dumps(ranges))
        self._folder = f"{self._config.data_dir or DATA_DIR}/{invocation.network}"
        self._owner = invocation.container_id + LINE_BREAK + invocation.ifname
        self._written: list[str] = []

    def add(self) -> Result:
        """One address from every range set, all or none. Raises error 106 when exhausted."""
        sets = self._sets
        one_per_family(self._invocation, [each[0].subnet.version for each in sets])
        wanted = self._requested()
        resolver = _resolver(self._config.resolv_conf)
        ips: list[JSON] = []
        with self._locked():
            owners = self._owners()
            for range_set in sets:
                if self._has_one_of(range_set, owners):
                    raise CNIError(
                        Code.ALREADY_EXISTS,
                        f"{self._who()} has an address on network "
                        f"{self._invocation.network} already",
                        "DEL the attachment first",
                    )
            try:
                for number, range_set in enumerate(sets):
                    ips.append(self._reserve_one(number, range_set, wanted))
                if wanted:
                    raise CNIError(
                        Code.NO_ADDRESS,
                        f"requested addresses {', '.join(map(str, wanted))} are in no range set "
                        f"of network {self._invocation.network}",
                        f"range sets: {'; '.join(map(_describe, sets))}",
                    )
            except BaseException as error:
                self._take_back(error)
                raise
            for ip in ips:
                owners.add(self._owner, _name(ip["address"]))
            owners.remember()
        routes = tuple(route.as_json() for route in self._config.routes)
        return Result(ips=tuple(ips), routes=routes, dns=resolver)

    def _take_back(self, error: BaseException) -> None:
        """Remove what this ADD wrote. Raises `LeftBehind` where that fails."""
        for path in self._written:
            try:
                _unlink(path)
            except OSError as failure:
                raise LeftBehind(
                    Code.IO_FAILURE,
                    f"IPAM: remove {path} again, since {error}: {failure.strerror}",
                    "DEL and GC remove it",
                ) from error

    def delete(self, known: Sequence[str] = ()) -> None:
        """Release every address of the attachment; without `known` ones all files are read."""
        with self._locked():
            self._release(known)

    def check(self, known: Sequence[str] = ()) -> None:
        """Raises error 105 if no address, or not every `known` one, is reserved."""
        with self._locked():
            reserved = [each for each in known if self._is_ours(self._path(each))]
            if len(reserved) < len(known) or not (known or self._owned(self._owners())):
                raise CNIError(
                    Code.CHECK_DIFFERENCE,
                    f"IPAM: expected an address reserved for {self._who()} under {self._folder}, "
                    "found none",
                )

    def status(self) -> None:
        """Raises error 50 if the store cannot be used. Exhausted ranges are no error."""
        try:
            os.makedirs(self._folder, exist_ok=True, mode=0o755)
            usable = os.access(self._folder, os.R_OK | os.W_OK | os.X_OK)
        except OSError as error:
            raise CNIError(
                Code.NOT_AVAILABLE, f"create the IPAM folder {self._folder}: {error.strerror}"
            ) from None
        if not usable:
            raise CNIError(Code.NOT_AVAILABLE, f"the IPAM folder {self._folder} is not writable")

    def collect(self, valid: Collection[tuple[str, str]]) -> None:
        """Release every address of this network whose owner is not valid."""
        try:
            os.stat(self._folder)
        except (FileNotFoundError, NotADirectoryError):
            return
        owners = {container + LINE_BREAK + ifname for container, ifname in valid}
        # Files that old versions of the reference plugin wrote name the container only.
        owners |= {container for container, _ in valid}
        with self._locked():
            # The folder's time of modification need not differ from when it was remembered.
            forget(self._folder)
            for _, path, owner in self._reservations():
                if owner not in owners:
                    if not _is_whole(owner):
                        log.warning(CUT_OFF, path=path)
                    _unlink(path)

    def _requested(self) -> list[Address]:
        texts = [text for text in (self._invocation.arguments.get("IP"),) if text]
        found: list[Address] = []
        for text in [*texts, *requested(self._invocation)]:
            try:
                address = canonical(text.partition("/")[0])
            except ValueError:
                raise CNIError(
                    Code.INVALID_CONFIGURATION, f"the requested address {shown(text)} is none"
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
                    f"the requested address {problem} on network {self._invocation.network}",
                )
        for address, each in self._candidates(number, range_set):
            if self._reserve(address, number):
                return _entry(address, each)
        raise CNIError(
            Code.NO_ADDRESS,
            f"no address is free in range set {number} ({_describe(range_set)}) "
            f"of network {self._invocation.network}",
            f"the taken ones are files in {self._folder}; GC releases those of containers that "
            "are gone",
        )

    def _candidates(
        self, number: int, range_set: Sequence[Range]
    ) -> Iterator[tuple[Address, Range]]:
        """Every address of a set once, from the one behind the last reserved one round.

        So a crash-looping container does not see the same address again at once.
        """
        start, at = 0, int(range_set[0].first) - 1
        with contextlib.suppress(OSError, ValueError):
            last = canonical(_read(f"{self._folder}/{LAST_RESERVED}{number}"))
            for position, each in enumerate(range_set):
                if each.has(last):
                    start, at = position, int(last)
        rounds = [*range_set[start:], *range_set[: start + 1]]
        for position, each in enumerate(rounds):
            first = at + 1 if position == 0 else int(each.first)
            final = at if position == len(rounds) - 1 and position else int(each.last)
            for value in range(first, final + 1):
                address = type(each.first)(value)
                if address != each.router and each.has(address):
                    yield address, each

    def _reserve(self, address: Address, number: int) -> bool:
        path = f"{self._folder}/{address}"
        self._written.append(path)
        try:
            _write(path, self._owner, os.O_EXCL)
        except FileExistsError:
            self._written.remove(path)
            return False
        except OSError as error:
            raise _io_failure(path, error) from None
        path = f"{self._folder}/{LAST_RESERVED}{number}"
        try:
            _write(path, str(address), os.O_TRUNC)
        except OSError as error:
            raise _io_failure(path, error) from None
        return True

    def _release(self, known: Sequence[str] = ()) -> None:
        owners = Owners.remembered(self._folder)
        paths = [self._path(each) for each in known]
        for path in paths or self._owned_paths():
            if not paths or self._is_to_release(path):
                _unlink(path)
                if owners:
                    owners.remove(self._owner, os.path.basename(path))
        if owners:
            owners.remember()

    def _owned_paths(self) -> list[str]:
        found = [
            path
            for _, path, owner in self._reservations()
            if owner == self._owner or self._is_cut_off(path, owner)
        ]
        # Old versions of the reference plugin wrote the container id only.
        return found or [
            path
            for _, path, owner in self._reservations()
            if owner == self._invocation.container_id
        ]

    def _path(self, address: str) -> str:
        return f"{self._folder}/{_name(address)}"

    def _is_cut_off(self, path: str, owner: str, *, known: bool = False) -> bool:
        """Whether a file is the beginning of ours, or of anybody's and no more than that.

        Who writes holds the lock: it is of a writer that was killed, or the power failed, and there
        may be zeroes where the rest was to be. The beginning of a container's id may be all of
        another's, unless the address is `known` to be ours.
        """
        begin = owner.rstrip("\0")
        certain = known or begin != owner or begin.startswith(self._invocation.container_id)
        if owner == self._owner or (begin and not (certain and self._owner.startswith(begin))):
            return False
        if begin == self._invocation.container_id == owner and not known:
            return False  # that is how old versions of the reference plugin wrote it
        log.warning(CUT_OFF, path=path)
        return True

    def _is_ours(self, path: str) -> bool:
        try:
            return _read(path) == self._owner
        except OSError:
            return False

    def _is_to_release(self, path: str) -> bool:
        try:
            owner = _read(path)
        except OSError:
            return False
        return owner == self._owner or self._is_cut_off(path, owner, known=True)

    def _owners(self) -> Owners:
        return Owners.remembered(self._folder) or Owners.read(
            self._folder, ((owner, str(address)) for address, _, owner in self._reservations())
        )

    def _has_one_of(self, range_set: Sequence[Range], owners: Owners) -> bool:
        """Whether the attachment has an address of a range set.

        A file says so itself: what is remembered may be older than a release by others that changed
        the folder at the same time.
        """
        return any(
            _range_of(range_set, address) and self._is_reserved(address)
            for address in self._owned(owners)
        )

    def _is_reserved(self, address: Address) -> bool:
        try:
            owner = _read(f"{self._folder}/{address}")
        except OSError:
            return False
        return owner in (self._owner, self._invocation.container_id)

    def _owned(self, owners: Owners) -> list[Address]:
        own = owners.of(self._owner) | owners.of(self._invocation.container_id)
        return [ip_address(address) for address in own]

    def _reservations(self) -> Iterator[tuple[Address, str, str]]:
        for name in os.listdir(self._folder):
            path = f"{self._folder}/{name}"
            try:
                # Not a remembered one: as many as there are containers would drive all others out.
                address = ipaddress.ip_address(name)
                owner = _read(path)
            except (ValueError, OSError):
                continue  # the lock, last_reserved_ip.N, or just released
            yield address, path, owner

    def _holder(self, address: Address) -> str:
        for found, _, owner in self._reservations():
            if found == address:
                return f"container {owner.replace(LINE_BREAK, ' ')}"
        return "another container"

    def _who(self) -> str:
        return f"{self._invocation.ifname} of container {self._invocation.container_id}"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if os.path.islink(self._folder):
            raise _io_failure(self._folder, OSError(errno.ELOOP, os.strerror(errno.ELOOP)))
        path = f"{self._folder}/lock"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            try:
                lock = os.open(path, flags, 0o644)
            except FileNotFoundError:
                os.makedirs(self._folder, exist_ok=True, mode=0o755)
                lock = os.open(path, flags, 0o644)
        except OSError as error:
            raise _io_failure(self._folder, error) from None
        try:
            deadline.poll(f"IPAM: wait for the lock {path}", partial(_flock, lock, path))
            yield
        finally:
            os.close(lock)


def _flock(descriptor: int, path: str) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise _io_failure(path, error) from None
    return True


def _is_whole(owner: str) -> bool:
    """Whether a file says more than the beginning of a container's id, as far as can be seen."""
    return LINE_BREAK in owner and "\0" not in owner


def _name(address: str) -> str:
    return str(ip_interface(address).ip)


def _read(path: str) -> str:
    """A file's text. Raises OSError where there is none, `CNIError` where that cannot be known."""
    try:
        # Nor is a named pipe waited for.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(path, flags)
        try:
            return os.read(descriptor, OWNER_BYTES).decode(errors="replace").strip()
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in SHORTAGES:
            raise _io_failure(path, error) from None
        raise


def _write(path: str, text: str, flags: int) -> None:
    """Write a whole file, with O_EXCL or O_TRUNC."""
    flags |= os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o600)
    try:
        if os.write(descriptor, text.encode()) != len(text.encode()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
    finally:
        os.close(descriptor)


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _range_of(range_set: Sequence[Range], address: Address) -> Range | None:
    return next((each for each in range_set if each.has(address)), None)


def _entry(address: Address, each: Range) -> JSON:
    return {"address": f"{address}/{each.subnet.prefixlen}", "gateway": str(each.router)}


def _describe(range_set: Sequence[Range]) -> str:
    return ", ".join(f"{each.first}-{each.last}" for each in range_set)


def _io_failure(path: str, error: OSError) -> CNIError:
    name = error.filename or path
    if error.errno == errno.ELOOP:
        return CNIError(
            Code.IO_FAILURE,
            f"IPAM: use {name}: it is a symbolic link, and what it leads to may be anybody's",
            "remove it: files of reservations are not shared by links",
        )
    return CNIError(Code.IO_FAILURE, f"IPAM: use {name}: {error.strerror}")


def _contents(path: str) -> str:
    """A resolv.conf(5), whatever bytes it has; not more than any has, should it have no end."""
    with open(path, "rb", opener=_without_waiting) as file:
        return (file.read(RESOLVER_BYTES) or b"").decode(errors="replace")


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _resolver(path: str) -> JSON:
    """Read a resolv.conf(5) into a dns object of the specification."""
    if not path:
        return {}
    try:
        lines = _contents(path).splitlines()
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

"""Queues that Kubernetes has promised to a pod: a row for each claim, written before the pod's ADD.

Dynamic Resource Allocation (resource.k8s.io/v1): the scheduler decides on node and NIC, the kubelet
has `cni-netkit dra` prepare the claim, which writes the row, and then the runtime asks for an ADD,
which takes the queues. So a row is a promise, and never says that something is taken: that the
kernel says, and the attachments' records.
"""

import errno
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, TypeAdapter, ValidationError

from cni_netkit import files, log, state
from cni_netkit.formats import Format, Newer
from cni_netkit.spec.errors import CNIError, Code
from cni_netkit.spec.lease import Lease

ROOT = state.ROOT / "claims"
"""Beside the networks' folders, as the records of NICs are. A record has a colon in its name."""

FORMAT = Format()
UID = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{0,62}\Z")
"""A UID of the API server, which gives UUIDs; it is part of a file's name here."""


def _checked(lease: dict[str, Any]) -> dict[str, Any]:
    Lease.model_validate(lease)
    return lease


@dataclass(frozen=True)
class Share:
    """What one request of a claim has got: `count` queues of a NIC, and what they are for.

    `lease` has keys of the configuration's `lease`, as the claim's parameters have them; `ifname`
    is the device's name in the pod, or empty; `share` is the scheduler's name of the share.
    """

    request: str
    nic: str
    count: int
    lease: Annotated[dict[str, Any], AfterValidator(_checked)]
    ifname: str = ""
    share: str = ""

    @property
    def kind(self) -> tuple[object, ...]:
        """Those for which it is the same can have one device together."""
        lease = Lease.model_validate(self.lease)
        return self.nic, lease.workload, frozenset(lease.wanted_flows), self.ifname


@dataclass(frozen=True)
class Claim:
    """A ResourceClaim that is prepared for a pod; `pod` is the pod's UID."""

    namespace: str
    name: str
    uid: str
    pod: str
    shares: tuple[Share, ...]

    def __str__(self) -> str:
        return f"claim {self.namespace}/{self.name}"


ORDER = attrgetter("namespace", "name")
"""A pod's claims in this order: the default names of its devices are by it."""


@dataclass(frozen=True)
class Claimed:
    """A single device in a pod, and the shares that it has the queues of: one NIC's."""

    name: str
    shares: tuple[tuple[Claim, Share], ...]

    @property
    def lease(self) -> dict[str, Any]:
        """The configuration's `lease` for it: as many queues as all shares together."""
        _, first = self.shares[0]
        return {"device": first.nic, "count": sum(each.count for _, each in self.shares)} | (
            first.lease
        )

    def parts(self) -> Iterator[tuple[Claim, Share, slice]]:
        """Each share, and which of the device's leases are its own: in the order of shares."""
        start = 0
        for claim, share in self.shares:
            yield claim, share, slice(start, start + share.count)
            start += share.count


def devices(prefix: str, claims: Iterable[Claim]) -> list[Claimed]:
    """The devices for all of a pod's claims, as `of_pod` has them; default names are numbered.

    Shares of one NIC for one purpose are one device: two could not both have rules for the same
    flows, and whoever wants two of them gives them names.
    """
    kinds: list[object] = []
    shares: list[list[tuple[Claim, Share]]] = []
    for claim in claims:
        for share in claim.shares:
            if share.kind not in kinds:
                kinds.append(share.kind)
                shares.append([])
            shares[kinds.index(share.kind)].append((claim, share))
    return [
        Claimed(each[0][1].ifname or f"{prefix}{number}", tuple(each))
        for number, each in enumerate(shares)
    ]


class Claims:
    """The rows of this node."""

    def __init__(self, root: Path | None = None) -> None:
        self._root = root or ROOT

    def of_pod(self, uid: str) -> list[Claim]:
        """A pod's claims, in the order of names. Raises error 5 for one that is unreadable."""
        found = [self._load(self._path(*key)) for key in self.uids() if key[0] == uid]
        return sorted(found, key=ORDER)

    def all(self) -> Iterator[Claim]:
        """Every claim; one that is unreadable is told in the log, and passed over."""
        for key in self.uids():
            try:
                yield self._load(self._path(*key))
            except CNIError as error:
                log.warning(error.message, remedy=error.details)

    def uids(self) -> list[tuple[str, str]]:
        """Of every row the UIDs of pod and claim, also where it is unreadable."""
        names = (each.stem.partition(".") for each in self._root.glob("*.json"))
        return sorted((pod, uid) for pod, _, uid in names if UID.match(pod) and UID.match(uid))

    def find(self, pod: str, uid: str) -> Claim | None:
        """A row; None where there is none, or none that is readable."""
        try:
            return self._load(self._path(pod, uid))
        except CNIError:
            return None

    def save(self, claim: Claim) -> None:
        """Write a row, which may be there already. Raises error 5."""
        path = self._path(claim.pod, claim.uid)
        try:
            if self._root.is_symlink():
                raise OSError(errno.ELOOP, "it is a symbolic link")
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            files.replace(path, FORMAT.write(asdict(claim)))
        except OSError as error:
            raise CNIError(
                Code.IO_FAILURE,
                f"write the row of {claim}, {path}: {error.strerror}",
                "without it the pod's ADD would not know of the claim",
            ) from None

    def remove(self, uid: str, pod: str | None = None) -> None:
        """Forget a claim, by its own UID; of one pod, or of every one. Raises OSError."""
        for key in self.uids():
            if key[1] == uid and pod in (None, key[0]):
                with suppress(FileNotFoundError):
                    self._path(*key).unlink()

    def _path(self, pod: str, uid: str) -> Path:
        for each in (pod, uid):
            if not UID.match(each):
                raise CNIError(Code.IO_FAILURE, f"{each!r} is no UID of a Kubernetes object")
        return self._root / f"{pod}.{uid}.json"

    def _load(self, path: Path) -> Claim:
        try:
            fields = FORMAT.read(path.read_bytes())
            return TypeAdapter(Claim).validate_json(json.dumps(fields), strict=True)
        except Newer as newer:
            problem = f"it has format {newer.found}, this release knows {newer.known}"
        except OSError as error:
            problem = str(error.strerror)
        except ValidationError as error:
            problem = "; ".join(
                f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()
            )
        except ValueError as error:
            problem = str(error)
        raise CNIError(
            Code.IO_FAILURE,
            f"read a claim's row {path}: {problem}",
            "delete the pod: for what comes in its place the rows of its claims are written anew",
        )

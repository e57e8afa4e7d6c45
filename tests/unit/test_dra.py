"""The DRA driver, as far as it decides: claims to rows, NICs to devices, records to a claim's status."""

import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from cni_netkit import claims as rows
from cni_netkit.attachment import Attachment
from cni_netkit.claims import Claim, Claims, Share
from cni_netkit.dra import (
    api,
    claims,
    health_pb2,
    health_pb2_grpc,
    inventory,
    keeper,
    kubelet,
    plugin_pb2,
    plugin_pb2_grpc,
    registration_pb2,
    registration_pb2_grpc,
    status,
)
from cni_netkit.dra.inventory import DRIVER, Device, device_name
from cni_netkit.dra.keeper import Folders
from cni_netkit.nics import record as nic_records
from cni_netkit.nics.record import NicRecord, NicStore
from cni_netkit.plan import promised
from cni_netkit.record import Record
from cni_netkit.spec.config import NetConf
from cni_netkit.spec.errors import CNIError
from cni_netkit.spec.nics import Preparation
from cni_netkit.state import Store

JSON = dict[str, Any]
POD = {"resource": "pods", "name": "a-pod", "uid": "pod-uid"}


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where rows are, and the records of NICs: eth0, prepared for io_uring, and Eth_1 for af_xdp."""
    monkeypatch.setattr(rows, "ROOT", tmp_path / "claims")
    monkeypatch.setattr(nic_records, "ROOT", tmp_path / "nics")
    for device, role in (("eth0", "io_uring"), ("Eth_1", "af_xdp")):
        preparation = Preparation.model_validate({"device": device, "role": role, "queues": "4-7"})
        NicStore().save(NicRecord(preparation, ["boot", 2], complete=True))
    return tmp_path


def result(request: str = "queues", device: str = "eth0", count: str | None = "2") -> JSON:
    made: JSON = {"request": request, "driver": DRIVER, "pool": "node", "device": device}
    return made | ({"consumedCapacity": {"queues": count}, "shareID": "s"} if count else {})


def parameters(requests: list[str] | None = None, **keys: Any) -> JSON:
    said = {"apiVersion": "cni-netkit/v1", "kind": "Queues", **keys}
    opaque = {"driver": DRIVER, "parameters": said}
    return {"source": "FromClaim", "requests": requests or [], "opaque": opaque}


def claim(
    *results: JSON, config: tuple[JSON, ...] = (), reserved: tuple[JSON, ...] = (POD,)
) -> JSON:
    return {
        "metadata": {
            "namespace": "default",
            "name": "a-claim",
            "uid": "claim-uid",
            "ownerReferences": [{"kind": "Pod", "name": "a-pod", "uid": "pod-uid"}],
        },
        "status": {
            "allocation": {"devices": {"results": [*results], "config": [*config]}},
            "reservedFor": [*reserved],
        },
    }


def test_a_claim_promises_what_it_was_allocated() -> None:
    """Of this driver; what the class says holds until the claim says something else."""
    other = {"request": "gpu", "driver": "gpu.example", "pool": "node", "device": "gpu-0"}
    config = (
        parameters(workload="io_uring", flows="none", ifName="fast0"),
        parameters(["second"], flows="address", ifName="slow0"),
        {"opaque": {"driver": "gpu.example", "parameters": {"shared": True}}},
    )
    found = claims.read(claim(result(), other, result("second", count="1"), config=config))
    assert found == Claim(
        "default",
        "a-claim",
        "claim-uid",
        "pod-uid",
        (
            Share("queues", "eth0", 2, {"workload": "io_uring", "flows": "none"}, "fast0", "s"),
            Share("second", "eth0", 1, {"workload": "io_uring", "flows": "address"}, "slow0", "s"),
        ),
    )


def test_without_parameters_the_role_of_the_nic_is_the_workload() -> None:
    (share,) = claims.read(claim(result(device=device_name("Eth_1")))).shares
    assert (share.nic, share.lease, share.ifname) == ("Eth_1", {"workload": "af_xdp"}, "")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (claim(result(), reserved=()), "reserved for nobody"),
        (
            claim(result(), reserved=(POD, {**POD, "name": "b", "uid": "b"})),
            "a-pod, pods b: queues",
        ),
        (claim(result(), reserved=({**POD, "resource": "jobs"},)), "reserved for jobs a-pod"),
        (claim(result(), reserved=({**POD, "uid": "another"},)), "is no pod's own"),
        (claim(), "has no queues of this node"),
        (claim(result(count=None)), "DRAConsumableCapacity"),
        (claim(result(device="eth9")), "NIC eth9 is not prepared"),
        (claim(result(), config=(parameters(workload="dpdk"),)), "workload: must be"),
        (claim(result(), config=(parameters(queues="4"),)), "not supported: queues"),
        (claim(result(), config=(parameters(apiVersion="cni-netkit/v2"),)), "apiVersion: must be"),
        (
            claim(
                result(),
                config=(parameters(workload="io_uring", flows=[{"proto": "udp", "dstPort": 1}]),),
            ),
            "receives TCP",
        ),
    ],
)
def test_what_cannot_be_right_is_refused(given: JSON, said: str) -> None:
    with pytest.raises(claims.Refused, match=said):
        claims.read(given)


def test_devices_have_names_of_their_own() -> None:
    """DNS labels, and no two NICs' the same."""
    names = ["eth0", "Eth0", "eth_0", "eth.0", "enp1s0f0np0", "-", "_"]
    made = [device_name(each) for each in names]
    assert made[0] == "eth0"
    assert made[4] == "enp1s0f0np0"
    assert len(set(made)) == len(names)
    assert all(each == each.lower() and each[0].isalnum() and each[-1].isalnum() for each in made)


def test_a_nic_is_a_device_that_many_have_a_share_of() -> None:
    device = Device("eth0", "eth0", "", 4, {"mtu": 1500, "zeroCopy": True, "role": "io_uring"})
    assert device.as_dict() == {
        "name": "eth0",
        "attributes": {
            "mtu": {"int": 1500},
            "zeroCopy": {"bool": True},
            "role": {"string": "io_uring"},
        },
        "allowMultipleAllocations": True,
        "capacity": {
            "queues": {
                "value": "4",
                "requestPolicy": {"default": "1", "validRange": {"min": "1", "step": "1"}},
            }
        },
    }


def test_where_a_nic_is_sysfs_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What k8s.io/dynamic-resource-allocation/deviceattribute makes of it; -1 is no NUMA node."""
    device = tmp_path / "devices/pci0000:3a/0000:3a:00.0/0000:3b:00.1"
    other = tmp_path / "devices/pci0000:3a/0000:3a:00.0/0000:3b:00.1/mlx5_core.sf.2"
    for name, folder, files in (
        ("eth0", device, {"numa_node": "1", "net/eth0/speed": "100000"}),
        ("eth1", other, {"numa_node": "-1", "net/eth1/speed": "-1"}),
    ):
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(f"{text}\n")
        (folder / "net" / name / "device").symlink_to(folder)
        (tmp_path / "drivers/mlx5_core").mkdir(parents=True, exist_ok=True)
        (folder / "driver").symlink_to(tmp_path / "drivers/mlx5_core")
        (tmp_path / "class").mkdir(exist_ok=True)
        (tmp_path / "class" / name).symlink_to(folder / "net" / name)
    monkeypatch.setattr(inventory, "SYSFS", tmp_path / "class")
    given = {"device": "eth0", "role": "af_xdp", "queues": "4-7", "copy": True}
    prepared = Preparation.model_validate(given)
    role = {"role": "af_xdp", "zeroCopy": False, "driver": "mlx5_core"}
    root = {"resource.kubernetes.io/pcieRoot": "pci0000:3a"}
    assert dict(inventory._attributes("eth0", prepared)) == {
        **role,
        **root,
        "interface": "eth0",
        "speedMbps": 100000,
        "resource.kubernetes.io/numaNode": 1,
        "resource.kubernetes.io/pciBusID": "0000:3b:00.1",
    }
    assert dict(inventory._attributes("eth1", prepared)) == {**role, **root, "interface": "eth1"}


# Rows.

ROW = Claim(
    "default", "b", "uid-b", "pod-uid", (Share("queues", "eth0", 2, {"workload": "io_uring"}),)
)


def test_rows_are_found_by_their_pod() -> None:
    """In the order of their names; what is written twice is there once."""
    first = replace(ROW, name="a", uid="uid-a")
    for each in (ROW, first, ROW, replace(ROW, uid="uid-c", pod="another")):
        Claims().save(each)
    assert Claims().of_pod("pod-uid") == [first, ROW]
    assert len(list(Claims().all())) == 3
    Claims().remove("uid-b")
    Claims().remove("uid-b")
    assert Claims().of_pod("pod-uid") == [first]
    assert Claims().of_pod("") == Claims().of_pod("../pod-uid") == Claims().of_pod("*") == []


ROW_WITH = (
    '{"namespace":"default","name":"b","uid":"uid-b","pod":"pod-uid",'
    '"shares":[{"request":"queues","nic":"eth0",%s}]}'
)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "Expecting property name"),
        ("[]", "not what it should be"),
        ('{"format": 2}', "format 2, this release knows 1"),
        ("{}", "namespace: Field required"),
        (ROW_WITH % '"count":"2","lease":{}', r"shares.0.count: Input should be a valid integer"),
        (
            ROW_WITH % '"count":2,"lease":{"flows":"some"}',
            "shares.0.lease.flows.*: Input should be 'address' or 'none'",
        ),
    ],
)
def test_a_row_that_is_none_is_no_reason_to_go_without_queues(
    root: Path, content: str, said: str
) -> None:
    """The ADD fails; the driver goes on with the others."""
    Claims().save(ROW)
    (path,) = (root / "claims").glob("*.json")
    path.write_text(content)
    with pytest.raises(CNIError, match=said):
        Claims().of_pod("pod-uid")
    assert list(Claims().all()) == []


def test_format_1_is_read() -> None:
    """As it was written first: what is on a node's disk is read by each release to come."""
    row = {
        "format": 1,
        "namespace": "default",
        "name": "b",
        "uid": "uid-b",
        "pod": "pod-uid",
        "shares": [
            {
                "request": "queues",
                "nic": "eth0",
                "count": 2,
                "lease": {"workload": "io_uring"},
                "ifname": "",
                "share": "",
            }
        ],
    }
    Claims().save(ROW)
    (path,) = rows.ROOT.glob("*.json")
    assert json.loads(path.read_text()) == row
    assert Claims().of_pod("pod-uid") == [ROW]


def test_no_row_is_taken_for_a_record(root: Path) -> None:
    """Nor the other way round, where a network is called as the folder of rows is."""
    Claims().save(ROW)
    assert list(Store(root).scan()) == []
    (row,) = rows.ROOT.iterdir()
    base = attached("zc", None)
    names = Attachment("claims", "pod-uid.uid-c", "zc")
    Store(root).create(replace(base, attachment=names))
    assert [each.attachment for each in Store(root).scan()] == [names]
    assert list(Claims().all()) == Claims().of_pod("pod-uid") == [ROW]
    Claims().remove("uid-b")
    assert not row.exists()


@pytest.mark.parametrize("uid", ["", "../x", "a/b", "a" * 64, "x:y"])
def test_what_is_no_uid_names_no_file(uid: str) -> None:
    with pytest.raises(CNIError, match="no UID"):
        Claims().save(replace(ROW, uid=uid))
    with pytest.raises(CNIError, match="no UID"):
        Claims().save(replace(ROW, pod=uid))


BASE = Attachment("net", "container", "zc")


def wanted(*claims: Claim) -> list[tuple[str, JSON]]:
    """Name and lease of each device that a pod with these claims gets."""
    conf = NetConf(name="net", pairing="single", claims=True)
    return [(each["ifName"], each["lease"]) for each in promised(BASE, conf, claims)]


def test_shares_of_one_nic_for_one_purpose_are_one_device() -> None:
    """Of however many claims; what is for something else, or has a name, is another one."""
    share = ROW.shares[0]
    explicit = replace(share, count=1, lease={"workload": "io_uring", "flows": "address"})
    port = replace(share, lease={"flows": [{"proto": "tcp", "dstPort": 1}]})
    named = replace(share, ifname="fast0", lease={"workload": "io_uring", "flows": "none"})
    first = replace(ROW, name="a", uid="uid-a", shares=(share, replace(share, nic="eth1")))
    second = replace(ROW, shares=(named, explicit, port, share, named))
    assert wanted(first, second) == [
        ("zc0", {"device": "eth0", "count": 5, "workload": "io_uring"}),
        ("zc1", {"device": "eth1", "count": 2, "workload": "io_uring"}),
        ("fast0", {"device": "eth0", "count": 4, "workload": "io_uring", "flows": "none"}),
        ("zc3", {"device": "eth0", "count": 2, "flows": [{"proto": "tcp", "dstPort": 1}]}),
    ]
    assert wanted() == []


@pytest.mark.parametrize("name", ["zc0", "zc"])
def test_two_attachments_of_one_name_are_refused(name: str) -> None:
    """Another claim's device has it, or that which all of them are added to."""
    share = ROW.shares[0]
    first = replace(ROW, name="a", shares=(share,))
    second = replace(ROW, shares=(replace(share, ifname=name),))
    third = replace(ROW, name="c", shares=(replace(share, ifname="other"),))
    whose = ["claim default/a", "claim default/b"] if name == "zc0" else ["claim default/b"]
    with pytest.raises(CNIError, match=f"^{', '.join(whose)}: {name} would be the name of"):
        wanted(first, second, third)


# Status.


def attached(ifname: str, base: str | None, **keys: Any) -> Record:
    return Record(
        attachment=Attachment("net", "container", ifname),
        cni_ifname="eth0",
        netns="/run/netns/c",
        netns_identity=[1, 2],
        config={"claims": True} if base is None else {},
        arguments="IgnoreUnknown=1;K8S_POD_UID=pod-uid",
        path=[],
        steps=[{"step": "flows", "addresses": ["10.1.0.2", "fd00::2"]}] if base else [],
        complete=True,
        added_to=base,
        **keys,
    )


def test_a_claims_status_says_what_the_pod_has() -> None:
    outcome = {
        "container_mac": "02:00:00:00:00:01",
        "container_index": 3,
        "container_nsid": 5,
        "leases": [[7, 1], [6, 2]],
    }
    known = [attached("zc", None), attached("zc0", "zc", outcome=outcome)]
    nic = Device("eth0", "eth0", leased={7: (3, 5), 6: (3, 5), 5: (4, 5)})
    (device,) = status.of(ROW, "node", [ROW], known, [nic])
    assert device == {
        "driver": DRIVER,
        "pool": "node",
        "device": "eth0",
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "Attached",
                "message": "zc0 has 2 queues of eth0",
            }
        ],
        "networkData": {
            "interfaceName": "zc0",
            "hardwareAddress": "02:00:00:00:00:01",
            "ips": ["10.1.0.2/32", "fd00::2/128"],
        },
        "data": {"queues": [7, 6]},
    }
    elsewhere = replace(ROW, name="c", uid="c", shares=(replace(ROW.shares[0], nic="eth1"),))
    (waiting,) = status.of(elsewhere, "node", [ROW, elsewhere], known, [nic])
    assert waiting["conditions"][0]["status"] == "False"
    assert "networkData" not in waiting
    for nics, reason, said in (
        ([replace(nic, problem="NIC eth0 is down")], "NICNotReady", "NIC eth0 is down"),
        ([], "NICNotReady", "NIC eth0 is gone"),
        ([replace(nic, leased={7: (3, 5)})], "Detached", "has lost its queues"),
        ([replace(nic, leased={7: (3, 5), 6: (3, 4)})], "Detached", "has lost its queues"),
    ):
        (device,) = status.of(ROW, "node", [ROW], known, nics)
        (condition,) = device["conditions"]
        assert (condition["status"], condition["reason"]) == ("False", reason)
        assert said in condition["message"]
        assert device["networkData"]["interfaceName"] == "zc0"
    outcome["container_mac"] = "00:00:00:00:00:00"
    (device,) = status.of(ROW, "node", [ROW], known, [nic])
    assert "hardwareAddress" not in device["networkData"], "an l3 device has none"


def test_a_condition_has_the_time_at_which_it_became_so() -> None:
    """Another of the same device, or none before: now."""
    (device,) = status.of(ROW, "node", [ROW], [], [])
    (first,) = status.dated([device], [])
    before = {**first, "conditions": [{**first["conditions"][0], "lastTransitionTime": "then"}]}
    (again,) = status.dated([device], [before, {**before, "device": "eth1"}])
    assert again == before
    ready = {**device, "conditions": [{**device["conditions"][0], "status": "True"}]}
    (changed,) = status.dated([ready], [before])
    assert changed["conditions"][0]["lastTransitionTime"].startswith("20")
    (other,) = status.dated([{**device, "shareID": "s"}], [before])
    assert other["conditions"][0]["lastTransitionTime"].startswith("20")


def test_each_share_is_told_its_own_queues() -> None:
    """Where several have one device: the first its first ones, as many as it asked for."""
    share = ROW.shares[0]
    first = replace(ROW, name="a", uid="uid-a", shares=(replace(share, count=1, share="one"),))
    second = replace(ROW, shares=(replace(share, share="two"), replace(share, share="three")))
    outcome = {"leases": [[7, 1], [6, 2], [5, 3], [4, 4], [3, 5]]}
    known = [attached("zc", None), attached("zc0", "zc", outcome=outcome)]
    of_both = [status.of(each, "node", [second, first], known, []) for each in (first, second)]
    assert [[(each["shareID"], each["data"]["queues"]) for each in of] for of in of_both] == [
        [("one", [7])],
        [("two", [6, 5]), ("three", [4, 3])],
    ]
    late = replace(ROW, name="z", uid="uid-z", shares=(share,))
    (waiting,) = status.of(late, "node", [second, first, late], known, [])
    assert waiting["conditions"][0]["status"] == "False", "prepared after the ADD"


# What has changed on record.

LONG_AGO = 1_000_000_000
"""Seconds since the epoch: nothing that has this time has just been written."""


@pytest.fixture
def settled(tmp_path: Path) -> Path:
    """State in which nothing has changed for long."""
    for name in ("net", "claims", "nics"):
        (tmp_path / "state" / name).mkdir(parents=True)
        (tmp_path / "state" / name / "a.json").write_text("{}")
    (tmp_path / "state" / "lock").touch()
    settle(tmp_path / "state")
    return tmp_path / "state"


def settle(root: Path, second: int = LONG_AGO) -> None:
    """As if what has just been written had been at a time."""
    for each in (root, *root.rglob("*")):
        if each.stat().st_mtime > LONG_AGO * 1.5:
            os.utime(each, (second, second))


def test_a_record_that_changes_is_news_once(settled: Path) -> None:
    """Replaced, added, removed, in any folder; or the folder itself."""
    folders = Folders(settled)
    assert folders.changed()
    assert not folders.changed()

    def replace_in(folder: Path) -> None:
        (folder / "a.new").write_text("{}")
        (folder / "a.new").rename(folder / "a.json")

    changes: list[Callable[[], object]] = [
        *(partial(replace_in, settled / name) for name in ("net", "claims", "nics")),
        *((settled / name / "b.json").touch for name in ("net", "claims", "nics")),
        *((settled / name / "a.json").unlink for name in ("net", "claims", "nics")),
        (settled / "another").mkdir,
        (settled / "another" / "c.json").touch,
        (settled / "another" / "c.json").unlink,
        (settled / "another").rmdir,
    ]
    for second, change in enumerate(changes, LONG_AGO + 1):
        change()
        settle(settled, second)
        assert folders.changed(), change
        assert not folders.changed(), change


def test_what_may_change_again_at_the_same_time_is_looked_at_again(
    settled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "TICK", 3600)
    folders = Folders(settled)
    assert folders.changed()
    assert not folders.changed()
    (settled / "claims" / "b.json").touch()
    assert folders.changed()
    assert folders.changed()
    settle(settled, LONG_AGO + 1)
    assert folders.changed()
    assert not folders.changed()


def test_who_reads_or_locks_changes_nothing(settled: Path) -> None:
    folders = Folders(settled)
    assert folders.changed()
    with Store(settled).lock("anything"):
        assert list(Store(settled).all()) == []
        assert not folders.changed()
    assert not folders.changed()


def test_a_clock_that_was_put_back_makes_no_news(settled: Path) -> None:
    """What was written then is of tomorrow."""
    tomorrow = time.time() + 86400
    for each in settled.iterdir():
        os.utime(each, (tomorrow, tomorrow))
    folders = Folders(settled)
    assert folders.changed()
    assert not folders.changed()
    (settled / "claims" / "b.json").touch()
    assert folders.changed()


def test_no_state_at_all_is_no_news(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "state")
    assert folders.changed()
    assert not folders.changed()
    (tmp_path / "state").mkdir()
    assert folders.changed()


# What the kubelet asks.

Call = Callable[[str, str, Any], Any]


@pytest.fixture
def found() -> dict[tuple[str, str], JSON]:
    """The claims that the API server has, by namespace and name."""
    return {}


@pytest.fixture
def driver(found: dict[tuple[str, str], JSON]) -> kubelet.Driver:
    def get(namespace: str, name: str) -> JSON | None:
        if name == "unreachable":
            raise api.Unreachable("get claim: connection refused")
        return found.get((namespace, name))

    return kubelet.Driver("node", get)


def asked(name: str = "a-claim", uid: str = "claim-uid") -> Any:
    return plugin_pb2.Claim(namespace="default", name=name, uid=uid)


def test_each_claim_is_answered_for_by_itself(
    driver: kubelet.Driver, found: dict[tuple[str, str], JSON]
) -> None:
    found["default", "a-claim"] = claim(result())
    request = plugin_pb2.NodePrepareResourcesRequest(
        claims=[asked(), asked("gone", "g"), asked("unreachable", "u"), asked(uid="older")]
    )
    for _ in range(2):
        answer = driver.NodePrepareResources(request, None).claims
        (device,) = answer["claim-uid"].devices
        assert (list(device.request_names), device.pool_name) == (["queues"], "node")
        assert (device.device_name, device.share_id) == ("eth0", "s")
        assert answer["claim-uid"].error == ""
        assert "default/gone (g) is gone" in answer["g"].error
        assert "connection refused" in answer["u"].error
        assert "is gone" in answer["older"].error
        assert [each.uid for each in Claims().all()] == ["claim-uid"]
    request = plugin_pb2.NodeUnprepareResourcesRequest(claims=[asked(), asked("gone", "g")])
    for _ in range(2):
        answer = driver.NodeUnprepareResources(request, None).claims
        assert {uid: each.error for uid, each in answer.items()} == {"claim-uid": "", "g": ""}
        assert list(Claims().all()) == []


def test_a_kubelet_finds_the_driver_by_its_socket(driver: kubelet.Driver) -> None:
    """As it does: it sees a socket in plugins_registry, asks it, and is told of the other one."""
    registered: list[bool] = []
    health = kubelet.Health("node")
    with (
        tempfile.TemporaryDirectory() as folder,  # its name is short, as those of sockets must be
        kubelet.served(driver, health, registered.append, Path(folder)),
    ):
        registry = Path(folder) / "plugins_registry" / "queues.cni-netkit-reg.sock"
        with grpc.insecure_channel(f"unix://{registry}") as channel:
            stub = registration_pb2_grpc.RegistrationStub(channel)
            info = stub.GetInfo(registration_pb2.InfoRequest(), timeout=30)
            assert (info.type, info.name) == ("DRAPlugin", DRIVER)
            assert list(info.supported_versions) == ["v1.DRAPlugin"]
            taken = registration_pb2.RegistrationStatus(plugin_registered=True)
            stub.NotifyRegistrationStatus(taken, timeout=30)
            refused = registration_pb2.RegistrationStatus(error="another has this name")
            stub.NotifyRegistrationStatus(refused, timeout=30)
            assert registered == [True, False]
        with grpc.insecure_channel(f"unix://{info.endpoint}") as channel:
            plugin = plugin_pb2_grpc.DRAPluginStub(channel)
            request = plugin_pb2.NodePrepareResourcesRequest(claims=[asked("gone")])
            answer = plugin.NodePrepareResources(request, timeout=30)
            assert "is gone" in answer.claims["claim-uid"].error
            watch = health_pb2_grpc.DRAResourceHealthStub(channel).NodeWatchResources(
                health_pb2.NodeWatchResourcesRequest(), timeout=30
            )
            for problem in ("", "NIC eth0 is down"):
                health.tell([Device("eth0", "eth0", problem)])
                (told,) = next(watch).devices
                assert (told.device.pool_name, told.device.device_name) == ("node", "eth0")
                wanted = health_pb2.UNHEALTHY if problem else health_pb2.HEALTHY
                assert (told.health, told.message) == (wanted, problem)
    assert not registry.exists()
    assert not Path(info.endpoint).exists()


def test_a_claim_that_was_unprepared_gets_no_row_again(
    driver: kubelet.Driver, found: dict[tuple[str, str], JSON]
) -> None:
    """The API server still has it reserved for a while; until it is prepared again."""
    found["default", "a-claim"] = claim(result())
    row = claims.read(found["default", "a-claim"])
    assert driver.restore(row)
    unprepare = plugin_pb2.NodeUnprepareResourcesRequest(claims=[asked()])
    driver.NodeUnprepareResources(unprepare, None)
    assert not driver.restore(row)
    assert list(Claims().all()) == []
    driver.NodePrepareResources(plugin_pb2.NodePrepareResourcesRequest(claims=[asked()]), None)
    Claims().remove("claim-uid")
    assert driver.restore(row)
    assert list(Claims().all()) == [row]

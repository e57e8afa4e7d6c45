"""The Kubernetes manifests, against the schemas of Kubernetes and the fields that kind knows."""

import copy
import ipaddress
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate.utils as kubernetes_validate
import pytest
import yaml

from cni_netkit.dra.inventory import DRIVER
from cni_netkit.spec import claims
from tests.cluster.machine import HANDLERS, NETWORKS

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "conf" / "kubernetes"
OLDEST = "1.30"
"""The first with securityContext.appArmorProfile."""

VERSIONS = [
    each
    for each in dict.fromkeys(kubernetes_validate.all_versions())
    if tuple(map(int, each.split("."))) >= (1, 30)
]
CLAIMING = [
    next(each for each in VERSIONS if each.startswith("1.34")),
    VERSIONS[-1],
]
"""From the first with resource.k8s.io/v1 on."""

KUBECTL = os.environ.get("CNI_NETKIT_KUBECTL") or shutil.which("kubectl")
needs_kubectl = pytest.mark.skipif(not KUBECTL, reason="no kubectl, which has kustomize")

JSON = dict[str, Any]


def daemonset() -> JSON:
    found: JSON = yaml.safe_load((KUBERNETES / "base" / "daemonset.yaml").read_text())
    return found


def render(folder: str) -> list[JSON]:
    """What kustomize makes of a folder. It must have nothing to complain about, either."""
    done = subprocess.run(
        [str(KUBECTL), "kustomize", str(KUBERNETES / folder)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    return list(yaml.safe_load_all(done.stdout))


def test_versions_go_back_to_the_oldest() -> None:
    assert VERSIONS[0].startswith(OLDEST)
    assert len(VERSIONS) > 5


@pytest.mark.parametrize("version", VERSIONS)
def test_the_daemonset_is_valid(version: str) -> None:
    """Strictly: no field that this version of Kubernetes does not know."""
    kubernetes_validate.validate(daemonset(), version, strict=True)


def test_a_field_that_does_not_exist_is_refused() -> None:
    """The validation above would notice."""
    wrong = daemonset()
    wrong["spec"]["template"]["spec"]["containers"][0]["securityContext"]["privilege"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, OLDEST, strict=True)


@needs_kubectl
@pytest.mark.parametrize("folder", ["base", "kind"])
@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
def test_what_kustomize_makes_is_valid(folder: str, version: str) -> None:
    """A DaemonSet with ConfigMap and account, in one namespace, each naming the other."""
    made = render(folder)
    for each in made:
        kubernetes_validate.validate(each, version, strict=True)
    by_kind = {each["kind"]: each for each in made}
    for_all = {"ClusterRole", "ClusterRoleBinding"}
    assert set(by_kind) == {"ConfigMap", "DaemonSet", "ServiceAccount", *for_all}
    within = [each for each in made if each["kind"] not in for_all]
    assert {each["metadata"].get("namespace") for each in within} == {"kube-system"}
    pod = by_kind["DaemonSet"]["spec"]["template"]["spec"]
    (subject,) = by_kind["ClusterRoleBinding"]["subjects"]
    assert (subject["name"], subject["namespace"]) == (pod["serviceAccountName"], "kube-system")
    assert by_kind["ServiceAccount"]["metadata"]["name"] == subject["name"]
    assert (
        by_kind["ClusterRoleBinding"]["roleRef"]["name"]
        == (by_kind["ClusterRole"]["metadata"]["name"])
    )
    volumes = {each["name"]: each for each in pod["volumes"]}
    named = volumes["configuration"]["configMap"]["name"]
    assert named == by_kind["ConfigMap"]["metadata"]["name"]


@needs_kubectl
def test_the_kind_overlay_changes_the_image_only() -> None:
    """And when it is pulled, since no registry has it."""
    base, kind = (
        next(each for each in render(folder) if each["kind"] == "DaemonSet")
        for folder in ("base", "kind")
    )
    expected = copy.deepcopy(base)
    pod = expected["spec"]["template"]["spec"]
    for container in pod["initContainers"] + pod["containers"]:
        container |= {"image": "cni-netkit:kind", "imagePullPolicy": "Never"}
    assert kind == expected


@needs_kubectl
@pytest.mark.parametrize("version", CLAIMING)
def test_the_overlay_with_claims_is_valid(version: str) -> None:
    """All of it, and the DaemonSet with one container more than the base's."""
    made = render("dra")
    for each in made:
        kubernetes_validate.validate(each, version, strict=True)
    base, overlay = (
        next(each for each in found if each["kind"] == "DaemonSet")
        for found in (render("base"), made)
    )
    names = [
        [each["name"] for each in found["spec"]["template"]["spec"]["containers"]]
        for found in (base, overlay)
    ]
    assert sorted(names[1]) == sorted([*names[0], "dra"])


@pytest.mark.parametrize("folder", ["base", "kind", "dra"])
def test_kustomizations_name_files_that_exist(folder: str) -> None:
    """For those without kubectl."""
    kustomization = yaml.safe_load((KUBERNETES / folder / "kustomization.yaml").read_text())
    given = [file for each in kustomization.get("configMapGenerator", []) for file in each["files"]]
    files = [each.rpartition("=")[2] for each in given]
    for name in kustomization["resources"] + files:
        assert (KUBERNETES / folder / name).exists(), name


def test_volumes_and_mounts_belong_together() -> None:
    """No mount without its volume, no volume that nobody mounts: the API server checks only one."""
    pod = daemonset()["spec"]["template"]["spec"]
    mounted = {
        mount["name"]
        for container in pod["initContainers"] + pod["containers"]
        for mount in container["volumeMounts"]
    }
    assert mounted == {each["name"] for each in pod["volumes"]}


def test_only_what_asks_the_api_server_has_the_token() -> None:
    """The account's own mounting is off, and one container mounts the volume."""
    pod = daemonset()["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    (volume,) = (
        each["name"]
        for each in pod["volumes"]
        if any(
            "serviceAccountToken" in source
            for source in each.get("projected", {}).get("sources", ())
        )
    )
    mounting = [
        container["name"]
        for container in pod["initContainers"] + pod["containers"]
        if volume in [each["name"] for each in container["volumeMounts"]]
    ]
    assert mounting == ["node"]


def test_selector_and_labels_agree() -> None:
    """The API server refuses a DaemonSet that would not find its own pods."""
    spec = daemonset()["spec"]
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()


# What kind's v1alpha4 has (kind's documentation, "Configuration"), as far as anybody needs it: kind has
# no schema to check against. A field that is not here is either misspelt or to be added.
KIND_CLUSTER = {"kind", "apiVersion", "name", "networking", "nodes", "featureGates", "runtimeConfig",
                "kubeadmConfigPatches", "kubeadmConfigPatchesJSON6902", "containerdConfigPatches",
                "containerdConfigPatchesJSON6902"}  # fmt: skip
KIND_NETWORKING = {"ipFamily", "apiServerPort", "apiServerAddress", "podSubnet", "serviceSubnet",
                   "disableDefaultCNI", "kubeProxyMode", "dnsSearch"}  # fmt: skip
KIND_NODE = {"role", "image", "labels", "extraMounts", "extraPortMappings", "kubeadmConfigPatches",
             "kubeadmConfigPatchesJSON6902"}  # fmt: skip


def test_the_kind_cluster_has_fields_that_kind_knows() -> None:
    """And is without a CNI of its own, with a subnet of each family that nodes get their ranges from."""
    cluster = yaml.safe_load((KUBERNETES / "kind" / "cluster.yaml").read_text())
    assert (cluster["kind"], cluster["apiVersion"]) == ("Cluster", "kind.x-k8s.io/v1alpha4")
    assert set(cluster) <= KIND_CLUSTER
    assert set(cluster["networking"]) <= KIND_NETWORKING
    assert cluster["networking"]["disableDefaultCNI"] is True
    assert cluster["networking"]["ipFamily"] == "dual"
    subnets = map(ipaddress.ip_network, cluster["networking"]["podSubnet"].split(","))
    # The controller manager's --node-cidr-mask-size-ipv4 and -ipv6, unless told otherwise.
    assert all(each.prefixlen < {4: 24, 6: 64}[each.version] for each in subnets)
    for node in cluster["nodes"]:
        assert set(node) <= KIND_NODE
        assert node["role"] in ("control-plane", "worker")


LEASES = KUBERNETES / "leases"
CRI_PLUGINS = {1: "io.containerd.grpc.v1.cri", 2: "io.containerd.cri.v1.runtime"}
"""containerd's, by its major version (containerd's documentation, "CRI Plugin Config Guide")."""


def documents(path: Path) -> list[JSON]:
    return list(yaml.safe_load_all(path.read_text()))


@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
@pytest.mark.parametrize(
    "name", ["one-per-node.yaml", "leases/pods.yaml", "leases/runtimeclasses.yaml"]
)
def test_what_docs_have_applied_is_valid(name: str, version: str) -> None:
    for each in documents(KUBERNETES / name):
        kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("major", CRI_PLUGINS)
def test_containerd_has_the_handlers_of_the_classes(major: int) -> None:
    """Those that tests/cluster has, with the same folders; a pod is there for each."""
    classes = documents(LEASES / "runtimeclasses.yaml")
    pods = documents(LEASES / "pods.yaml")
    settings = tomllib.loads((LEASES / f"containerd-{major}.toml").read_text())
    handlers = settings["plugins"][CRI_PLUGINS[major]]["containerd"]["runtimes"]
    assert {name: each["cni_conf_dir"] for name, each in handlers.items()} == {
        name: NETWORKS.format(name) for name in HANDLERS
    }
    assert {each["handler"] for each in classes} == set(handlers)
    assert {each["metadata"]["name"] for each in classes} == {
        each["spec"]["runtimeClassName"] for each in pods
    }


@needs_kubectl
def test_the_drivers_name_is_the_same_everywhere() -> None:
    """kustomize takes what is called like a ConfigMap for its name, also in what RBAC grants."""
    made = render("dra")
    roles = [each for each in made if each["kind"] == "ClusterRole"]
    rules = [rule for role in roles for rule in role["rules"]]
    names = [
        rule["resourceNames"] for rule in rules if rule["resources"] == ["resourceclaims/driver"]
    ]
    assert names == [[DRIVER]]
    (found,) = (each for each in made if each["kind"] == "DeviceClass")
    assert found["spec"]["selectors"][0]["cel"]["expression"] == f'device.driver == "{DRIVER}"'


DRA = KUBERNETES / "dra"
PODS = ("pods.yaml", "xsk-receive.yaml", "zcrx-receive.yaml", "same-numa-node.yaml")
CLASSES = ("deviceclass.yaml", "zero-copy-class.yaml")


@pytest.mark.parametrize("version", CLAIMING)
@pytest.mark.parametrize("name", [*PODS, *CLASSES])
def test_examples_of_claims_are_valid(name: str, version: str) -> None:
    """As far as the schemas go: what CEL and the API server say of them, tests/cluster does."""
    for each in documents(DRA / name):
        kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("name", [*PODS, *CLASSES])
def test_parameters_of_examples_are_the_drivers(name: str) -> None:
    """None that it would refuse when the claim is prepared; and selectors speak of its attributes."""
    assert set(re.findall(r'attributes\["(.+?)"\]', (DRA / name).read_text())) <= {DRIVER}
    for each in documents(DRA / name):
        spec = each["spec"].get("spec", each["spec"])
        for config in spec.get("devices", spec).get("config", ()):
            assert config["opaque"]["driver"] == DRIVER
            claims.validate(config["opaque"]["parameters"])


@pytest.mark.parametrize("name", PODS)
def test_examples_of_claims_belong_together(name: str) -> None:
    """The pod's claim is made from the template beside it, and its container has it."""
    template, pod = documents(DRA / name)
    (claim,) = pod["spec"]["resourceClaims"]
    assert claim["resourceClaimTemplateName"] == template["metadata"]["name"]
    (container,) = pod["spec"]["containers"]
    assert container["resources"]["claims"] == [{"name": claim["name"]}]
    devices = template["spec"]["spec"]["devices"]
    asked = [each["name"] for each in devices["requests"]]
    for each in [*devices.get("constraints", ()), *devices.get("config", ())]:
        assert set(each.get("requests", ())) <= set(asked)
    classes = {each["exactly"]["deviceClassName"] for each in devices["requests"]}
    assert "cni-netkit" in classes

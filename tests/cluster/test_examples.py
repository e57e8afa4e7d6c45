"""The examples of claims, as the API server takes them: its schema, its CEL, its admission."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.api import Refused
from tests.cluster.cluster import Cluster

ROOT = Path(__file__).parents[2]
DRA = ROOT / "conf/kubernetes/dra"
RESOURCES = "/apis/resource.k8s.io/v1"
PATHS = {
    "DeviceClass": f"{RESOURCES}/deviceclasses",
    "ResourceClaimTemplate": f"{RESOURCES}/namespaces/default/resourceclaimtemplates",
    "Pod": "/api/v1/namespaces/default/pods",
}


def create(cluster: Cluster, found: dict[str, Any]) -> None:
    """All but making it. Raises `Refused`."""
    cluster.plane.api.create(f"{PATHS[found['kind']]}?dryRun=All&fieldValidation=Strict", found)


@pytest.mark.parametrize(
    "name",
    ["pods", "xsk-receive", "zcrx-receive", "same-numa-node", "zero-copy-class"],
)
def test_examples_of_claims_are_accepted(cluster: Cluster, name: str) -> None:
    for each in yaml.safe_load_all((DRA / f"{name}.yaml").read_text()):
        create(cluster, each)


def test_a_selector_of_what_no_device_has_is_refused(cluster: Cluster) -> None:
    """The test above would notice."""
    wrong = yaml.safe_load((DRA / "zero-copy-class.yaml").read_text())
    wrong["spec"]["selectors"][0]["cel"]["expression"] = "device.role == 'af_xdp'"
    with pytest.raises(Refused, match="undefined field 'role'"):
        create(cluster, wrong)

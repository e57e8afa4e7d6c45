"""The examples of claims, as the API server takes them: its schema, its CEL, its admission."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.api import Api, Refused
from tests.cluster.lone_node import api_server

ROOT = Path(__file__).parents[2]
DRA = ROOT / "conf/kubernetes/dra"
RESOURCES = "/apis/resource.k8s.io/v1"
PATHS = {
    "DeviceClass": f"{RESOURCES}/deviceclasses",
    "ResourceClaimTemplate": f"{RESOURCES}/namespaces/default/resourceclaimtemplates",
    "Pod": "/api/v1/namespaces/default/pods",
}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with api_server(tmp_path_factory.mktemp("cluster")) as plane:
        # The controller manager's work.
        account = {"kind": "ServiceAccount", "metadata": {"name": "default"}}
        plane.api.create("/api/v1/namespaces/default/serviceaccounts", account)
        yield plane.api


def create(api: Api, found: dict[str, Any]) -> None:
    """All but making it. Raises `Refused`."""
    api.create(f"{PATHS[found['kind']]}?dryRun=All&fieldValidation=Strict", found)


@pytest.mark.parametrize(
    "name",
    ["pods", "xsk-receive", "zcrx-receive", "same-numa-node", "zero-copy-class"],
)
def test_examples_of_claims_are_accepted(api: Api, name: str) -> None:
    for each in yaml.safe_load_all((DRA / f"{name}.yaml").read_text()):
        create(api, each)


def test_a_selector_of_what_no_device_has_is_refused(api: Api) -> None:
    """The test above would notice."""
    wrong = yaml.safe_load((DRA / "zero-copy-class.yaml").read_text())
    wrong["spec"]["selectors"][0]["cel"]["expression"] = "device.role == 'af_xdp'"
    with pytest.raises(Refused, match="undefined field 'role'"):
        create(api, wrong)

"""What a ResourceClaim may say of its queues, beyond how many: the driver's opaque parameters."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from cni_netkit.spec import faults
from cni_netkit.spec.lease import Flows, Lease
from cni_netkit.spec.model import IFNAME, Model


class Parameters(Model):
    """Parameters of a DeviceClass or a ResourceClaim for driver `queues.cni-netkit`."""

    api_version: Annotated[Literal["cni-netkit/v1"], Field(alias="apiVersion")]
    """The version of these keys."""

    kind: Literal["Queues"]
    """What these are parameters of."""

    workload: Literal["io_uring", "af_xdp"] | None = None
    """What the queues are for. Without it what the NIC is prepared for, and with it no NIC that is
    prepared for something else."""

    flows: Flows | None = None
    """As `flows` of `lease` in a network configuration."""

    if_name: Annotated[str, IFNAME] | None = None
    """What the device in the pod is called."""

    @model_validator(mode="after")
    def _is_a_lease(self) -> "Parameters":
        Lease(workload=self.workload, flows=self.flows)
        return self

    @property
    def lease(self) -> dict[str, Any]:
        """The keys of `lease` that are set."""
        return self.model_dump(
            by_alias=True, mode="json", exclude_none=True, include={"workload", "flows"}
        )


def validate(raw: Mapping[str, Any]) -> Parameters:
    """Read parameters. Raises error 2 or 7 with every fault."""
    try:
        return Parameters.model_validate(dict(raw))
    except ValidationError as error:
        found = tuple(faults.read(error, Parameters))
    raise faults.refusal(
        found, "what the claim says to driver queues.cni-netkit (opaque.parameters)"
    )

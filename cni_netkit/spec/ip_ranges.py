"""The capability ipRanges: ranges for host-local of a runtime (CNI conventions document)."""

from typing import Annotated

from pydantic import ConfigDict, Field, field_validator

from cni_netkit.spec.model import Shared
from cni_netkit.spec.ranges import Range, RangeSet, check_families


class CapabilityRange(Range):
    """A range; what else a runtime says of it is not our business."""

    model_config = ConfigDict(extra="ignore")


class IPRanges(Shared):
    """Of runtimeConfig."""

    ip_ranges: Annotated[tuple[tuple[CapabilityRange, ...], ...], Field(alias="ipRanges")]

    @field_validator("ip_ranges")
    @classmethod
    def _of_one_family(cls, value: tuple[RangeSet, ...]) -> tuple[RangeSet, ...]:
        return check_families(value)

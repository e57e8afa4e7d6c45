"""Versions of the specification (cni_netkit.spec.version)."""

import pytest

from cni_netkit.spec import version as versions


def test_all_seven_versions() -> None:
    """The supported versions are those that the specification ever had."""
    assert versions.SUPPORTED == ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")


@pytest.mark.parametrize(
    ("version", "minimum", "expected"),
    [
        ("1.1.0", "1.1.0", True),
        ("0.10.0", "0.4.0", True),
        ("0.3.1", "0.4.0", False),
        ("1.0.0", "0.4.0", True),
        ("0.4.0", "1.0.0", False),
    ],
)
def test_versions_compare_as_numbers(version: str, minimum: str, expected: bool) -> None:
    """0.10.0 is later than 0.4.0."""
    assert versions.at_least(version, minimum) is expected

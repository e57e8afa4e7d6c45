"""Error objects (cni_netkit.spec.errors)."""

import pytest

from cni_netkit.errors import as_cni_error
from cni_netkit.kernel.errors import KernelError, NoNamespace, ProgramError
from cni_netkit.spec.errors import CNIError, Code

CONTRACT = {
    1: "INCOMPATIBLE_VERSION",
    2: "UNSUPPORTED_FIELD",
    3: "UNKNOWN_CONTAINER",
    4: "INVALID_ENVIRONMENT",
    5: "IO_FAILURE",
    6: "UNDECODABLE",
    7: "INVALID_CONFIGURATION",
    8: "SAME_NAMESPACE",
    11: "TRY_AGAIN_LATER",
    50: "NOT_AVAILABLE",
    51: "LIMITED_CONNECTIVITY",
    100: "KERNEL_LACKS_FEATURE",
    101: "NO_FREE_QUEUE",
    102: "UNUSABLE_NIC",
    103: "ALREADY_EXISTS",
    104: "KERNEL_REFUSED",
    105: "CHECK_DIFFERENCE",
    106: "NO_ADDRESS",
    107: "BPF_NOT_ATTACHABLE",
    999: "INTERNAL",
}


def test_codes() -> None:
    """Codes are those of the specification and of the contract, and never change."""
    assert {int(code): code.name for code in Code} == CONTRACT


def test_error_object() -> None:
    """An error becomes the object of the specification, in the version of the request."""
    assert CNIError(Code.NO_FREE_QUEUE, "none is free", "ask for fewer").as_dict("0.4.0") == {
        "cniVersion": "0.4.0",
        "code": 101,
        "msg": "none is free",
        "details": "ask for fewer",
    }


@pytest.mark.parametrize(("details", "expected"), [("", "more"), ("first", "first; more")])
def test_what_failed_besides(details: str, expected: str) -> None:
    """A further failure goes to the details, the message stays."""
    error = CNIError(5, "it", details)
    error.also("more")
    assert (error.message, error.details) == ("it", expected)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CNIError(7, "it"), 7),
        (KernelError("ask", 17), 103),
        (KernelError("ask", 1), 104),
        (NoNamespace("/run/netns/x", "gone"), 3),
        (ProgramError("load libbpf.so.1: it is not there"), 107),
        (OSError(28, "full"), 5),
        (ValueError("ours"), 999),
    ],
    ids=repr,
)
def test_every_error_has_a_code(error: Exception, code: int) -> None:
    """What is raised below becomes an error of the contract, and only a fault of ours is 999."""
    assert as_cni_error(error).code == code

"""All rows, by what they are about. Importing this registers them, in the order of reports."""

# ruff: noqa: I001 - the order is that of reports
from cni_netkit.conformance.rows import version, add, delete

__all__ = ["add", "delete", "version"]

"""All rows, by what they are about. Importing this registers them, in the order of reports."""

# ruff: noqa: I001 - the order is that of reports
from cni_netkit.conformance.rows import version, result, add, delete, check, gc, delegation, errors

__all__ = ["add", "check", "delegation", "delete", "errors", "gc", "result", "version"]

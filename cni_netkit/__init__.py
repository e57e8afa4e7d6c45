"""cni-netkit: a CNI plugin that connects containers with netkit devices."""

__version__ = "0.1.0"

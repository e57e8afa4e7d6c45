"""The cni-netkit command, for whoever runs a node."""

"""A node of a Kubernetes cluster: its network configuration list, and routes to the other nodes."""

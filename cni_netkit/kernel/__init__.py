"""What the kernel is asked: the only place that knows netlink and imports pyroute2."""

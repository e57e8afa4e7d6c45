"""NICs as ethtool(8) sees them: by generic netlink, and by ioctl where there is nothing else."""

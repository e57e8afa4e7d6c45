"""Receive queues: their leases, and the AF_XDP sockets on them."""

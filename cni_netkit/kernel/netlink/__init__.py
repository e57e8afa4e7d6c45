"""Netlink: the socket, and packing and reading of rtnetlink messages."""

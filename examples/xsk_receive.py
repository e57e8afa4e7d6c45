#!/usr/bin/env python3
"""Receive frames on a leased queue through an AF_XDP socket, and print them.

    xsk_receive.py [--copy] DEVICE QUEUE [XSK_SOCKET]      for example: xsk_receive.py eth0 1

DEVICE and QUEUE are the container's own: a single netkit device and one of its queues from 1
upwards. It takes CAP_NET_RAW, 1 MiB that may be locked (ulimit -l), and the socket of the node's
agent (docs/workloads.md). --copy is for a NIC that was prepared with --copy.

Standard library only; it shows the way, and is not fast. The numbers are those of linux/if_xdp.h.
"""

import argparse
import ctypes
import json
import mmap
import os
import select
import socket
import struct

FRAMES, FRAME_BYTES = 256, 4096
AF_XDP, SOL_XDP = 44, 283
XDP_MMAP_OFFSETS, XDP_RX_RING, XDP_UMEM_REG = 1, 2, 4
XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING = 5, 6
XDP_PGOFF_RX_RING, XDP_UMEM_PGOFF_FILL_RING = 0, 0x100000000
XDP_COPY, XDP_ZEROCOPY = 2, 4
U32, ADDRESS, DESCRIPTOR = struct.Struct("=I"), struct.Struct("=Q"), struct.Struct("=QII")


class Ring:
    """A ring shared with the kernel: two counters, and as many entries as there are frames."""

    def __init__(self, xsk: socket.socket, offsets: bytes, entry: struct.Struct, page: int) -> None:
        self.producer, self.consumer, self.entries, _ = struct.unpack("=4Q", offsets)
        self.entry = entry
        self.memory = mmap.mmap(xsk.fileno(), self.entries + FRAMES * entry.size, offset=page)

    def count(self, counter: int) -> int:
        """One of the two counters."""
        return int(U32.unpack_from(self.memory, counter)[0])

    def place(self, number: int) -> int:
        """Where the entry with that number is."""
        return int(self.entries + number % FRAMES * self.entry.size)

    def put(self, *values: int) -> None:
        """Produce one entry."""
        number = self.count(self.producer)
        self.entry.pack_into(self.memory, self.place(number), *values)
        U32.pack_into(self.memory, self.producer, (number + 1) & 0xFFFFFFFF)

    def take(self) -> "tuple[int, ...] | None":
        """Consume one entry, if there is one."""
        number = self.count(self.consumer)
        if number == self.count(self.producer):
            return None
        values = self.entry.unpack_from(self.memory, self.place(number))
        U32.pack_into(self.memory, self.consumer, (number + 1) & 0xFFFFFFFF)
        return values


def bind(xsk: socket.socket, device: str, queue: int, flags: int) -> None:
    """Python has no AF_XDP addresses: struct sockaddr_xdp."""
    address = struct.pack("=HHIII", AF_XDP, flags, socket.if_nametoindex(device), queue, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.bind(xsk.fileno(), address, len(address)) != 0:
        number = ctypes.get_errno()
        raise SystemExit(f"bind to queue {queue} of {device}: {os.strerror(number)}")


def hand_over(xsk: socket.socket, path: str) -> None:
    """Have the agent let the socket receive what arrives on the leased queue."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as agent:
        agent.connect(path)
        socket.send_fds(agent, [b"x"], [xsk.fileno()])
        answer = json.loads(agent.recv(512) or b'{"ok": false, "reason": "the agent hung up"}')
    if not answer["ok"]:
        raise SystemExit(f"refused: {answer['reason']}")


def main() -> None:
    """Set the socket up, and receive until killed."""
    parser = argparse.ArgumentParser(description="receive frames on a leased queue")
    parser.add_argument("--copy", action="store_true", help="without zero copy")
    parser.add_argument("device")
    parser.add_argument("queue", type=int)
    parser.add_argument("xsk_socket", nargs="?", default="/run/cni-netkit/xsk.sock")
    wanted = parser.parse_args()

    xsk = socket.socket(AF_XDP, socket.SOCK_RAW)
    memory = mmap.mmap(-1, FRAMES * FRAME_BYTES)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    registration = struct.pack("=QQIIII", start, len(memory), FRAME_BYTES, 0, 0, 0)
    xsk.setsockopt(SOL_XDP, XDP_UMEM_REG, registration)
    # The completion ring is for sending; but the kernel requires it.
    for ring in (XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_RX_RING):
        xsk.setsockopt(SOL_XDP, ring, FRAMES)
    offsets = xsk.getsockopt(SOL_XDP, XDP_MMAP_OFFSETS, 128)
    received = Ring(xsk, offsets[:32], DESCRIPTOR, XDP_PGOFF_RX_RING)
    free = Ring(xsk, offsets[64:96], ADDRESS, XDP_UMEM_PGOFF_FILL_RING)
    for frame in range(FRAMES):
        free.put(frame * FRAME_BYTES)
    bind(xsk, wanted.device, wanted.queue, XDP_COPY if wanted.copy else XDP_ZEROCOPY)
    hand_over(xsk, wanted.xsk_socket)
    print("receiving", flush=True)

    ready = select.poll()
    ready.register(xsk, select.POLLIN)
    while ready.poll():
        while (descriptor := received.take()) is not None:
            address, length, _ = descriptor
            content = memory[address : address + length]
            text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in content)
            print(f"{length} bytes: {text}", flush=True)
            free.put(address - address % FRAME_BYTES)  # the frame goes back to the kernel


if __name__ == "__main__":
    main()

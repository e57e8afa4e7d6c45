/* Receive frames on a leased queue through an AF_XDP socket, and print them.
 *
 *     cc -O2 -o xsk_receive xsk_receive.c
 *     xsk_receive [--copy] DEVICE QUEUE [XSK_SOCKET]      for example: xsk_receive eth0 1
 *
 * DEVICE and QUEUE are the container's own: a single netkit device and one of its queues from 1
 * upwards. It takes CAP_NET_RAW, 1 MiB that may be locked (ulimit -l), and the socket of the node's
 * agent (docs/workloads.md). --copy is for a NIC that was prepared with --copy.
 */
#include <ctype.h>
#include <err.h>
#include <linux/if_xdp.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { FRAMES = 256, FRAME_BYTES = 4096, MEMORY_BYTES = FRAMES * FRAME_BYTES };

static void option(int xsk, int name, const void *value, socklen_t size)
{
    if (setsockopt(xsk, SOL_XDP, name, value, size) < 0)
        err(1, "setsockopt %d", name);
}

/* Map one ring; returns its entries, and where producer and consumer count. */
static void *ring(int xsk, const struct xdp_ring_offset *where, size_t entry_bytes, off_t offset,
                  unsigned **producer, unsigned **consumer)
{
    char *mapped = mmap(NULL, where->desc + FRAMES * entry_bytes, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_POPULATE, xsk, offset);
    if (mapped == MAP_FAILED)
        err(1, "mmap of a ring");
    *producer = (unsigned *)(mapped + where->producer);
    *consumer = (unsigned *)(mapped + where->consumer);
    return mapped + where->desc;
}

/* Hand the socket over to the agent, which has it receive what arrives on the leased queue. */
static void hand_over(int xsk, const char *path)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    char answer[512] = "", rights[CMSG_SPACE(sizeof xsk)] = "";
    struct iovec byte = {"x", 1};
    struct msghdr message = {.msg_iov = &byte, .msg_iovlen = 1, .msg_control = rights,
                             .msg_controllen = sizeof rights};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    int agent = socket(AF_UNIX, SOCK_SEQPACKET, 0);

    header->cmsg_len = CMSG_LEN(sizeof xsk);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    memcpy(CMSG_DATA(header), &xsk, sizeof xsk);
    strncpy(name.sun_path, path, sizeof name.sun_path - 1);
    if (connect(agent, (struct sockaddr *)&name, sizeof name) < 0)
        err(1, "connect to %s", path);
    if (sendmsg(agent, &message, 0) < 0 || recv(agent, answer, sizeof answer - 1, 0) <= 0)
        err(1, "hand the socket over to %s", path);
    if (!strstr(answer, "\"ok\": true"))
        errx(1, "refused: %s", answer);
    close(agent);
}

int main(int count, char **arguments)
{
    int copy = count > 1 && !strcmp(arguments[1], "--copy"), entries = FRAMES;
    char **argument = arguments + 1 + copy;
    if (count - copy < 3)
        errx(2, "usage: %s [--copy] DEVICE QUEUE [XSK_SOCKET]", arguments[0]);

    int xsk = socket(AF_XDP, SOCK_RAW, 0);
    char *memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (xsk < 0 || memory == MAP_FAILED)
        err(1, "AF_XDP socket and its memory");
    struct xdp_umem_reg registration = {.addr = (unsigned long)memory, .len = MEMORY_BYTES,
                                        .chunk_size = FRAME_BYTES};
    option(xsk, XDP_UMEM_REG, &registration, sizeof registration);
    option(xsk, XDP_UMEM_FILL_RING, &entries, sizeof entries);
    option(xsk, XDP_UMEM_COMPLETION_RING, &entries, sizeof entries); /* for sending; but required */
    option(xsk, XDP_RX_RING, &entries, sizeof entries);

    struct xdp_mmap_offsets where;
    socklen_t size = sizeof where;
    if (getsockopt(xsk, SOL_XDP, XDP_MMAP_OFFSETS, &where, &size) < 0)
        err(1, "XDP_MMAP_OFFSETS");
    unsigned *filled, *taken, *received, *read_;
    __u64 *free_frames = ring(xsk, &where.fr, sizeof *free_frames, XDP_UMEM_PGOFF_FILL_RING,
                              &filled, &taken);
    struct xdp_desc *frames = ring(xsk, &where.rx, sizeof *frames, XDP_PGOFF_RX_RING,
                                   &received, &read_);
    for (int i = 0; i < FRAMES; i++)
        free_frames[i] = (__u64)i * FRAME_BYTES;
    __atomic_store_n(filled, FRAMES, __ATOMIC_RELEASE);

    struct sockaddr_xdp seat = {.sxdp_family = AF_XDP, .sxdp_flags = copy ? XDP_COPY : XDP_ZEROCOPY,
                                .sxdp_ifindex = if_nametoindex(argument[0]),
                                .sxdp_queue_id = (__u32)atoi(argument[1])};
    if (bind(xsk, (struct sockaddr *)&seat, sizeof seat) < 0)
        err(1, "bind to queue %s of %s", argument[1], argument[0]);
    hand_over(xsk, count - copy > 3 ? argument[2] : "/run/cni-netkit/xsk.sock");
    printf("receiving\n");

    for (struct pollfd ready = {.fd = xsk, .events = POLLIN};; poll(&ready, 1, -1)) {
        while (*read_ != __atomic_load_n(received, __ATOMIC_ACQUIRE)) {
            struct xdp_desc *frame = &frames[*read_ % FRAMES];
            printf("%u bytes: ", frame->len);
            for (const char *byte = memory + frame->addr; byte < memory + frame->addr + frame->len;
                 byte++)
                putchar(isprint((unsigned char)*byte) ? *byte : '.');
            putchar('\n');
            /* The frame goes back to the kernel. */
            free_frames[*filled % FRAMES] = frame->addr & ~(__u64)(FRAME_BYTES - 1);
            __atomic_store_n(read_, *read_ + 1, __ATOMIC_RELEASE);
            __atomic_store_n(filled, *filled + 1, __ATOMIC_RELEASE);
        }
        fflush(stdout);
    }
}

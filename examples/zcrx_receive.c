/*
 * zcrx_receive: receive a TCP connection with io_uring zero-copy receive (zcrx) on a leased queue.
 *
 *     zcrx_receive DEVICE QUEUE PORT    DEVICE as this namespace names it; leased queues begin at 1
 *     zcrx_receive --copy PORT          the same without a queue: the kernel copies all of it
 *
 * Takes one connection, writes what comes to standard output, and says at its end on standard error
 * how it came. Exit status 0 if the connection ended well, 1 otherwise, 2 for wrong arguments.
 * Needs CAP_NET_ADMIN in the initial user namespace, and CAP_IPC_LOCK or 17 MiB of `ulimit -l`.
 *
 * Needs liburing 2.15 (Debian sid: liburing-dev). For another Debian, `tests/lab/fetch liburing`
 * prints a folder U that has it:
 *
 *     cc -O2 -static -o zcrx_receive zcrx_receive.c -I$U/include -L$U/lib -luring
 *
 * The kernel refuses with an errno and no text. What each can mean is told below, as read from
 * Linux 7.3: io_uring/zcrx.c, net/core/netdev_queues.c, net/core/netdev_rx_queue.c.
 */
#include <err.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <liburing.h>

#define PAGE 4096
#define BUFFERS 4096 /* a power of two */
#define PAGES __attribute__((aligned(PAGE)))

/* Where packets arrive, in buffers of a page. The NIC's queue takes as many as its ring holds
 * (ethtool -g); the rest is for data that waits to be read. */
static char area[BUFFERS * PAGE] PAGES;
/* Shared with the kernel: first the refill ring, through which buffers go back, with room for each
 * of them, and in the last bytes the counters. */
static char region[PAGE + BUFFERS * sizeof(struct io_uring_zcrx_rqe) + PAGE] PAGES;

/* The kernel counts what it copied (zcrx_event_desc and zcrx_stats of Linux 7.2's
 * linux/io_uring/zcrx.h), which liburing 2.15 does not know yet. These names are our own therefore:
 * a later one will have those. */
#define FEATURE_EVENT (1 << 1)
struct event_description {
    __u64 user_data;
    __u32 type_mask, flags;
    __u64 statistics_offset, reserved[9];
};
struct statistics {
    __u64 pieces, bytes;
};

static struct io_uring ring;
static struct io_uring_zcrx_rq refill;
static struct statistics *copied; /* null: this kernel does not count */
static __u32 zcrx_id;
static unsigned long long bytes, completions, shortages;

/* Why the kernel refuses a queue, in the order in which it looks. NIC is what the queue is leased
 * from; it is prepared on the host. */
static const struct {
    int number;
    const char *causes;
} refusals[] = {
    {EPERM, "EPERM: CAP_NET_ADMIN is needed, in the initial user namespace"},
    {ENODEV, "ENODEV: this network namespace has no such device"},
    {EOPNOTSUPP,
     "EOPNOTSUPP: no NIC is behind the queue: none ever is behind queue 0 of a netkit device, one "
     "is behind queues from 1 on once they are leased (`cni-netkit leases` on the host); or that "
     "NIC does no DMA (netdevsim), or does not manage its queues one by one (virtio, ice, i40e; "
     "mlx5, bnxt, gve and fbnic do); or the kernel is without CONFIG_IO_URING_ZCRX"},
    {ENOMEM, "ENOMEM: no memory, or without CAP_IPC_LOCK more than RLIMIT_MEMLOCK allows "
             "(ulimit -l; this program wants 17 MiB)"},
    {ERANGE, "ERANGE: the device has no queue with this number"},
    {EBUSY, "EBUSY: an AF_XDP socket has the queue; or DEVICE is the NIC itself, and the queue is "
            "leased to a container, which alone can use it"},
    {EINVAL,
     "EINVAL: header-data split is not set on the NIC, for which a driver's default does not count "
     "(ethtool -G NIC tcp-data-split on), or its threshold is not 0 (ethtool -G NIC hds-thresh 0), "
     "or the driver does not take buffers of this size"},
    {EEXIST, "EEXIST: the queue has other memory already (another program's io_uring, or a "
             "dma-buf), or the NIC has an XDP program (ip link set NIC xdp off)"},
    {ENODATA, "ENODATA: the NIC's driver does not take memory from others for this queue"},
    {ENETDOWN, "ENETDOWN: the NIC is down (ip link set NIC up)"},
};

static __u64 address(const void *of)
{
    return (__u64)(uintptr_t)of;
}

/* What this kernel's zcrx can do: asked first, because later it would say no more than EINVAL. */
static struct io_uring_query_zcrx query(void)
{
    struct io_uring_query_zcrx found = {0};
    struct io_uring_query_hdr header = {
        .query_data = address(&found), .query_op = IO_URING_QUERY_ZCRX, .size = sizeof(found)};

    if (io_uring_register_query(&header) || header.result < 0)
        errx(1, "this kernel's io_uring has no zero-copy receive (leased queues need Linux 7.1)");
    return found;
}

static void explain(const char *tried, int error)
{
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++)
        if (refusals[i].number == error)
            errx(1, "%s: %s", tried, refusals[i].causes);
    errx(1, "%s: %s", tried, strerror(error));
}

/* Register a queue, or (without a device) only memory to copy to. */
static void register_queue(const char *device, unsigned queue)
{
    struct io_uring_query_zcrx kernel = query();
    char tried[100] = "register memory to copy to, without a queue";
    struct event_description events = {
        .flags = 1, /* ZCRX_EVENT_DESC_FLAG_STATS */
        .statistics_offset = sizeof(region) - sizeof(struct statistics),
    };
    __u64 event_pointer = address(&events);
    struct io_uring_region_desc region_reg = {
        .user_addr = address(region), .size = sizeof(region), .flags = IORING_MEM_REGION_TYPE_USER};
    struct io_uring_zcrx_area_reg area_reg = {.addr = address(area), .len = sizeof(area)};
    struct io_uring_zcrx_ifq_reg reg = {
        .rq_entries = BUFFERS,
        .flags = device ? 0 : ZCRX_REG_NODEV,
        .area_ptr = address(&area_reg),
        .region_ptr = address(&region_reg),
    };
    int error;

    if (device) {
        snprintf(tried, sizeof(tried), "register queue %u of %s", queue, device);
        reg.if_idx = if_nametoindex(device);
        reg.if_rxq = queue;
        if (!reg.if_idx)
            explain(tried, ENODEV);
    }
    if (reg.flags & ~kernel.register_flags)
        errx(1, "%s: this kernel cannot", tried);
    if (kernel.features & FEATURE_EVENT) {
        /* In the field behind rx_buf_len: event_desc, in liburing 2.15 still a reserved one. */
        memcpy(&reg.rx_buf_len + 1, &event_pointer, sizeof(event_pointer));
        copied = (struct statistics *)(region + events.statistics_offset);
    }
    error = io_uring_register_ifq(&ring, &reg);
    if (error)
        explain(tried, -error);
    zcrx_id = reg.zcrx_id;
    refill.khead = (__u32 *)(region + reg.offsets.head);
    refill.ktail = (__u32 *)(region + reg.offsets.tail);
    refill.rqes = (struct io_uring_zcrx_rqe *)(region + reg.offsets.rqes);
}

/* Wait for a connection over IPv4 or IPv6. */
static int accept_one(int port)
{
    struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    int yes = 1, connection, listener = socket(AF_INET6, SOCK_STREAM, 0);

    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) ||
        bind(listener, (struct sockaddr *)&any, sizeof(any)) || listen(listener, 1))
        err(1, "listen on port %d", port);
    warnx("listening on port %d", port);
    connection = accept(listener, NULL, NULL);
    if (connection < 0)
        err(1, "accept on port %d", port);
    close(listener);
    return connection;
}

/* Ask for data until the connection ends. No buffer is named: data is where packets arrive. */
static void ask(int connection)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

    io_uring_prep_rw(IORING_OP_RECV_ZC, sqe, connection, NULL, 0, 0);
    sqe->ioprio = IORING_RECV_MULTISHOT;
    sqe->zcrx_ifq_idx = zcrx_id;
}

/* Have the kernel take back now what is in the refill ring. It does by itself when the NIC wants
 * buffers, and only then. */
static void flush(void)
{
    struct zcrx_ctrl control = {.zcrx_id = zcrx_id, .op = ZCRX_CTRL_FLUSH_RQ};
    int error = io_uring_register_zcrx_ctrl(&ring, &control);

    if (error)
        errx(1, "give buffers back: %s", strerror(-error));
}

/* Use what came, then give its buffer back: the offset into the area says which. */
static void use(const struct io_uring_cqe *cqe)
{
    const struct io_uring_zcrx_cqe *zc = (const struct io_uring_zcrx_cqe *)(cqe + 1);
    size_t length = cqe->res;

    if (fwrite(area + (zc->off & ~IORING_ZCRX_AREA_MASK), 1, length, stdout) != length)
        err(1, "write to standard output");
    bytes += length;
    completions++;

    if (refill.rq_tail - io_uring_smp_load_acquire(refill.khead) >= BUFFERS / 2)
        flush();
    refill.rqes[refill.rq_tail++ % BUFFERS] =
        (struct io_uring_zcrx_rqe){.off = zc->off, .len = length};
    io_uring_smp_store_release(refill.ktail, refill.rq_tail);
}

static void receive(int connection)
{
    int ended = 0;

    ask(connection);
    while (!ended) {
        struct io_uring_cqe *cqe;
        unsigned head, seen = 0;
        int error = io_uring_submit_and_wait(&ring, 1);

        if (error < 0 && error != -EINTR)
            errx(1, "wait for data: %s", strerror(-error));
        io_uring_for_each_cqe(&ring, head, cqe) {
            seen++;
            if (cqe->flags & IORING_CQE_F_MORE) {
                use(cqe);
            } else if (cqe->res == -ENOSPC) { /* no room for another completion */
                ask(connection);
            } else if (cqe->res == -ENOMEM) { /* no free buffer to copy to */
                shortages++;
                flush();
                ask(connection);
            } else if (cqe->res < 0) {
                errx(1, "receive, after %llu bytes: %s", bytes, strerror(-cqe->res));
            } else {
                ended = 1;
            }
        }
        io_uring_cq_advance(&ring, seen);
    }
    if (fflush(stdout))
        err(1, "write to standard output");
}

/* A completion does not tell whether its data was copied. Only the kernel's counters do, and they
 * leave out what lay beside its packet's header, in the kernel's memory. */
static void tell(int by_copy)
{
    warnx("received %llu bytes in %llu completions, %llu times short of buffers", bytes,
          completions, shortages);
    if (copied)
        warnx("the kernel counted %llu of them as copied, in %llu pieces",
              (unsigned long long)copied->bytes, (unsigned long long)copied->pieces);
    else
        warnx("this kernel does not count what it copies");
    warnx("%s", by_copy ? "all were copied, as no queue is registered"
                        : "what was not copied is zero-copy, if the NIC split headers from data");
}

int main(int count, char **arguments)
{
    int copy = count == 3 && !strcmp(arguments[1], "--copy");
    int port = copy || count == 4 ? atoi(arguments[count - 1]) : 0;
    struct io_uring_params params = {
        /* Zero-copy receive insists on the first three. Not more completions at a time than leave
         * buffers free. */
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQE32 |
                 IORING_SETUP_CQSIZE,
        .cq_entries = BUFFERS / 4,
    };
    int error;

    if (port < 1 || port > 65535) {
        fprintf(stderr, "usage: zcrx_receive DEVICE QUEUE PORT | zcrx_receive --copy PORT\n");
        return 2;
    }
    error = io_uring_queue_init_params(8, &ring, &params);
    if (error)
        errx(1, "set up io_uring: %s (not permitted, not implemented: sysctl "
             "kernel.io_uring_disabled or a seccomp profile forbids it)", strerror(-error));
    register_queue(copy ? NULL : arguments[1], copy ? 0 : atoi(arguments[2]));
    receive(accept_one(port));
    tell(copy);
    return 0;
}

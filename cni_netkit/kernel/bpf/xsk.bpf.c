/* The XDP program of a NIC that is prepared for AF_XDP: a frame goes to the socket that stands in
 * the map under the NIC's receive queue, and where none does, on its way as if this was not here.
 *
 * Compiled by hatch_build.py, loaded by ../bpf.py. It includes nothing: the kernel's headers for
 * BPF come from a folder that differs from machine to machine, and this is all that is needed of
 * include/uapi/linux/bpf.h and of libbpf's bpf_helpers.h.
 */
#define SECTION(name) __attribute__((section(name), used))

enum { BPF_MAP_TYPE_XSKMAP = 17 };
enum { XDP_PASS = 2 };

typedef unsigned int u32;
typedef unsigned long long u64;

struct xdp_md {
    u32 data;
    u32 data_end;
    u32 data_meta;
    u32 ingress_ifindex;
    u32 rx_queue_index;
    u32 egress_ifindex;
};

static long (*const bpf_redirect_map)(void *map, u64 key, u64 flags) = (void *)51;

/* As libbpf reads it from the types: each number is the size of an array. As many entries as the
 * NIC has queues are made by the loader. */
struct {
    int (*type)[BPF_MAP_TYPE_XSKMAP];
    int (*key_size)[sizeof(u32)];
    int (*value_size)[sizeof(u32)];
    int (*max_entries)[1];
} xsks SECTION(".maps");

/* "frags": a frame in several buffers is passed on as any other, so drivers need not refuse the
 * program where the MTU is large. */
SECTION("xdp.frags")
int netkit_xsk(struct xdp_md *context)
{
    return (int)bpf_redirect_map(&xsks, context->rx_queue_index, XDP_PASS);
}

char licence[] SECTION("license") = "Apache-2.0";

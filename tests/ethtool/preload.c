/* Lets ethtool(8) work on a NIC that does not exist, and records what it sends.
 *
 * Loaded with LD_PRELOAD. FAKE_SOCKET is the path of the SOCK_SEQPACKET socket on which fake.py
 * listens. An ioctl(SIOCETHTOOL) for the device FAKE_DEVICE goes there as 'I', the device's name in
 * 16 bytes, the structure; the answer is an errno (0: none) in 4 bytes and the structure. Netlink
 * messages are sent to the kernel, and a copy there as 'N' and the message; with FAKE_ONLY_IOCTL
 * there is no generic netlink at all, and ethtool does with ioctls what it can.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/netlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ROOM (1 << 16)

static int server(void)
{
	static int connected = -1;
	struct sockaddr_un there = { .sun_family = AF_UNIX };

	if (connected >= 0)
		return connected;
	snprintf(there.sun_path, sizeof(there.sun_path), "%s", getenv("FAKE_SOCKET"));
	connected = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (connect(connected, (struct sockaddr *)&there, sizeof(there)) != 0) {
		perror("FAKE_SOCKET");
		exit(99);
	}
	return connected;
}

/* How long the structure is that begins with this command; what we do not know, fake.py refuses. */
static size_t length_of(const void *data)
{
	const struct ethtool_rxnfc *rxnfc = data;
	const struct ethtool_rxfh *rxfh = data;
	size_t entries;

	switch (rxnfc->cmd) {
	case ETHTOOL_GRXRINGS:
	case ETHTOOL_GRXCLSRLCNT:
	case ETHTOOL_GRXCLSRULE:
	case ETHTOOL_SRXCLSRLINS:
	case ETHTOOL_SRXCLSRLDEL:
		return sizeof(*rxnfc);
	case ETHTOOL_GRXCLSRLALL:
		return sizeof(*rxnfc) + rxnfc->rule_cnt * sizeof(__u32);
	case ETHTOOL_GRSSH:
	case ETHTOOL_SRSSH:
		entries = rxfh->indir_size == ETH_RXFH_INDIR_NO_CHANGE ? 0 : rxfh->indir_size;
		return sizeof(*rxfh) + entries * sizeof(__u32) + rxfh->key_size;
	default:
		return sizeof(__u32);
	}
}

static int ask(struct ifreq *request)
{
	static char message[ROOM];
	size_t length = length_of(request->ifr_data);
	ssize_t received;
	int error;

	message[0] = 'I';
	memcpy(message + 1, request->ifr_name, IFNAMSIZ);
	memcpy(message + 1 + IFNAMSIZ, request->ifr_data, length);
	send(server(), message, 1 + IFNAMSIZ + length, 0);
	received = recv(server(), message, sizeof(message), 0);
	if (received < (ssize_t)sizeof(error)) {
		fprintf(stderr, "the fake NIC does not answer\n");
		exit(99);
	}
	memcpy(&error, message, sizeof(error));
	if (error) {
		errno = error;
		return -1;
	}
	memcpy(request->ifr_data, message + sizeof(error), received - sizeof(error));
	return 0;
}

int ioctl(int descriptor, unsigned long number, ...)
{
	int (*original)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
	va_list arguments;
	void *data;

	va_start(arguments, number);
	data = va_arg(arguments, void *);
	va_end(arguments);
	if (number == SIOCETHTOOL && !strcmp(((struct ifreq *)data)->ifr_name, getenv("FAKE_DEVICE")))
		return ask(data);
	return original(descriptor, number, data);
}

ssize_t sendto(int descriptor, const void *data, size_t length, int flags,
	       const struct sockaddr *address, socklen_t size)
{
	ssize_t (*original)(int, const void *, size_t, int, const struct sockaddr *, socklen_t) =
		dlsym(RTLD_NEXT, "sendto");
	static char message[ROOM];

	if (address && address->sa_family == AF_NETLINK && length < sizeof(message)) {
		message[0] = 'N';
		memcpy(message + 1, data, length);
		send(server(), message, 1 + length, 0);
		recv(server(), message, sizeof(message), 0);
	}
	return original(descriptor, data, length, flags, address, size);
}

int socket(int domain, int type, int protocol)
{
	int (*original)(int, int, int) = dlsym(RTLD_NEXT, "socket");

	if (domain == AF_NETLINK && protocol == NETLINK_GENERIC && getenv("FAKE_ONLY_IOCTL")) {
		errno = EPROTONOSUPPORT;
		return -1;
	}
	return original(domain, type, protocol);
}

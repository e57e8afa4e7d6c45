/*
 * Fuzz the launcher: what its agent answers, its environment, its standard input.
 *
 * netkit.c is included, with its main() renamed; _exit() leads back here, and what it prints goes
 * into a pipe, for it must be one document or nothing at all. The agent is the other end of a
 * socket pair: it has written its answer before it is asked. An input is
 *
 *     1 byte    the verb, 1 byte which of the descriptors 0 to 2 are closed (a bit each), and whether
 *               nobody listens (8)
 *     2 bytes   length of the environment, then that: NAME=VALUE, each with a NUL
 *     2 bytes   length of the standard input, then that
 *     the rest  the answer of the agent
 */
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static jmp_buf end;
static int status_of_the_end;

static _Noreturn void leave(int status)
{
    status_of_the_end = status;
    longjmp(end, 1);
}

static int connected = -1;

/* The agent that is there already; the Python entry point that is not. */
static int connect_here(int descriptor, const void *address, unsigned length)
{
    static volatile unsigned char seen;

    /* As the kernel does; else nothing of the address would ever be written. */
    for (unsigned at = 0; at < length; at++)
        seen = ((const unsigned char *)address)[at];
    if (connected < 0)
        errno = ECONNREFUSED;
    return connected < 0 || dup2(connected, descriptor) < 0 ? -1 : 0;
}

#define ABSENT_MS 0 /* nobody comes */
#define main launcher
#define _exit leave
#define connect(descriptor, address, length) connect_here(descriptor, address, length)
#include "../../../cni_netkit/agent/launcher/netkit.c"
#undef main
#undef _exit
#undef connect

static const char *const verbs[] = {"ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "", "x\"\\\n"};

static void require(int holds, const char *what)
{
    if (!holds) {
        (void)dprintf(3, "the launcher: %s\n", what);
        abort();
    }
}

static int file_of(const uint8_t *data, size_t size)
{
    int descriptor = memfd_create("input", MFD_CLOEXEC);

    require(descriptor >= 0 && write(descriptor, data, size) == (ssize_t)size, "no file");
    require(lseek(descriptor, 0, SEEK_SET) == 0, "no beginning");
    return descriptor;
}

static size_t take(const uint8_t **data, size_t *size, const uint8_t **part)
{
    size_t length;

    if (*size < 2)
        return 0;
    length = ((size_t)(*data)[0] << 8 | (*data)[1]) % (*size - 1);
    *part = *data + 2;
    *data += 2 + length;
    *size -= 2 + length;
    return length;
}

/* What was printed: nothing, or one object of JSON with a code, or what the agent said. */
static void judge(int status, const char *output, size_t length)
{
    require(status >= 0 && status <= 255, "no exit status");
    if (status == 1 && length > 0 && memcmp(output, "{\"cniVersion\": \"", 16) == 0) {
        size_t objects = 0;
        for (size_t at = 0; at < length; at++) {
            require(output[at] >= 0x20 || at == length - 1, "a control character in a document");
            objects += output[at] == '{' && (at == 0 || output[at - 1] == '\n');
        }
        require(objects == 1, "more than one document");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char block[1 << 16], printed[1 << 20], *variables[4096];
    const uint8_t *part = data;
    char verb[64];
    int pair[2], output = memfd_create("output", MFD_CLOEXEC), keep[3];
    size_t count = 0, length;

    if (size < 2) {
        close(output);
        return 0;
    }
    (void)snprintf(verb, sizeof verb, "CNI_COMMAND=%s", verbs[data[0] % 8]);
    uint8_t closed = data[1];
    data += 2;
    size -= 2;
    length = take(&data, &size, &part);
    memcpy(block, part, length);
    block[length] = '\0';
    variables[count++] = verb;
    for (char *each = block; each < block + length && count < 4095; each += strlen(each) + 1)
        variables[count++] = each;
    variables[count] = NULL;
    length = take(&data, &size, &part);
    int input_file = file_of(part, length);

    require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0, "no sockets");
    connected = closed & 8 ? -1 : pair[0];
    require(send(pair[1], data, size, MSG_DONTWAIT) == (ssize_t)size || size > 100000, "full");
    require(shutdown(pair[1], SHUT_WR) == 0, "no end");
    for (int each = 0; each < 3; each++)
        keep[each] = fcntl(each, F_DUPFD_CLOEXEC, 10);
    dup2(input_file, 0);
    dup2(output, 1);
    for (int each = 0; each < 3; each++)
        if (closed >> each & 1)
            close(each);

    environ = variables;
    command = socket_path = NULL;
    memcpy(cni_version, NEWEST, sizeof NEWEST);
    environment_length = input_length = 0;
    if (setjmp(end) == 0)
        status_of_the_end = launcher();

    for (int each = 0; each < 3; each++)
        if (keep[each] >= 0) {
            dup2(keep[each], each);
            close(keep[each]);
        } else {
            close(each);
        }
    require(lseek(output, 0, SEEK_SET) == 0, "no beginning");
    ssize_t got = read(output, printed, sizeof printed);
    judge(status_of_the_end, printed, got > 0 ? (size_t)got : 0);
    close(output);
    close(input_file);
    close(pair[0]);
    close(pair[1]);
    for (int each = 4; each < 64; each++) /* the launcher gives nothing back: its process ends */
        close(each);
    return 0;
}

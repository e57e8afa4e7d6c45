/*
 * netkit: what a container runtime executes. It hands the request to the resident agent and prints
 * the agent's answer; where no agent listens it becomes the Python entry point that lies beside it.
 * Where there is none either (Kubernetes), the agent is just being replaced: it is waited for.
 *
 * A process lives for one request, so there is no heap and nothing is given back: the buffers are
 * static, of which the kernel supplies the pages that are touched. The frames on the socket are
 * described in ../wire.py. Whatever fails is a CNI error object on standard output, and nothing is
 * ever tried twice: only before the connection stands it is certain that the agent did nothing.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef NETKIT_VERSION
#define NETKIT_VERSION "(unknown version)"
#endif
#define ABOUT                                                                                      \
    "netkit " NETKIT_VERSION ": CNI plugin that connects containers with netkit devices; "         \
    "CNI versions 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n"
#define NEWEST "1.1.0"
#define SOCKET "/run/cni-netkit/agent.sock"
#define PYTHON "netkit-python"

/* linux/netlink.h, which not every C library's compiler finds. */
#ifndef NETLINK_ROUTE
#define NETLINK_ROUTE 0
#endif

/*
 * Deadlines in milliseconds. All together they stay below the two minutes that a kubelet grants its
 * runtime (--runtime-request-timeout), so that what went wrong is heard before everybody gives up.
 * Connecting waits only while the agent's backlog is full. An agent that is replaced, or that a node
 * just booted has yet to start, is there after some seconds. The input and the request are a matter
 * of microseconds and have time for a machine that swaps; the agent itself answers within a minute.
 */
#ifndef CONNECT_MS
#define CONNECT_MS 1000
#endif
#ifndef ABSENT_MS
#define ABSENT_MS 20000
#endif
#ifndef INPUT_MS
#define INPUT_MS 9000
#endif
#ifndef SEND_MS
#define SEND_MS 10000
#endif
#ifndef RECEIVE_MS
#define RECEIVE_MS 75000
#endif

/* As in ../wire.py. Linux allows an environment of 6 MiB (fs/exec.c, bprm_stack_limits()). */
#define INPUT_LIMIT (16U << 20)
#define OUTPUT_LIMIT (16U << 20)
#define ENVIRONMENT_LIMIT (8U << 20)
#define PROTOCOL 1
#define REQUEST_HEADER 20
#define ANSWER_HEADER 12

/* Codes of the CNI specification, section 5, "Error". */
enum { INVALID_ENVIRONMENT = 4, IO_FAILURE = 5, TRY_AGAIN_LATER = 11, NOT_AVAILABLE = 50 };

#define LOOK_MS 50 /* how often an agent that is not there is looked for */

#define NOT_DONE "nothing was done"
#define TRY_AGAIN "nothing was done; look at the agent's log, restart the agent, and try again"
#define MAYBE_DONE                                                                                 \
    "it may or may not have been carried out: DEL undoes whatever was done of an ADD; "            \
    "look at the agent's log, restart the agent, and try again"

extern char **environ;

static const char *command;
static const char *socket_path;
static char cni_version[16] = NEWEST;
static char environment[ENVIRONMENT_LIMIT];
static size_t environment_length;
static char input[INPUT_LIMIT + 1]; /* the one more tells that there is too much */
static size_t input_length;
static unsigned char answer[ANSWER_HEADER + OUTPUT_LIMIT + 1]; /* likewise */

static int64_t now(void)
{
    struct timespec time;

    if (clock_gettime(CLOCK_MONOTONIC, &time) != 0)
        abort(); /* only a bad pointer or an unknown clock would do that */
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* Wait until descriptor is ready. Returns 0, ETIMEDOUT or another errno. */
static int await(int descriptor, short events, int64_t deadline)
{
    struct pollfd waiting = {.fd = descriptor, .events = events};

    for (;;) {
        int64_t left = deadline - now();
        int ready = poll(&waiting, 1, left > 0 ? (int)left : 0);
        if (ready > 0)
            return 0;
        if (ready == 0)
            return ETIMEDOUT;
        if (errno != EINTR)
            return errno;
    }
}

static int write_all(int descriptor, const void *data, size_t length)
{
    const char *rest = data;

    /* Not earlier: the Python entry point would inherit it. */
    if (signal(SIGPIPE, SIG_IGN) == SIG_ERR)
        return -1;
    while (length > 0) {
        ssize_t written = write(descriptor, rest, length);
        if (written < 0) {
            struct pollfd full = {.fd = descriptor, .events = POLLOUT};
            if (errno == EINTR)
                continue;
            if (errno == EAGAIN && (poll(&full, 1, -1) >= 0 || errno == EINTR))
                continue;
            return -1;
        }
        rest += written;
        length -= (size_t)written;
    }
    return 0;
}

/* Turn text into the inside of a JSON string; what is not ASCII may be bad UTF-8: '?' for it. */
static void escape(char *to, const char *text)
{
    static const char digits[] = "0123456789abcdef";
    size_t length = 0;

    for (; *text != '\0'; text++) {
        unsigned char byte = (unsigned char)*text;
        if (byte < 0x20) {
            memcpy(to + length, "\\u00", 4);
            to[length + 4] = digits[byte >> 4];
            to[length + 5] = digits[byte & 15];
            length += 6;
            continue;
        }
        if (byte == '"' || byte == '\\')
            to[length++] = '\\';
        to[length++] = byte < 0x7f ? *text : '?';
    }
    to[length] = '\0';
}

/* Print a CNI error object and exit. */
static _Noreturn void __attribute__((format(printf, 3, 4)))
fail(int code, const char *details, const char *format, ...)
{
    static char message[2 * PATH_MAX], escaped[6 * sizeof message], document[7 * sizeof message];
    va_list values;
    int length;

    va_start(values, format);
    length = vsnprintf(message, sizeof message, format, values);
    va_end(values);
    if (length < 0)
        _exit(1);
    escape(escaped, message);
    length = snprintf(document, sizeof document,
                      "{\"cniVersion\": \"%s\", \"code\": %d, "
                      "\"msg\": \"%s\", \"details\": \"%s\"}\n",
                      cni_version, code, escaped, details);
    if (length > 0)
        (void)write_all(STDOUT_FILENO, document, (size_t)length); /* nobody is left to be told */
    _exit(1);
}

/* The error code for "the agent cannot do it now": a STATUS has its own. */
static int unavailable(void)
{
    return strcmp(command, "STATUS") == 0 ? NOT_AVAILABLE : TRY_AGAIN_LATER;
}

#define AGENT_FAILED(details, text, ...)                                                           \
    fail(unavailable(), details, "%s: the agent at %s " text, command, socket_path, __VA_ARGS__)

/* The cniVersion in which to report an error: the first in the input that looks like one. */
static void note_version(void)
{
    static const char key[] = "\"cniVersion\"", space[] = " \t\r\n", figures[] = "0123456789.";
    const char *found = input;
    size_t length;

    input[input_length < INPUT_LIMIT ? input_length : INPUT_LIMIT] = '\0';
    while ((found = strstr(found, key)) != NULL) {
        found += sizeof key - 1;
        found += strspn(found, space);
        if (*found != ':')
            continue;
        found += 1 + strspn(found + 1, space);
        length = *found == '"' ? strspn(found + 1, figures) : 0;
        if (length > 0 && length < sizeof cni_version && found[1 + length] == '"') {
            memcpy(cni_version, found + 1, length);
            cni_version[length] = '\0';
            return;
        }
    }
}

/* Read standard input to its end. Returns 0 or an errno; EFBIG means more than INPUT_LIMIT. */
static int read_input(void)
{
    int64_t deadline = now() + INPUT_MS;

    for (;;) {
        int error = await(STDIN_FILENO, POLLIN, deadline);
        if (error != 0)
            return error;
        ssize_t got = read(STDIN_FILENO, input + input_length, sizeof input - input_length);
        if (got < 0 && errno != EINTR && errno != EAGAIN)
            return errno;
        if (got == 0)
            return 0;
        if (got > 0)
            input_length += (size_t)got;
        if (input_length > INPUT_LIMIT)
            return EFBIG;
    }
}

static void read_request(void)
{
    int error = read_input();

    note_version();
    if (error == EFBIG)
        fail(IO_FAILURE, NOT_DONE, "%s: there are more than %u bytes on standard input", command,
             INPUT_LIMIT);
    if (error == ETIMEDOUT)
        fail(IO_FAILURE, NOT_DONE, "%s: standard input did not end within %d ms", command,
             INPUT_MS);
    if (error != 0)
        fail(IO_FAILURE, NOT_DONE, "%s: the network configuration cannot be read from standard "
             "input: %s", command, strerror(error));

    for (char **each = environ; *each != NULL; each++) {
        size_t length = strlen(*each) + 1;
        if (length > sizeof environment - environment_length)
            fail(INVALID_ENVIRONMENT, NOT_DONE, "%s: the environment has more than %u bytes",
                 command, ENVIRONMENT_LIMIT);
        memcpy(environment + environment_length, *each, length);
        environment_length += length;
    }
}

/*
 * Become the Python entry point, which then reads the standard input that nobody has touched.
 * Returns why that cannot be; path is where it ought to be.
 */
static int run_python(char path[PATH_MAX + sizeof PYTHON])
{
    char *slash;
    /* An executable replaced meanwhile reads "... (deleted)": its directory is still right. */
    ssize_t length = readlink("/proc/self/exe", path, PATH_MAX - 1);

    path[length > 0 ? length : 0] = '\0';
    if ((slash = strrchr(path, '/')) == NULL)
        return ENOENT;
    memcpy(slash + 1, PYTHON, sizeof PYTHON);
    char *arguments[] = {path, NULL};
    (void)execve(path, arguments, environ);
    return errno;
}

/* Whether an agent that is not there is to be waited for. Who asks how things are is told at once. */
static int worth_waiting(int reason, int without_python)
{
    if (strcmp(command, "STATUS") == 0 || strcmp(command, "VERSION") == 0)
        return 0;
    return (reason == ENOENT || reason == ECONNREFUSED) && without_python == ENOENT;
}

/* No agent listens: become Python, or wait a moment. Does not return when that was long enough. */
static void do_without_agent(int reason, int64_t deadline)
{
    static char path[PATH_MAX + sizeof PYTHON];
    int error = run_python(path);

    if (worth_waiting(reason, error) && now() < deadline) {
        (void)poll(NULL, 0, LOOK_MS);
        return;
    }
    (void)read_input(); /* for its cniVersion only */
    note_version();
    fail(unavailable(), "nothing was done; start the agent: cni-netkit agent",
         "%s: no agent listens on %s (%s), and the Python entry point in its place, %s, "
         "cannot be executed: %s", command, socket_path, strerror(reason), path, strerror(error));
}

static int connect_to_agent(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval limit = {.tv_sec = CONNECT_MS / 1000, .tv_usec = CONNECT_MS % 1000 * 1000};
    int64_t absent = now() + ABSENT_MS, deadline = now() + CONNECT_MS;
    size_t length = strlen(socket_path) + 1;
    int agent;

    if (length > sizeof address.sun_path)
        fail(INVALID_ENVIRONMENT, NOT_DONE, "CNI_NETKIT_SOCKET is longer than the %zu bytes that a "
             "socket's path can have: %s", sizeof address.sun_path - 1, socket_path);
    memcpy(address.sun_path, socket_path, length);
    agent = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    /* A Unix socket waits for room in the backlog as long as its send timeout says. */
    if (agent < 0 || setsockopt(agent, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) != 0)
        AGENT_FAILED(TRY_AGAIN, "cannot be called, for lack of a socket: %s", strerror(errno));
    while (connect(agent, (const struct sockaddr *)&address, sizeof address) != 0) {
        switch (errno) {
        case EINTR:
            if (now() < deadline)
                break;
            /* fall through */
        case EAGAIN:
            AGENT_FAILED(TRY_AGAIN, "did not accept the connection within %d ms", CONNECT_MS);
        case ENOENT:
        case ENOTDIR:
        case ECONNREFUSED:
        case EACCES:
        case EPERM:
            do_without_agent(errno, absent);
            deadline = now() + CONNECT_MS;
            break;
        default:
            AGENT_FAILED(TRY_AGAIN, "cannot be called: %s", strerror(errno));
        }
    }
    return agent;
}

static unsigned char *put(unsigned char *to, uint32_t value, int bytes)
{
    for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8)
        *to++ = (unsigned char)(value >> shift & 0xff);
    return to;
}

static uint32_t get(const unsigned char *from, int bytes)
{
    uint32_t value = 0;

    while (bytes-- > 0)
        value = value << 8 | *from++;
    return value;
}

/*
 * Open the container's namespace, and an rtnetlink socket in it: this process may stay there, while
 * the agent would have to start a thread for it. Whatever cannot be opened the agent does without,
 * or says what is missing. Returns how many descriptors there are; error is why there is none.
 */
static int open_namespace(int descriptors[2], int *error)
{
    const char *path = getenv("CNI_NETNS");

    *error = 0;
    if (path == NULL || *path == '\0')
        return 0;
    /* Not to wait for ever if it should be a named pipe. What it is, the agent finds out. */
    descriptors[0] = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (descriptors[0] < 0) {
        *error = errno;
        return 0;
    }
    if (setns(descriptors[0], CLONE_NEWNET) != 0)
        return 1;
    descriptors[1] = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    return descriptors[1] < 0 ? 1 : 2;
}

/* Send header, environment and input, and with the first byte what open_namespace() opens. */
static void send_request(int agent)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(2 * sizeof(int))];
    } control = {.space = {0}};
    unsigned char header[REQUEST_HEADER] = "NKRQ";
    struct iovec parts[] = {
        {header, sizeof header}, {environment, environment_length}, {input, input_length}};
    struct iovec *part = parts, *end = parts + 3;
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 3};
    int64_t deadline = now() + SEND_MS;
    int descriptors[2], error, count = open_namespace(descriptors, &error);

    if (count > 0) {
        /* Constants, since C libraries differ in the type that these have. */
        message.msg_control = control.space;
        message.msg_controllen = count == 1 ? CMSG_SPACE(sizeof(int)) : CMSG_SPACE(2 * sizeof(int));
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = count == 1 ? CMSG_LEN(sizeof(int)) : CMSG_LEN(2 * sizeof(int));
        memcpy(CMSG_DATA(&control.header), descriptors, (size_t)count * sizeof(int));
    }
    unsigned char *to = put(header + 4, PROTOCOL, 2);
    to = put(to, (uint32_t)count, 2);
    to = put(to, (uint32_t)error, 4);
    to = put(to, (uint32_t)environment_length, 4);
    put(to, (uint32_t)input_length, 4);

    while (part < end) {
        ssize_t sent = sendmsg(agent, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0) {
            error = errno == EAGAIN ? await(agent, POLLOUT, deadline) : errno;
            if (error == 0 || error == EINTR)
                continue;
            if (error == EPIPE || error == ECONNRESET)
                return; /* an agent that takes no requests may have said so before it hung up */
            if (error == ETIMEDOUT)
                AGENT_FAILED(TRY_AGAIN, "did not take the request within %d ms", SEND_MS);
            AGENT_FAILED(TRY_AGAIN, "did not take the request: %s", strerror(error));
        }
        message.msg_control = NULL;
        message.msg_controllen = 0;
        while (part < end && (size_t)sent >= part->iov_len)
            sent -= (ssize_t)part++->iov_len;
        if (part < end) {
            part->iov_base = (char *)part->iov_base + sent;
            part->iov_len -= (size_t)sent;
        }
        message.msg_iov = part;
        message.msg_iovlen = 0;
        for (struct iovec *each = part; each < end; each++)
            message.msg_iovlen++;
    }
}

/* Check the header of the answer; returns how many bytes the whole has. */
static size_t announced(void)
{
    uint32_t version = get(answer + 4, 2), status = get(answer + 6, 2), length = get(answer + 8, 4);

    if (memcmp(answer, "NKAN", 4) != 0)
        AGENT_FAILED(MAYBE_DONE, "began its answer with something else than %s", "NKAN");
    if (version != PROTOCOL)
        AGENT_FAILED("netkit and its agent are of different releases: install them together",
                     "speaks version %u of the protocol, and netkit %d", version, PROTOCOL);
    if (status > 255 || length > OUTPUT_LIMIT)
        AGENT_FAILED(MAYBE_DONE, "announced exit status %u and %u bytes, of 255 and %u at most",
                     status, length, OUTPUT_LIMIT);
    return ANSWER_HEADER + length;
}

/* Receive the whole answer; returns how many bytes it has. */
static size_t receive_answer(int agent)
{
    int64_t deadline = now() + RECEIVE_MS;
    size_t have = 0, whole = ANSWER_HEADER;

    while (have < whole) {
        int error = await(agent, POLLIN, deadline);
        ssize_t got = 0;
        if (error == 0) {
            got = recv(agent, answer + have, sizeof answer - have, MSG_DONTWAIT);
            error = got < 0 ? errno : 0;
        }
        if (error == EINTR || error == EAGAIN)
            continue;
        if (error == ETIMEDOUT)
            AGENT_FAILED(MAYBE_DONE, "did not answer within %d ms", RECEIVE_MS);
        if (error != 0)
            AGENT_FAILED(MAYBE_DONE, "was lost after %zu bytes of its answer: %s", have,
                         strerror(error));
        if (got == 0)
            AGENT_FAILED(MAYBE_DONE, "hung up after %zu bytes of its answer", have);
        have += (size_t)got;
        if (have >= ANSWER_HEADER)
            whole = announced();
    }
    if (have > whole)
        AGENT_FAILED(MAYBE_DONE, "sends more than the %zu bytes it announced", whole);
    return whole;
}

int main(void)
{
    /* A descriptor opened below must not become standard input or output. */
    for (int each = 0; each <= 2; each++)
        if (fcntl(each, F_GETFD) < 0 && open("/dev/null", O_RDWR) != each)
            return 1;
    command = getenv("CNI_COMMAND");
    if (command == NULL || *command == '\0')
        return write_all(STDERR_FILENO, ABOUT, sizeof ABOUT - 1) == 0 ? 0 : 1;
    socket_path = getenv("CNI_NETKIT_SOCKET");
    if (socket_path == NULL || *socket_path == '\0')
        socket_path = SOCKET;

    /* Connected before the input is read, so that the Python entry point finds all of it. */
    int agent = connect_to_agent();
    read_request();
    send_request(agent);
    size_t length = receive_answer(agent);
    if (write_all(STDOUT_FILENO, answer + ANSWER_HEADER, length - ANSWER_HEADER) != 0)
        return 1;
    return (int)get(answer + 6, 2);
}

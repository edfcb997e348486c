/* Answers every INVITE with 486 and does nothing else: what a call costs at the least on this machine and kernel.
 *
 *   bare_responder PORT [--gso]
 *
 * One thread, recvmmsg and sendmmsg in batches of 32. No parser: an answer is the status line and the request's lines
 * from behind its first to the end of CSeq, so the generator must write Via, From, To and Call-ID before it. What does
 * not begin with INVITE, as an ACK, is read and forgotten. With --gso a run of answers of equal length to one peer, of
 * which the last may be shorter, goes to the kernel as one message (UDP_SEGMENT).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

enum { BATCH = 32, ROOM = 2048, BUFFER = 4 << 20, RUN = 65507, SEGMENT = 1200 };
#define STATUS "SIP/2.0 486 Busy Here"
#define END "\r\nContent-Length: 0\r\n\r\n"

static char requests[BATCH][ROOM], answers[BATCH * (ROOM + sizeof STATUS + sizeof END)];
static struct sockaddr_in peers[BATCH];
static struct mmsghdr in[BATCH], out[BATCH];
static struct iovec in_pieces[BATCH], out_pieces[BATCH];
static union { char bytes[CMSG_SPACE(sizeof(uint16_t))]; struct cmsghdr aligned; } controls[BATCH];

/* Writes the answer to an INVITE into `answer`; gives its length, or 0 where the request has no CSeq. */
static size_t refuse(const char *request, size_t length, char *answer) {
    static const char name[] = "\r\nCSeq:";
    const char *lines = memmem(request, length, "\r\n", 2);
    if (!lines) return 0;
    const char *end = request + length, *number = memmem(lines, end - lines, name, sizeof name - 1);
    if (!number) return 0;
    const char *stop = memmem(number + 2, end - number - 2, "\r\n", 2);
    if (!stop) return 0;
    size_t copied = stop - lines;
    memcpy(answer, STATUS, sizeof STATUS - 1);
    memcpy(answer + sizeof STATUS - 1, lines, copied);
    memcpy(answer + sizeof STATUS - 1 + copied, END, sizeof END - 1);
    return copied + sizeof STATUS + sizeof END - 2;
}

/* Whether an answer of this length to `peer` may join the run of `segment` bytes each that `message` is so far. */
static int joins(const struct mmsghdr *message, size_t segment, const struct sockaddr_in *peer, size_t length) {
    const struct sockaddr_in *other = message->msg_hdr.msg_name;
    size_t held = message->msg_hdr.msg_iov->iov_len;
    return length <= segment && segment <= SEGMENT && held % segment == 0 && held + length <= RUN &&
           other->sin_port == peer->sin_port && other->sin_addr.s_addr == peer->sin_addr.s_addr;
}

/* Tells the kernel where to cut a message that holds more than one answer. */
static void cut(struct mmsghdr *message, uint16_t segment, void *control) {
    if (message->msg_hdr.msg_iov->iov_len <= segment) return;
    message->msg_hdr.msg_control = control;
    message->msg_hdr.msg_controllen = sizeof controls[0];
    struct cmsghdr *head = CMSG_FIRSTHDR(&message->msg_hdr);
    *head = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof segment), .cmsg_level = SOL_UDP, .cmsg_type = UDP_SEGMENT};
    memcpy(CMSG_DATA(head), &segment, sizeof segment);
}

int main(int argc, char **argv) {
    int gso = argc == 3 && strcmp(argv[2], "--gso") == 0, size = BUFFER;
    if (argc != 2 + gso) return fprintf(stderr, "bare_responder PORT [--gso]\n"), 2;
    struct sockaddr_in local = {
        .sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int socket_ = socket(AF_INET, SOCK_DGRAM, 0);
    if (socket_ < 0 || bind(socket_, (void *)&local, sizeof local)) return perror("bare_responder: socket"), 1;
    /* As root past the system's limit, else up to it. */
    if (setsockopt(socket_, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size))
        setsockopt(socket_, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    for (int at = 0; at < BATCH; at++) {
        in_pieces[at] = (struct iovec){requests[at], ROOM};
        in[at].msg_hdr = (struct msghdr){.msg_name = &peers[at], .msg_iov = &in_pieces[at], .msg_iovlen = 1};
    }
    for (;;) {
        for (int at = 0; at < BATCH; at++) in[at].msg_hdr.msg_namelen = sizeof peers[at];
        int came = recvmmsg(socket_, in, BATCH, MSG_WAITFORONE, NULL), messages = 0;
        if (came < 0 && errno == EINTR) continue;
        if (came < 0) return perror("bare_responder: recvmmsg"), 1;
        char *free_ = answers;
        size_t segment = 0;
        for (int at = 0; at < came; at++) {
            if (in[at].msg_len < 6 || memcmp(requests[at], "INVITE", 6) != 0) continue;
            size_t length = refuse(requests[at], in[at].msg_len, free_);
            if (length == 0) continue;
            if (gso && messages && joins(&out[messages - 1], segment, &peers[at], length)) {
                out_pieces[messages - 1].iov_len += length;
            } else {
                if (gso && messages) cut(&out[messages - 1], segment, &controls[messages - 1]);
                out_pieces[messages] = (struct iovec){free_, length};
                out[messages].msg_hdr = (struct msghdr){
                    .msg_name = &peers[at], .msg_namelen = sizeof peers[at], .msg_iov = &out_pieces[messages],
                    .msg_iovlen = 1};
                segment = length;
                messages++;
            }
            free_ += length;
        }
        if (gso && messages) cut(&out[messages - 1], segment, &controls[messages - 1]);
        for (int at = 0; at < messages;) {
            int done = sendmmsg(socket_, out + at, messages - at, 0);
            if (done > 0) at += done;
            else if (errno != EINTR) at++; /* This one is lost, as in any network; the others go. */
        }
    }
}

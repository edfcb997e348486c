/* Sends SIP that nobody asked for, at a steady pace and cheaply.
 *
 *   flood SOURCE[:PORT] TARGET:PORT RATE SECONDS KIND [< PAIRS]
 *
 * KIND is a set of letters that take turns, a datagram each: s a scanner's OPTIONS, g garbage, i INVITE, a the ACK of
 * the INVITE before it with a guessed To-tag, f ACK with no tag. INVITEs name in turn the PAIRS, lines of caller and
 * dialled number. A KIND that begins with `=` goes out of a raw socket with SOURCE:PORT as its forged source (root).
 * Sends RATE * SECONDS datagrams, and takes longer where the machine is too slow. Prints what was sent, in which time,
 * and how many datagrams came back to its socket.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 64, ROOM = 1400, PAIRS = 65536, HEADS = sizeof(struct iphdr) + sizeof(struct udphdr) };
static char pairs[PAIRS][2][24], buffers[BATCH][HEADS + ROOM];
static unsigned long count, seed = 88172645463325252UL;

static unsigned long dice(void) { /* xorshift64 */
    seed ^= seed << 13, seed ^= seed >> 7;
    return seed ^= seed << 17;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static struct sockaddr_in address(char *text) {
    struct sockaddr_in name = {.sin_family = AF_INET};
    char *colon = strchr(text, ':');
    if (colon) *colon = 0, name.sin_port = htons(atoi(colon + 1));
    if (!inet_aton(text, &name.sin_addr)) fprintf(stderr, "flood: no address: %s\n", text), exit(2);
    return name;
}

/* One datagram of a kind into `out`; gives its length. */
static int write_one(char kind, char *out, const char *source, const char *target) {
    static unsigned long invites, call; /* an ACK has the numbers of the INVITE before it */
    if (kind == 'g') {
        int length = 16 + dice() % 600;
        for (int at = 0; at < length; at += 8) { unsigned long bits = dice(); memcpy(out + at, &bits, 8); }
        return length;
    }
    if (kind == 's')
        return snprintf(out, ROOM,
            "OPTIONS sip:100@%s SIP/2.0\r\nVia: SIP/2.0/UDP %s:5060;branch=z9hG4bK-%lx;rport\r\nMax-Forwards: 70\r\n"
            "To: \"sipvicious\"<sip:100@1.1.1.1>\r\nFrom: \"sipvicious\"<sip:100@1.1.1.1>;tag=%016lx\r\n"
            "User-Agent: friendly-scanner\r\nCall-ID: %lu\r\nContact: sip:100@%s:5060\r\nCSeq: 1 OPTIONS\r\n"
            "Accept: application/sdp\r\nContent-Length: 0\r\n\r\n", target, source, dice(), dice(), dice(), source);
    if (kind == 'i') invites++, call = dice();
    char (*pair)[24] = pairs[(invites - (invites > 0)) % count], tag[32] = "";
    if (kind == 'a') sprintf(tag, ";tag=%016lx", dice());
    const char *method = kind == 'i' ? "INVITE" : "ACK";
    return snprintf(out, ROOM,
        "%s sip:%s@%s SIP/2.0\r\nVia: SIP/2.0/UDP %s:5060;rport;branch=z9hG4bK%lx\r\nMax-Forwards: 70\r\n"
        "From: <sip:%s@%s>;tag=%lx\r\nTo: <sip:%s@%s>%s\r\nCall-ID: %lx@%s\r\nCSeq: 1 %s\r\n"
        "P-Asserted-Identity: <sip:%s@%s>\r\nContact: <sip:%s:5060>\r\nContent-Length: 0\r\n\r\n", method, pair[1],
        target, source, call, pair[0], source, call >> 9, pair[1], target, tag, call, source, method, pair[0], source,
        source);
}

int main(int argc, char **argv) {
    if (argc != 6) return fprintf(stderr, "flood SOURCE[:PORT] TARGET:PORT RATE SECONDS KIND [< PAIRS]\n"), 2;
    struct sockaddr_in from = address(argv[1]), to = address(argv[2]);
    double rate = atof(argv[3]);
    unsigned long total = rate * atof(argv[4]), sent = 0, received = 0;
    int forged = argv[5][0] == '=';
    char *kinds = argv[5] + forged;
    if (strpbrk(kinds, "iaf"))
        while (count < PAIRS && scanf("%23s %23s", pairs[count][0], pairs[count][1]) == 2) count++;
    if (!*kinds || strspn(kinds, "sgiaf") != strlen(kinds) || (strpbrk(kinds, "iaf") && !count))
        return fprintf(stderr, "flood: no such kind, or no pairs\n"), 2;
    seed ^= (unsigned long)time(NULL) << 20 ^ (unsigned long)clock();
    int out = forged ? socket(AF_INET, SOCK_RAW, IPPROTO_RAW) : socket(AF_INET, SOCK_DGRAM, 0);
    if (out < 0 || (!forged && bind(out, (void *)&from, sizeof from))) return perror("flood: socket"), 1;
    static struct mmsghdr messages[BATCH];
    static struct iovec pieces[BATCH];
    for (int at = 0; at < BATCH; at++)
        messages[at].msg_hdr = (struct msghdr){
            .msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &pieces[at], .msg_iovlen = 1};
    size_t turn = 0;
    double began = now();
    while (sent < total) {
        unsigned long due = (now() - began) * rate, batch = due > sent ? due - sent : 0;
        if (batch == 0) { nanosleep(&(struct timespec){0, 500000}, NULL); continue; }
        if (batch > BATCH) batch = BATCH;
        if (batch > total - sent) batch = total - sent;
        for (unsigned long at = 0; at < batch; at++) {
            char *data = buffers[at] + HEADS, *kind = kinds + turn++ % strlen(kinds);
            int length = write_one(*kind, data, argv[1], argv[2]);
            if (!forged) { pieces[at] = (struct iovec){data, length}; continue; }
            /* The kernel fills in length, id and checksum; a UDP checksum of 0 is none. */
            struct iphdr ip = {.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP,
                               .saddr = from.sin_addr.s_addr, .daddr = to.sin_addr.s_addr};
            struct udphdr udp = {.source = from.sin_port, .dest = to.sin_port,
                                 .len = htons(length + sizeof(struct udphdr))};
            memcpy(buffers[at], &ip, sizeof ip), memcpy(buffers[at] + sizeof ip, &udp, sizeof udp);
            pieces[at] = (struct iovec){buffers[at], length + HEADS};
        }
        for (unsigned long at = 0; at < batch;) {
            int done = sendmmsg(out, messages + at, batch - at, 0);
            if (done > 0) at += done;
            else if (errno != EAGAIN && errno != ENOBUFS && errno != EINTR) return perror("flood: sendmmsg"), 1;
            else poll(NULL, 0, 1);
        }
        sent += batch;
    }
    double taken = now() - began;
    poll(NULL, 0, 500);
    char byte;
    while (!forged && recv(out, &byte, 1, MSG_DONTWAIT) >= 0) received++;
    printf("sent %lu in %.3f s, received %lu\n", sent, taken, received);
    return 0;
}

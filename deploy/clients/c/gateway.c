/* A gateway of INSP/1 in C: a slot for each part, REJECT until a valid PASS for it has come in time. No JSON parser: it acts on the header alone.
 *
 *   cc -O2 -Wall -Wextra -o gateway gateway.c -lzmq
 *   ./gateway tcp://127.0.0.1:5562 STATION NAME [LANE|- [STATE_FILE|- [SERVER_KEY PUBLIC_KEY SECRET_KEY]]]
 *
 * Prints a JSON object in a line for each thing that happens, with `at_ns` (CLOCK_MONOTONIC) and `what`: welcome, verdict, duplicate, actuated, permit,
 * purge, refused, bad. A real gateway puts permit and slots on its outputs where this one prints (PROTOCOL.md §9). STATE_FILE stands for retentive memory:
 * the last verdict received, kept before it is acknowledged, so that the daemon's journal has a witness.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zmq.h>

enum { HEADER = 64, PASS = 0x5A, SLOTS = 4096, ARRIVED = 256, LEASE_MS = 300, HB_MS = 100, HELLO_MS = 200, REDIAL_MS = 5000, LARGEST = 65536 };
enum { KIND_VERDICT = 1, KIND_HB = 4, FLAG_HISTORICAL = 1, FLAG_LATE = 16 };

typedef struct {
    uint8_t kind, flags, verdict, lane, epoch[16];
    uint64_t seq, part_seq;
    uint32_t ttl_us;
    uint16_t reason;
} Header;

typedef struct { /* one part at the ejector; all zero is REJECT */
    uint64_t part_seq;
    uint8_t lane, decided, passes, done;
    int64_t due_ms; /* when its part is at the ejector at the latest: the verdict's time to live, from its receipt */
} Slot;

static uint32_t table[256];
static Slot slots[SLOTS];
static uint8_t epoch[16];
static uint64_t last_seq, before_seq;      /* the last verdict received, and the last one before this session */
static uint64_t arrived[ARRIVED], arrivals; /* one that was lost on the way comes again after those that followed it */
static int in_session, permit, says_permit; /* what is put out, and what the last heartbeat said */
static int64_t lease_ms, welcome_ms, beat_ms, next_ms; /* the lease counts from here, 0 before there is one; when its WELCOME came, the last HB went, and the next goes */
static const char *state_file;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int64_t now_ms(void) { return now_ns() / 1000000; }

static void tell(const char *what, const char *more, ...) {
    va_list rest;
    va_start(rest, more);
    printf("{\"at_ns\": %" PRId64 ", \"what\": \"%s\"", now_ns(), what);
    vprintf(more, rest);
    printf("}\n");
    va_end(rest);
}

static uint32_t crc32c(uint32_t crc, const uint8_t *data, size_t n) {
    if (!table[1])
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t c = i;
            for (int k = 0; k < 8; k++) c = c & 1 ? c >> 1 ^ 0x82F63B78u : c >> 1;
            table[i] = c;
        }
    for (crc = ~crc; n--; data++) crc = table[(crc ^ *data) & 255] ^ crc >> 8;
    return ~crc;
}

static uint64_t big(const uint8_t *p, int n) {
    uint64_t v = 0;
    while (n--) v = v << 8 | *p++;
    return v;
}

/* NULL, or why these bytes are no message; in the order magic, major, checksum. */
static const char *parse(const uint8_t *h, size_t size, const uint8_t *payload, size_t n, Header *out) {
    if (size != HEADER) return "short";
    if (memcmp(h, "INSP", 4)) return "magic";
    if (h[4] != 1) return "major";
    if (crc32c(crc32c(0, h, 60), payload, n) != big(h + 60, 4)) return "crc";
    out->kind = h[6], out->flags = h[7];
    memcpy(out->epoch, h + 8, 16);
    out->seq = big(h + 24, 8), out->part_seq = big(h + 32, 8), out->ttl_us = (uint32_t)big(h + 48, 4);
    out->verdict = h[56], out->lane = h[57], out->reason = (uint16_t)big(h + 58, 2);
    return NULL;
}

static void epoch_text(char *text) {
    for (int i = 0; i < 16; i++) text += sprintf(text, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", epoch[i]);
}

static void say(void *socket, const char *name, const char *json) {
    uint8_t check[4];
    uint32_t crc = crc32c(crc32c(0, (const uint8_t *)name, strlen(name)), (const uint8_t *)json, strlen(json));
    for (int i = 0; i < 4; i++) check[i] = (uint8_t)(crc >> (24 - 8 * i));
    if (zmq_send(socket, name, strlen(name), ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0) return; /* nobody there: the lease ends by itself */
    zmq_send(socket, check, 4, ZMQ_SNDMORE | ZMQ_DONTWAIT);
    zmq_send(socket, json, strlen(json), ZMQ_DONTWAIT);
}

/* {"epoch": …, "seq": …} of the last verdict, as HELLO says it; written beside and renamed, so that it is there whole or not at all */
static void remember(const char *text, uint64_t seq) {
    char beside[1024];
    if (!state_file) return;
    snprintf(beside, sizeof beside, "%s.part", state_file);
    FILE *file = fopen(beside, "w");
    if (!file) return;
    fprintf(file, "{\"epoch\":\"%s\",\"seq\":\"%" PRIu64 "\"}", text, seq);
    if (!fclose(file)) rename(beside, state_file);
}

static const char *remembered(void) {
    static char last[160];
    char kept[128] = "";
    FILE *file = state_file ? fopen(state_file, "r") : NULL;
    if (file) {
        if (!fgets(kept, sizeof kept, file)) kept[0] = 0;
        fclose(file);
    }
    snprintf(last, sizeof last, kept[0] ? "{\"q\":%s}" : "{}", kept);
    return last;
}

/* What the ejector would be told now, for every part whose time has come: it passes only if its slot says so. */
static void actuate(void) {
    char text[40];
    epoch_text(text);
    for (int i = 0; i < SLOTS; i++) {
        Slot *slot = &slots[i];
        if (!slot->part_seq || !slot->decided || slot->done || now_ms() < slot->due_ms) continue;
        slot->done = 1;
        tell("actuated", ", \"epoch\": \"%s\", \"lane\": %u, \"part\": \"%" PRIu64 "\", \"passes\": %u", text, slot->lane, slot->part_seq, slot->passes);
    }
}

static void lose_session(void) {
    in_session = says_permit = 0;
    lease_ms = 0;
    for (int i = 0; i < SLOTS; i++) /* what is undecided stays REJECT: no PASS of another session may clear it */
        if (slots[i].part_seq && !slots[i].decided) slots[i].decided = 1;
}

static int leased(void) { return lease_ms && now_ms() - lease_ms <= LEASE_MS; }

/* A lease that has run out ends the session: what came later could be of any age, and only a new WELCOME begins anew. */
static void look_at_lease(void) {
    if (in_session && now_ms() - (lease_ms ? lease_ms : welcome_ms) > LEASE_MS) lose_session(), next_ms = 0;
}

/* The lease counts from when the heartbeat was sent that this one answers ("echo"): what waited on the way gives nothing. A text in JSON cannot
 * hold these bytes, its quotes would be escaped. A daemon of before does not answer, and then the lease counts from the arrival. */
static const char *on_heartbeat(const Header *h, const char *json) {
    const char *echo = strstr(json, "\"echo\":");
    int64_t from_ms = now_ms();
    says_permit = 0;
    if (echo) {
        from_ms = echo[7] == '"' ? (int64_t)(strtoull(echo + 8, NULL, 10) / 1000000) : 0;
        if (from_ms > beat_ms) return "echo";
        if (from_ms < welcome_ms) from_ms = 0; /* of another session */
    }
    if (from_ms > lease_ms) lease_ms = from_ms;
    says_permit = h->verdict == PASS;
    return NULL;
}

static void on_welcome(const char *json) {
    const char *at = strstr(json, "\"epoch\":\"");
    uint8_t fresh[16];
    if (!at) return;
    at += 9;
    for (int i = 0; i < 16; i++) {
        unsigned byte;
        if (*at == '-') at++;
        if (sscanf(at, "%2x", &byte) != 1) return;
        fresh[i] = (uint8_t)byte, at += 2;
    }
    lose_session();
    if (memcmp(fresh, epoch, 16)) memset(slots, 0, sizeof slots), last_seq = 0;
    memcpy(epoch, fresh, 16);
    const char *heads = strstr(json, "\"heads\":{"), *head = heads ? strstr(heads, "\"q\":\"") : NULL;
    before_seq = head ? strtoull(head + 5, NULL, 10) : last_seq;
    if (before_seq > last_seq) last_seq = before_seq;
    memset(arrived, 0, sizeof arrived);
    in_session = 1, welcome_ms = now_ms(), next_ms = 0;
    char text[40];
    epoch_text(text);
    tell("welcome", ", \"epoch\": \"%s\"", text);
}

static int came_before(uint64_t seq) {
    if (seq <= before_seq) return 1;
    for (int i = 0; i < ARRIVED; i++)
        if (arrived[i] == seq) return 1;
    arrived[arrivals++ % ARRIVED] = seq;
    return 0;
}

static void on_verdict(void *socket, const Header *h) {
    char text[40], json[160];
    epoch_text(text);
    if (came_before(h->seq)) {
        tell("duplicate", ", \"seq\": \"%" PRIu64 "\"", h->seq);
    } else {
        if (h->seq > last_seq) remember(text, last_seq = h->seq);
        Slot *slot = &slots[(h->part_seq * 16 + h->lane) % SLOTS];
        if (slot->part_seq != h->part_seq || slot->lane != h->lane) *slot = (Slot){.part_seq = h->part_seq, .lane = h->lane};
        int in_time = h->ttl_us > 0 && !(h->flags & (FLAG_HISTORICAL | FLAG_LATE)) && leased();
        if (!slot->decided) slot->decided = 1, slot->passes = h->verdict == PASS && in_time, slot->due_ms = now_ms() + h->ttl_us / 1000;
        tell("verdict", ", \"epoch\": \"%s\", \"seq\": \"%" PRIu64 "\", \"lane\": %u, \"part\": \"%" PRIu64 "\", \"verdict\": %u, \"reason\": %u, \"flags\": %u, \"ttl_us\": %u, \"passes\": %u",
             text, h->seq, h->lane, h->part_seq, h->verdict, h->reason, h->flags, h->ttl_us, slot->passes);
    }
    snprintf(json, sizeof json, "{\"epoch\":\"%s\",\"upto\":\"%" PRIu64 "\",\"seq\":\"%" PRIu64 "\"}", text, last_seq, h->seq);
    say(socket, "ACK", json);
}

static void on_message(void *socket, const char *name, const uint8_t *head, size_t size, const uint8_t *payload, size_t n) {
    Header h;
    look_at_lease();
    if (!strcmp(name, "VERDICT") || !strcmp(name, "HB")) {
        const char *why = parse(head, size, payload, n, &h);
        if (!why && (!in_session || memcmp(h.epoch, epoch, 16))) why = "epoch";
        if (!why && h.kind != (name[0] == 'V' ? KIND_VERDICT : KIND_HB)) why = "kind";
        if (!why && h.kind == KIND_HB) why = on_heartbeat(&h, (const char *)payload);
        if (why)
            tell("bad", ", \"why\": \"%s\"", why);
        else if (h.kind == KIND_VERDICT)
            on_verdict(socket, &h);
        return;
    }
    if (size && (size != 4 || crc32c(crc32c(0, (const uint8_t *)name, strlen(name)), payload, n) != big(head, 4))) {
        tell("bad", ", \"why\": \"crc\"");
    } else if (!strcmp(name, "WELCOME")) {
        on_welcome((const char *)payload);
    } else if (!strcmp(name, "PURGE")) { /* without reading the range: every part on the belt stays rejected, which is the safe side */
        for (int i = 0; i < SLOTS; i++) slots[i].passes = 0;
        tell("purge", "");
    } else if (!strcmp(name, "REFUSE") || !strcmp(name, "BYE")) {
        static const char *const ends[] = {"\"E_STATE\"", "\"E_ACK\"", "\"E_PROTO\"", "\"E_AUTH\"", "\"E_ORDER\""}; /* the others are of one message */
        int over = name[0] == 'B';
        for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) over |= strstr((const char *)payload, ends[i]) != NULL;
        tell("refused", ", \"said\": %s", n ? (const char *)payload : "{}");
        if (over) lose_session();
    }
}

/* A connection to argv[1], NULL when there can be none. */
static void *dial(void *context, int argc, char **argv) {
    void *socket = zmq_socket(context, ZMQ_DEALER);
    int linger = 0, ahead = 1000, first = 100, most = 500, beat = 200, timeout = 600, connected_only = 1;
    int64_t largest = LARGEST;
    zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof linger);
    zmq_setsockopt(socket, ZMQ_RCVHWM, &ahead, sizeof ahead);
    zmq_setsockopt(socket, ZMQ_RECONNECT_IVL, &first, sizeof first);
    zmq_setsockopt(socket, ZMQ_RECONNECT_IVL_MAX, &most, sizeof most);
    zmq_setsockopt(socket, ZMQ_IMMEDIATE, &connected_only, sizeof connected_only); /* nothing for the next daemon */
    zmq_setsockopt(socket, ZMQ_HEARTBEAT_IVL, &beat, sizeof beat);
    zmq_setsockopt(socket, ZMQ_HEARTBEAT_TIMEOUT, &timeout, sizeof timeout);
    zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &largest, sizeof largest);
    if (argc == 9 && (zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, argv[6], 41) || zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, argv[7], 41) ||
                      zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, argv[8], 41))) {
        fprintf(stderr, "keys: %s\n", zmq_strerror(zmq_errno()));
        return NULL;
    }
    if (zmq_connect(socket, argv[1])) {
        fprintf(stderr, "%s: %s\n", argv[1], zmq_strerror(zmq_errno()));
        return NULL;
    }
    return socket;
}

int main(int argc, char **argv) {
    if (argc < 4 || argc == 7 || argc == 8 || argc > 9) {
        fprintf(stderr, "usage: %s ENDPOINT STATION NAME [LANE|- [STATE_FILE|- [SERVER_KEY PUBLIC_KEY SECRET_KEY]]]\n", argv[0]);
        return 64;
    }
    char lanes[32] = "";
    if (argc > 4 && strcmp(argv[4], "-")) snprintf(lanes, sizeof lanes, "\"lanes\":[%d],", atoi(argv[4]));
    if (argc > 5 && strcmp(argv[5], "-")) state_file = argv[5];
    void *context = zmq_ctx_new(), *socket = dial(context, argc, argv);
    if (!socket) return 78;
    setvbuf(stdout, NULL, _IOLBF, 0);
    int64_t dialled_ms = now_ms();
    static uint8_t frames[3][LARGEST + 1];
    for (;;) {
        int64_t now = now_ms();
        look_at_lease();
        if (in_session) dialled_ms = now;
        if (now - dialled_ms > REDIAL_MS) { /* libzmq never connects again after an error of the protocol, which a flipped bit is */
            zmq_close(socket);
            if (!(socket = dial(context, argc, argv))) return 78;
            dialled_ms = now;
        }
        if (now >= next_ms) {
            char json[768];
            next_ms = now + (in_session ? HB_MS : HELLO_MS);
            if (in_session)
                snprintf(json, sizeof json, "{\"mono_ns\":\"%lld\"}", (long long)(beat_ms = now) * 1000000);
            else
                snprintf(json, sizeof json,
                         "{\"proto\":{\"majors\":[1]},\"client\":\"%s\",\"station\":\"%s\",\"profile\":\"permit\",\"travel_min_ms\":600,\"scan_ms\":10,"
                         "\"actuator_ms\":40,\"lease_ms\":%d,%s\"credit\":64,\"last\":%s}",
                         argv[3], argv[2], LEASE_MS, lanes, remembered());
            say(socket, in_session ? "HB" : "HELLO", json);
        }
        zmq_pollitem_t item = {socket, 0, ZMQ_POLLIN, 0};
        if (zmq_poll(&item, 1, 10) > 0) {
            size_t sizes[3] = {0}, count = 0;
            int more = 1;
            while (more) { /* exactly three frames; what is more is read and thrown away */
                zmq_msg_t part;
                zmq_msg_init(&part);
                if (zmq_msg_recv(&part, socket, 0) < 0) break;
                if (count < 3 && zmq_msg_size(&part) <= LARGEST) {
                    sizes[count] = zmq_msg_size(&part);
                    memcpy(frames[count], zmq_msg_data(&part), sizes[count]);
                    frames[count][sizes[count]] = 0;
                }
                count++;
                more = zmq_msg_more(&part);
                zmq_msg_close(&part);
            }
            if (count == 3)
                on_message(socket, (const char *)frames[0], frames[1], sizes[1], frames[2], sizes[2]);
            else
                tell("bad", ", \"why\": \"frames\"");
        }
        int allowed = in_session && says_permit && leased(); /* in every cycle: it ends by itself */
        if (allowed != permit) permit = allowed, tell("permit", ", \"on\": %d", permit);
        actuate();
    }
}

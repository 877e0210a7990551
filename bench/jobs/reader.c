/* Reads a day's counters from Redis and writes them as COPY takes them: what a C program that knows nothing else needs.
 *
 * reader HOST PORT DATE, and REDIS_PASSWORD in the environment. SCAN and MGET in one round trip a page, as the floor of
 * the benchmark reads. It checks no value, notices no bad key and proves nothing. The keys are those of the benchmark, in
 * which nothing needs escaping.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PAGE = 1000, MOST_KEYS = 1 << 16, BUFFER = 1 << 20 };

static int server;
static char in[BUFFER];
static size_t at, filled;

static void fail(const char *what) {
    fprintf(stderr, "reader: %s\n", what);
    exit(1);
}

static int next_byte(void) {
    if (at == filled) {
        ssize_t got = read(server, in, sizeof in);
        if (got <= 0) fail("Redis has closed the connection");
        at = 0;
        filled = (size_t)got;
    }
    return (unsigned char)in[at++];
}

/* The number of a reply's first line, if it is of this type. */
static long reply(char type) {
    char line[64];
    size_t length = 0;
    if (next_byte() != type) fail("an answer that was not expected");
    for (int byte; (byte = next_byte()) != '\r';) {
        if (length == sizeof line - 1) fail("an answer that was not expected");
        line[length++] = (char)byte;
    }
    next_byte();
    line[length] = 0;
    return strtol(line, NULL, 10);
}

/* A bulk string, ended by a zero; the caller frees it. NULL for none. */
static char *bulk(void) {
    long length = reply('$');
    if (length < 0) return NULL;
    char *text = malloc((size_t)length + 1);
    if (!text) fail("out of memory");
    for (long i = 0; i < length; i++) text[i] = (char)next_byte();
    text[length] = 0;
    next_byte();
    next_byte();
    return text;
}

static void send_all(const char *data, size_t length) {
    while (length) {
        ssize_t sent = write(server, data, length);
        if (sent <= 0) fail("Redis has closed the connection");
        data += sent;
        length -= (size_t)sent;
    }
}

static void row(const char *key, const char *value) {
    const char *metric = strrchr(key, ':');
    const char *date = metric - 1;
    while (*date != ':') date--;
    printf("%.*s\t%.*s\t%s\t%s\n", (int)(date - key - 6), key + 6, (int)(metric - date - 1), date + 1, metric + 1, value);
}

int main(int count, char **arguments) {
    static char *keys[MOST_KEYS];
    static char out[BUFFER * 8];
    const char *password = getenv("REDIS_PASSWORD");
    if (count != 4 || !password) fail("takes HOST PORT DATE, and REDIS_PASSWORD from the environment");
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(arguments[2]))};
    if (inet_pton(AF_INET, arguments[1], &address.sin_addr) != 1) fail("HOST is an IPv4 address");
    server = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(server, (struct sockaddr *)&address, sizeof address)) fail("cannot connect");
    setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    int length = snprintf(out, sizeof out, "AUTH %s\r\n", password);
    send_all(out, (size_t)length);
    while (next_byte() != '\n') continue;

    char pattern[64], cursor[32] = "0";
    snprintf(pattern, sizeof pattern, "usage:*:%s:*", arguments[3]);
    int held = 0, more = 1;
    while (more || held) {
        size_t used = 0;
        if (held) used += (size_t)sprintf(out + used, "*%d\r\n$4\r\nMGET\r\n", held + 1);
        for (int i = 0; i < held; i++) {
            size_t size = strlen(keys[i]);
            if (used + size + 32 > sizeof out) fail("a page larger than its buffer");
            used += (size_t)sprintf(out + used, "$%zu\r\n%s\r\n", size, keys[i]);
        }
        if (more) used += (size_t)sprintf(out + used, "SCAN %s MATCH %s COUNT %d\r\n", cursor, pattern, PAGE);
        send_all(out, used);
        if (held) {
            if (reply('*') != held) fail("as many values as keys were expected");
            for (int i = 0; i < held; i++) {
                char *value = bulk();
                if (value) row(keys[i], value);
                free(value);
                free(keys[i]);
            }
            held = 0;
        }
        if (more) {
            if (reply('*') != 2) fail("an answer that was not expected");
            char *next = bulk();
            snprintf(cursor, sizeof cursor, "%s", next);
            more = strcmp(next, "0") != 0;
            free(next);
            held = (int)reply('*');
            if (held > MOST_KEYS) fail("more keys in a page than were expected");
            for (int i = 0; i < held; i++) keys[i] = bulk();
        }
    }
    return ferror(stdout) || fflush(stdout) ? 1 : 0;
}

/* Requests over HTTP, and NARs from a binary cache; see floor.c. */
#include "floor.h"

#include <arpa/inet.h>
#include <lzma.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

void die(const char *what) { perror(what); exit(1); }

void write_all(int to, const char *bytes, size_t size)
{
    while (size) {
        ssize_t n = write(to, bytes, size);
        if (n <= 0) die("write");
        bytes += n;
        size -= (size_t)n;
    }
}

int connection(const char *host, int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    inet_pton(AF_INET, host, &to.sin_addr);
    int made = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (connect(made, (struct sockaddr *)&to, sizeof to)) die("connect");
    return made;
}

/* The answer's headers; its body goes to `body`, or is read and dropped. */
static void answer_to(int from, char *head, size_t room, int expected, char *body, size_t size)
{
    size_t got = 0;
    char *end = NULL;
    while (!end) {
        ssize_t n = read(from, head + got, room - 1 - got);
        if (n <= 0) die("read");
        got += (size_t)n;
        head[got] = 0;
        end = strstr(head, "\r\n\r\n");
    }
    if (atoi(head + 9) != expected) {
        fprintf(stderr, "%s\n", head);
        exit(1);
    }
    char *length = strcasestr(head, "content-length: ");
    size_t left = length ? strtoull(length + 16, NULL, 10) : 0, here = (size_t)(head + got - end - 4);
    if (body) {
        if (left != size) die("a body of another size");
        memcpy(body, end + 4, here);
        for (; here < size; ) {
            ssize_t n = read(from, body + here, size - here);
            if (n <= 0) die("read");
            here += (size_t)n;
        }
        return;
    }
    for (left -= here; left;) {
        char dropped[4096];
        ssize_t n = read(from, dropped, left < sizeof dropped ? left : sizeof dropped);
        if (n <= 0) die("read");
        left -= (size_t)n;
    }
}

void answer(int from, char *head, size_t room, int expected) { answer_to(from, head, room, expected, NULL, 0); }

void hexadecimal(const unsigned char *digest, char *text)
{
    for (int i = 0; i < 32; i++) sprintf(text + 2 * i, "%02x", digest[i]);
}

static void unpack_nar(struct nar *nar, const char *packed)
{
    nar->bytes = malloc(nar->size);
    if (nar->kind == 'x') {
        uint64_t memory = UINT64_MAX;
        size_t in = 0, out = 0;
        if (lzma_stream_buffer_decode(&memory, 0, NULL, (const uint8_t *)packed, &in, nar->packed_size,
                                      (uint8_t *)nar->bytes, &out, nar->size) != LZMA_OK || out != nar->size) die("xz");
    } else {
        ZSTD_DCtx *context = ZSTD_createDCtx();
        if (ZSTD_decompressDCtx(context, nar->bytes, nar->size, packed, nar->packed_size) != nar->size) die("zstd");
        ZSTD_freeDCtx(context);
    }
    unsigned char digest[32];
    char text[65];
    EVP_Digest(nar->bytes, nar->size, digest, NULL, EVP_sha256(), NULL);
    hexadecimal(digest, text);
    if (strcmp(text, nar->hash)) die("another hash");
}

void fetch_nar(struct nar *nar, int cache)
{
    char request[1024], head[16384], *packed = malloc(nar->packed_size);
    write_all(cache, request, (size_t)sprintf(request,
        "GET /%s HTTP/1.1\r\nHost: %s:%d\r\n\r\n", nar->path, nar->host, nar->port));
    answer_to(cache, head, sizeof head, 200, packed, nar->packed_size);
    unpack_nar(nar, packed);
    free(packed);
}

/* The next string of a NAR. */
static const char *string(struct nar *nar, size_t *size)
{
    uint64_t length;
    memcpy(&length, nar->bytes + nar->at, 8);
    const char *found = nar->bytes + nar->at + 8;
    nar->at += 8 + (length + 7) / 8 * 8;
    if (nar->at > nar->size) die("the end of a NAR");
    *size = length;
    return found;
}

static int is(const char *found, size_t size, const char *word) { return size == strlen(word) && !memcmp(found, word, size); }

const char *next_file(struct nar *nar, size_t expected)
{
    for (;;) {
        size_t size;
        const char *word = string(nar, &size);
        if (is(word, size, "name") || is(word, size, "target")) {
            string(nar, &size);
        } else if (is(word, size, "contents")) {
            word = string(nar, &size);
            if (!size) continue;
            if (size != expected) die("a file of another size");
            return word;
        }
    }
}

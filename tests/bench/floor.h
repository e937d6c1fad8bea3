/* What floor.c needs of floor_nars.c: requests over HTTP, and NARs. */
#pragma once
#include <stddef.h>

/* A NAR of a binary cache. `kind` is x for xz and z for zstd, `hash` in base 16; `at` is where `next_file` goes on. */
struct nar { size_t packed_size, size, at; char kind, *bytes, hash[65], host[64], path[256]; int port; };

void die(const char *what);
void hexadecimal(const unsigned char *digest, char *text);
int connection(const char *host, int port);
void write_all(int to, const char *bytes, size_t size);
/* Read an answer of this status: its headers, and its body, which is dropped. */
void answer(int from, char *head, size_t room, int expected);

/* Fetch a NAR over this connection, decompress it and compare its hash. */
void fetch_nar(struct nar *nar, int cache);
/* The bytes of the next file of a NAR that is not empty. It has so many. */
const char *next_file(struct nar *nar, size_t expected);

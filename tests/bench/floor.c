/* The floor under making layers: files read, or NARs fetched, decompressed and hashed; then hashed, compressed, hashed again and
 * sent to a registry, and no more.
 *
 *     floor HOST PORT REPOSITORY THREADS <LAYERS
 *
 * LAYERS has the NARs, if any, and the parts of each tar archive, so that headers cost nothing here and every file is read once:
 *     N <packed> <bytes> <x|z> <hash> <host> <port> <path>\n    so many bytes at http://HOST:PORT/PATH, packed by xz or zstd
 *     L\n                   a layer begins
 *     B <bytes>\n<bytes>    bytes as they are
 *     F <bytes> <path>\n    so many bytes of a file
 *     C <bytes> <nar>\n     the next file, of so many bytes, of the NAR of this number
 * First all threads take NARs, large ones first, and keep them in memory. Archives are cut into blocks of 1 MiB, each of them a gzip member, as in proxy/packing.py. All threads take blocks;
 * whoever has finished the one that is next in its layer hashes it. Then the blobs, kept in memory, go to the registry
 * over one connection for each thread: POST, PATCH, PUT.
 *
 * Prints the seconds of each of the three, then for each layer its DiffID, its digest and its size.
 */
#include "floor.h"

#include <fcntl.h>
#include <libdeflate.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 1 << 20, LEVEL = 2 };

struct part { const char *bytes; char *path; size_t size; ssize_t nar; };
struct block { size_t part, offset, size; char *packed; size_t packed_size; char *plain; };
struct layer {
    size_t first_part, parts, first_block, blocks, next, size;
    int busy, done;
    EVP_MD_CTX *plain, *packed;
    unsigned char diff_id[32], digest[32];
};

static struct part *parts;
static struct nar *nars, **largest_first;
static struct block *blocks;
static struct layer *layers;
static size_t nar_count, part_count, block_count, layer_count, taken;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *host, *port, *repository;

static void *grow(void *array, size_t count, size_t size)
{
    if ((count & (count - 1)) == 0) array = realloc(array, (count ? count * 2 : 1) * size);
    if (!array) die("memory");
    return array;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void read_layers(void)
{
    char *line = NULL;
    size_t room = 0;
    for (ssize_t length; (length = getline(&line, &room, stdin)) > 0;) {
        line[length - 1] = 0;
        if (line[0] == 'L') {
            layers = grow(layers, layer_count, sizeof *layers);
            layers[layer_count] = (struct layer){.first_part = part_count};
            layer_count++;
            continue;
        }
        if (line[0] == 'N') {
            nars = grow(nars, nar_count, sizeof *nars);
            struct nar *nar = &nars[nar_count++];
            *nar = (struct nar){.at = 0};
            if (sscanf(line, "N %zu %zu %c %64s %63s %d %255s", &nar->packed_size, &nar->size, &nar->kind, nar->hash,
                       nar->host, &nar->port, nar->path) != 7) die("NAR");
            continue;
        }
        char *rest;
        parts = grow(parts, part_count, sizeof *parts);
        struct part *part = &parts[part_count++];
        *part = (struct part){.size = strtoull(line + 2, &rest, 10), .nar = -1};
        if (line[0] == 'F') {
            part->path = strdup(rest + 1);
        } else if (line[0] == 'C') {
            part->nar = atol(rest);
        } else {
            char *bytes = malloc(part->size);
            if (fread(bytes, 1, part->size, stdin) != part->size) die("LAYERS");
            part->bytes = bytes;
        }
        layers[layer_count - 1].parts++;
    }
}

static void *fetch(void *unused)
{
    (void)unused;
    int cache = -1;
    for (;;) {
        pthread_mutex_lock(&lock);
        size_t number = taken++;
        pthread_mutex_unlock(&lock);
        if (number >= nar_count) break;
        struct nar *nar = largest_first[number];
        if (cache < 0) cache = connection(nar->host, nar->port);
        fetch_nar(nar, cache);
    }
    if (cache >= 0) close(cache);
    return NULL;
}

static int by_size(const void *one, const void *other)
{
    size_t left = (*(struct nar *const *)one)->size, right = (*(struct nar *const *)other)->size;
    return left < right ? 1 : left > right ? -1 : 0;
}

static void cut_blocks(void)
{
    for (struct layer *layer = layers; layer < layers + layer_count; layer++) {
        size_t part = layer->first_part, end = part + layer->parts, offset = 0;
        layer->first_block = layer->next = block_count;
        layer->plain = EVP_MD_CTX_new();
        layer->packed = EVP_MD_CTX_new();
        EVP_DigestInit_ex(layer->plain, EVP_sha256(), NULL);
        EVP_DigestInit_ex(layer->packed, EVP_sha256(), NULL);
        while (part < end) {
            blocks = grow(blocks, block_count, sizeof *blocks);
            struct block *block = &blocks[block_count++];
            *block = (struct block){.part = part, .offset = offset};
            while (part < end && block->size < BLOCK) {
                size_t left = parts[part].size - offset, room = BLOCK - block->size;
                if (left > room) {
                    offset += room;
                    block->size += room;
                } else {
                    block->size += left;
                    part++;
                    offset = 0;
                }
            }
        }
        layer->blocks = block_count - layer->first_block;
    }
}

static void fill(const struct block *block, char *target)
{
    size_t part = block->part, offset = block->offset, done = 0;
    while (done < block->size) {
        size_t size = parts[part].size - offset;
        if (size > block->size - done) size = block->size - done;
        if (parts[part].path) {
            int file = open(parts[part].path, O_RDONLY);
            for (size_t got = 0; got < size;) {
                ssize_t n = pread(file, target + done + got, size - got, (off_t)(offset + got));
                if (n <= 0) die(parts[part].path);
                got += (size_t)n;
            }
            close(file);
        } else {
            memcpy(target + done, parts[part].bytes + offset, size);
        }
        done += size;
        offset = 0;
        part++;
    }
}

static void hash_what_is_next(struct layer *layer)
{
    pthread_mutex_lock(&lock);
    if (!layer->busy) {
        layer->busy = 1;
        for (struct block *block; layer->next < layer->first_block + layer->blocks
                                  && (block = &blocks[layer->next])->packed_size;) {
            pthread_mutex_unlock(&lock);
            EVP_DigestUpdate(layer->plain, block->plain, block->size);
            EVP_DigestUpdate(layer->packed, block->packed, block->packed_size);
            free(block->plain);
            layer->size += block->packed_size;
            pthread_mutex_lock(&lock);
            layer->next++;
        }
        layer->busy = 0;
        if (!layer->done && layer->next == layer->first_block + layer->blocks) {
            layer->done = 1;
            EVP_DigestFinal_ex(layer->plain, layer->diff_id, NULL);
            EVP_DigestFinal_ex(layer->packed, layer->digest, NULL);
        }
    }
    pthread_mutex_unlock(&lock);
}

static void *pack(void *unused)
{
    (void)unused;
    struct libdeflate_compressor *compressor = libdeflate_alloc_compressor(LEVEL);
    size_t room = libdeflate_gzip_compress_bound(compressor, BLOCK);
    char *packed = malloc(room);
    struct layer *layer = layers;
    for (;;) {
        pthread_mutex_lock(&lock);
        size_t number = taken++;
        pthread_mutex_unlock(&lock);
        if (number >= block_count) break;
        struct block *block = &blocks[number];
        while (number >= layer->first_block + layer->blocks) layer++;
        char *plain = malloc(block->size);
        fill(block, plain);
        size_t size = libdeflate_gzip_compress(compressor, plain, block->size, packed, room);
        block->packed = malloc(size);
        memcpy(block->packed, packed, size);
        pthread_mutex_lock(&lock);
        block->plain = plain;
        block->packed_size = size;
        pthread_mutex_unlock(&lock);
        hash_what_is_next(layer);
    }
    free(packed);
    libdeflate_free_compressor(compressor);
    return NULL;
}

/* The path and query of the Location header. */
static void location(const char *head, char *path, size_t room)
{
    const char *found = strcasestr(head, "location: ");
    if (!found || !(found = strstr(found, "/v2/"))) die("no Location");
    size_t size = strcspn(found, "\r\n");
    if (size >= room) die("a long Location");
    memcpy(path, found, size);
    path[size] = 0;
}

static void *send_layers(void *unused)
{
    (void)unused;
    int registry = connection(host, atoi(port));
    for (;;) {
        char request[16384], head[16384], path[8192], digest[65];
        pthread_mutex_lock(&lock);
        size_t number = taken++;
        pthread_mutex_unlock(&lock);
        if (number >= layer_count) break;
        struct layer *layer = &layers[number];
        write_all(registry, request, (size_t)sprintf(request,
            "POST /v2/%s/blobs/uploads/ HTTP/1.1\r\nHost: %s:%s\r\nContent-Length: 0\r\n\r\n", repository, host, port));
        answer(registry, head, sizeof head, 202);
        location(head, path, sizeof path);
        write_all(registry, request, (size_t)sprintf(request,
            "PATCH %s HTTP/1.1\r\nHost: %s:%s\r\nContent-Type: application/octet-stream\r\nContent-Length: %zu\r\n\r\n",
            path, host, port, layer->size));
        for (size_t i = layer->first_block; i < layer->first_block + layer->blocks; i++)
            write_all(registry, blocks[i].packed, blocks[i].packed_size);
        answer(registry, head, sizeof head, 202);
        location(head, path, sizeof path);
        hexadecimal(layer->digest, digest);
        write_all(registry, request, (size_t)sprintf(request,
            "PUT %s&digest=sha256:%s HTTP/1.1\r\nHost: %s:%s\r\nContent-Length: 0\r\n\r\n", path, digest, host, port));
        answer(registry, head, sizeof head, 201);
    }
    close(registry);
    return NULL;
}

static double with_threads(void *(*work)(void *), int count)
{
    double started = now();
    pthread_t threads[count];
    taken = 0;
    for (int i = 0; i < count; i++) pthread_create(&threads[i], NULL, work, NULL);
    for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
    return now() - started;
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "floor HOST PORT REPOSITORY THREADS <LAYERS\n");
        return 2;
    }
    host = argv[1];
    port = argv[2];
    repository = argv[3];
    int threads = atoi(argv[4]);
    read_layers();
    largest_first = malloc((nar_count + 1) * sizeof *largest_first);
    for (size_t i = 0; i < nar_count; i++) largest_first[i] = &nars[i];
    qsort(largest_first, nar_count, sizeof *largest_first, by_size);
    double fetching = nar_count ? with_threads(fetch, threads) : 0, started = now();
    for (struct part *part = parts; part < parts + part_count; part++)
        if (part->nar >= 0) part->bytes = next_file(&nars[part->nar], part->size);
    fetching += now() - started;
    cut_blocks();
    double packing = with_threads(pack, threads);
    double sending = with_threads(send_layers, threads);
    printf("%.6f %.6f %.6f\n", fetching, packing, sending);
    for (struct layer *layer = layers; layer < layers + layer_count; layer++) {
        char diff_id[65], digest[65];
        hexadecimal(layer->diff_id, diff_id);
        hexadecimal(layer->digest, digest);
        printf("sha256:%s sha256:%s %zu\n", diff_id, digest, layer->size);
    }
    return 0;
}

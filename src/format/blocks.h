/* Types of weights: floats, and blocks of small integers that share scales, as GGUF files have them.
 *
 * Source: the layouts of ggml (ggml-common.h) and their decoding in the gguf package of PyPI, whose float32
 * results these are bit for bit: Q8_0  d q                 32 numbers: d (half), q (32 × int8) Q4_0  d (q −
 * 8)           d, q (4 bits each: number i < 16 in the lower half of byte i, 16 + i in the upper) Q4_1  d q +
 * m             d, m, q Q5_0  d (q − 16)          d, the fifth bits (32 bits), q Q5_1  d q + m             d,
 * m, the fifth bits, q Q4_K  (d s) q − (e m)     256 numbers: d, e (halves), eight times s and m of 6 bits
 * (12 bytes), q Q5_K  (d s) q − (e m)     d, e, s and m, the fifth bits (32 bytes), q Q6_K  (d s) (q − 32)
 * lower 4 bits (128 bytes), upper 2 bits (64 bytes), s (16 × int8), d */
#ifndef CLSPLAT_FORMAT_BLOCKS_H
#define CLSPLAT_FORMAT_BLOCKS_H

#include <stddef.h>
#include <stdint.h>

enum { BLOCK_NUMBERS_MOST = 256 };

typedef struct block_type {
    const char *name;      /* "Q4_1"; floats as safetensors calls them */
    uint32_t id;           /* in GGUF files */
    uint32_t file_type;    /* general.file_type of a file that is mostly of this type */
    size_t numbers, bytes; /* of a block; floats are blocks of one */
    void (*read)(const unsigned char *block, float *to);
    void (*write)(const float *from, unsigned char *block); /* NULL: this library does not make them */
} block_type;

/* NULL: there is none. Names in lower case are known, too. */
const block_type *block_type_of_id(uint32_t id);
const block_type *block_type_named(const char *name);
/* Every type; NULL behind the last. */
const block_type *block_type_at(size_t index);

/* `count` numbers, a multiple of the type's. */
void blocks_read(const block_type *type, const void *blocks, size_t count, float *to);
void blocks_write(const block_type *type, const float *from, size_t count, void *blocks);

#endif

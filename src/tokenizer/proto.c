#include "tokenizer/proto.h"

#include <stdint.h>
#include <string.h>

/* A message: what is left of it. */
typedef struct message {
    const unsigned char *at, *end;
} message;

typedef struct field {
    uint64_t number, value; /* the value of a varint */
    message bytes;          /* of a string or a message within */
} field;

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

/* The numbers of fields: ModelProto and NormalizerSpec. */
enum { MODEL_PIECES = 1, MODEL_NORMALISER = 3, MODEL_DENORMALISER = 5 };
enum { SPEC_MAP = 2, SPEC_PREFIX = 3, SPEC_EXTRA_SPACES = 4 };

static const char *const cut = "it is cut or damaged";

static bool varint(message *m, uint64_t *value) {
    *value = 0;
    for (unsigned shift = 0; shift < 64 && m->at < m->end; shift += 7) {
        unsigned char byte = *m->at++;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return true;
    }
    return false;
}

static bool skip(message *m, uint64_t count, message *skipped) {
    if (count > (uint64_t)(m->end - m->at))
        return false;
    *skipped = (message){m->at, m->at + count};
    m->at += count;
    return true;
}

/* The next field of a message that is not at its end. False if it is damaged. */
static bool next_field(message *m, field *f) {
    uint64_t key, count;
    *f = (field){0};
    if (!varint(m, &key))
        return false;
    f->number = key >> 3;
    switch (key & 7) {
    case VARINT:
        return varint(m, &f->value);
    case FIXED64:
        return skip(m, 8, &f->bytes);
    case FIXED32:
        return skip(m, 4, &f->bytes);
    case BYTES:
        return varint(m, &count) && skip(m, count, &f->bytes);
    default:
        return false;
    }
}

static uint32_t unit_at(const unsigned char *units, uint32_t i) {
    const unsigned char *u = units + 4 * (size_t)i;
    return (uint32_t)u[0] | (uint32_t)u[1] << 8 | (uint32_t)u[2] << 16 | (uint32_t)u[3] << 24;
}

/* A trie in an array of units, the words it leads to behind it. From a unit one goes to its index XOR its
 * offset XOR a byte; one with a leaf has a number there under the byte 0. */
static const char *check_map(message map) {
    static const char *const wrong = "the table of its normaliser leads out of itself";
    size_t bytes = (size_t)(map.end - map.at);
    if (bytes == 0)
        return NULL;
    if (bytes < 4)
        return wrong;
    uint32_t size = unit_at(map.at, 0), count = size / 4;
    if (size % 4 != 0 || count == 0 || size >= bytes - 4 || map.end[-1] != '\0')
        return wrong;
    const unsigned char *units = map.at + 4;
    size_t words = bytes - 4 - size;
    for (uint32_t i = 0; i < count; ++i) {
        uint32_t unit = unit_at(units, i);
        if (i > 0 && unit >> 31) /* a number, reached from elsewhere; the root is one for nobody */
            continue;
        uint32_t base = i ^ ((unit >> 10) << ((unit & (1u << 9)) >> 6));
        if ((base | 0xff) >= count)
            return wrong;
        bool leaf = (unit >> 8) & 1;
        if (leaf && (unit_at(units, base) & 0x7fffffff) >= words)
            return wrong;
    }
    return NULL;
}

static const char *check_normaliser(message spec, proto_normaliser *n) {
    *n = (proto_normaliser){true, true};
    while (spec.at < spec.end) {
        field f;
        const char *wrong = NULL;
        if (!next_field(&spec, &f))
            return cut;
        if (f.number == SPEC_MAP)
            wrong = check_map(f.bytes);
        else if (f.number == SPEC_PREFIX)
            n->prefix = f.value != 0;
        else if (f.number == SPEC_EXTRA_SPACES)
            n->extra_spaces = f.value != 0;
        if (wrong)
            return wrong;
    }
    return NULL;
}

const char *proto_check(const char *bytes, size_t count, proto_normaliser *normaliser) {
    message model = {(const unsigned char *)bytes, (const unsigned char *)bytes + count};
    size_t pieces = 0;
    *normaliser = (proto_normaliser){true, true};
    while (model.at < model.end) {
        field f;
        proto_normaliser unused;
        const char *wrong = NULL;
        if (!next_field(&model, &f))
            return cut;
        pieces += f.number == MODEL_PIECES;
        if (f.number == MODEL_NORMALISER)
            wrong = check_normaliser(f.bytes, normaliser);
        if (f.number == MODEL_DENORMALISER)
            wrong = check_normaliser(f.bytes, &unused);
        if (wrong)
            return wrong;
    }
    return pieces > 0 ? NULL : "it holds no pieces";
}

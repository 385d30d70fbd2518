/* hash.h: FNV-1a with 64 bits, to compare by one number what ranks have. */
#ifndef TRAIN_HASH_H
#define TRAIN_HASH_H

#include <stddef.h>
#include <stdint.h>

static inline uint64_t hashBytes(const void *bytes, size_t count)
{
    const uint8_t *byte = (const uint8_t *)bytes;
    uint64_t hash = 0xCBF29CE484222325u;
    for (size_t i = 0; i < count; i++)
        hash = (hash ^ byte[i]) * 0x100000001B3u;
    return hash;
}

#endif

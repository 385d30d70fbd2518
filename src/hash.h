/* FNV-1a with 64 bits: by one number, whether ranks have the same. */
#ifndef GS_HASH_H
#define GS_HASH_H

#include <stddef.h>
#include <stdint.h>

#define GS_HASH_BASIS 0xcbf29ce484222325u /* the hash of nothing */

static inline uint64_t gsHashBytes(uint64_t hash, const void *bytes, size_t count)
{
    const uint8_t *byte = (const uint8_t *)bytes;
    for (size_t i = 0; i < count; i++)
        hash = (hash ^ byte[i]) * 0x100000001b3u;
    return hash;
}

#endif

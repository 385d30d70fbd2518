/* random.h: a small generator (splitmix64) whose numbers depend on its seed alone, on every machine. */
#ifndef TRAIN_RANDOM_H
#define TRAIN_RANDOM_H

#include <stdint.h>

typedef struct {
    uint64_t state;
} random_t;

static inline uint64_t randomNext(random_t *random)
{
    uint64_t z = random->state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* A stream of its own for each pair (seed, stream). */
static inline random_t randomMake(uint64_t seed, uint64_t stream)
{
    random_t random = {seed};
    random.state = randomNext(&random) ^ stream;
    random.state = randomNext(&random);
    return random;
}

/* 0 .. bound - 1; the bias, bound / 2^32, is nothing here. */
static inline uint32_t randomBelow(random_t *random, uint32_t bound)
{
    return (uint32_t)(((randomNext(random) >> 32) * bound) >> 32);
}

/* -1 .. 1, in steps that a float holds exactly. */
static inline float randomSigned(random_t *random)
{
    return (float)((int64_t)(randomNext(random) >> 40) - (1 << 23)) * 0x1p-23f;
}

/* The numbers 0 .. count - 1, shuffled. */
static inline void randomOrder(random_t *random, uint32_t *order, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        order[i] = i;
    for (uint32_t i = count - 1; i > 0; i--) {
        uint32_t other = randomBelow(random, i + 1), kept = order[i];
        order[i] = order[other];
        order[other] = kept;
    }
}

#endif

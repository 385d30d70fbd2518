/* copy.h: plain passes over memory, the measure of what a stage could reach. */
#ifndef COPY_H
#define COPY_H

#include <stddef.h>

/* Each divides its buffers, aligned to 64 bytes, between `threads` threads. */
void copyPlain(void *to, const void *from, size_t bytes, int threads);     /* memcpy */
void copyStreaming(void *to, const void *from, size_t bytes, int threads); /* past the caches on x86, else memcpy */
void copyFill(void *to, const void *unused, size_t bytes, int threads);    /* memset */

#endif

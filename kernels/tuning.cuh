/* Launch constants, per architecture where they differ. */
#ifndef GS_TUNING_CUH
#define GS_TUNING_CUH

#include "rules/numeric.h"

/* Threads of a CTA that works on one block of 4096 elements: 16 elements each, four loads of four. More elements a
 * thread would need more than 64 registers in chunk-topk, fewer would put fewer loads in flight. */
constexpr unsigned GS_CTA = 256;
constexpr unsigned GS_WARPS = GS_CTA / 32;
constexpr unsigned GS_QUADS = GS_BLOCK / (4 * GS_CTA);

/* Threads of the single CTA that scans block counts or folds block sums: the most a CTA can have, since nothing
 * runs beside it. */
constexpr unsigned GS_LONE_CTA = 1024;

/*
 * CTAs that an SM must be able to hold, which caps the registers at 65536 / (256 n). By Little's law an SM keeps the
 * memory busy with bandwidth x latency / SMs bytes in flight: 11 KB (A100, 2.0 TB/s x 0.6 us / 108), 18 KB (H100,
 * 3.35 TB/s x 0.7 us / 132), 43 KB (B200, 8 TB/s x 0.8 us / 148). A CTA of select has 32 KB in flight, for a quarter
 * of its life in chunk-topk, the slowest rule: n = 4 x bytes / 32 KB, rounded up; but no less than 4, so that some
 * load while others wait at barriers.
 */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr unsigned GS_CTAS_PER_SM = 5;
#else
constexpr unsigned GS_CTAS_PER_SM = 4;
#endif

/* The same where elements have eight bytes: half the CTAs have as many bytes in flight, and need twice the registers. */
template <typename Real> constexpr unsigned gsCtasPerSm = sizeof(Real) == 8 ? GS_CTAS_PER_SM / 2 : GS_CTAS_PER_SM;

/* The same for kernels that read several vectors at a time: their loads are as many with fewer threads, which may then have more
 * registers. */
template <typename Real> constexpr unsigned gsFewCtasPerSm = sizeof(Real) == 8 ? 2 : 3;

/* CTAs of a grid, per SM, at most: kernels stride over the rest. 8 of 256 threads fit an SM at once; 16 turns of
 * them keep the last, partly filled turn below a sixteenth of the time. */
constexpr unsigned GS_GRID_PER_SM = 8 * 16;

/* Bytes of a record that a CTA clears or sums, at least: four accesses of 16 bytes a thread. */
constexpr unsigned GS_RECORD_PART = GS_CTA * 4 * 16;

/* Records' parts that accumulate looks up at a time: 40 bytes of shared memory each, 2.5 KB beside its 16 KB of
 * sums. */
constexpr unsigned GS_RUNS = 64;

#endif

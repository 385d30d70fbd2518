/* The sample kernels, right and wrong ones, behind plain functions that the tests call. */
#ifndef CUDASIM_TESTS_KERNELS_H
#define CUDASIM_TESTS_KERNELS_H

#include <cuda_runtime_api.h>

/* ---- right ---- */
cudaError_t blockScan(const unsigned *in, unsigned *out, unsigned count, cudaStream_t stream);
cudaError_t ballotCompaction(const float *in, unsigned *kept, unsigned *keptCount, unsigned count, float threshold);
cudaError_t histogram(const unsigned char *in, unsigned *bins, unsigned count);
cudaError_t reverseBlocks(const double *in, double *out, unsigned count, unsigned block); /* dynamic shared memory */
cudaError_t warpBuiltins(unsigned *out); /* 32 threads; one failure bit each, 0 where all is well */
cudaError_t sharedCounters(int *out);    /* static shared memory in a grid of 3 dimensions */

/* ---- wrong ---- */
cudaError_t sharedOverrun(float *out, unsigned index);
cudaError_t dynamicSharedOverrun(float *out, unsigned index);
cudaError_t staleShared(unsigned *out, unsigned blocks); /* counts from what it finds in shared memory */
cudaError_t globalWrite(float *out, unsigned index);     /* an overrun if the index is */
cudaError_t reverseWithoutSyncthreads(const unsigned *in, unsigned *out, unsigned block);
cudaError_t rotateWithoutSyncwarp(const unsigned *in, unsigned *out);
cudaError_t divergentBarrier(bool byExit);
cudaError_t barriersAtTwoLines();
cudaError_t laneOutsideItsMask();
cudaError_t maskWithExitedLane(bool exitFirst);
cudaError_t maskBeyondBlock();
cudaError_t shuffleFromAbsentLane();
cudaError_t syncwarpThatNeverCompletes();
cudaError_t trapped();

/* ---- for launches and streams ---- */
cudaError_t largeShared(unsigned bytes, bool askFor);
cudaError_t addOne(unsigned *values, unsigned count, cudaStream_t stream);

#endif /* CUDASIM_TESTS_KERNELS_H */

/* The CUDA backend's stages, as gsBackend in core.h describes them. Each enqueues kernels and returns. */
#ifndef GS_KERNELS_CUH
#define GS_KERNELS_CUH

#include "core.h"

/* statistics.cu: begins the call; tau by histogram, s by gspar's passes */
gsResult_t gsCudaStatistics(gsReducer_t r, const void *sendbuff, gsStream_t stream);
/* select.cu */
gsResult_t gsCudaSelect(gsReducer_t r, const void *sendbuff, gsStream_t stream);
/* pack.cu */
gsResult_t gsCudaPack(gsReducer_t r, const void *sendbuff, void *record, gsStream_t stream);
/* validate.cu */
gsResult_t gsCudaValidate(gsReducer_t r, const void *records, gsStream_t stream);
/* accumulate.cu */
gsResult_t gsCudaAccumulate(gsReducer_t r, const void *records, void *recvbuff, gsRedOp_t op, gsStream_t stream);
gsResult_t gsCudaCommit(gsReducer_t r, gsStream_t stream);
/* dense.cu */
gsResult_t gsCudaFinishDense(gsReducer_t r, const void *sum, void *recvbuff, gsStream_t stream);
gsResult_t gsCudaScaleState(gsReducer_t r, float factor, gsStream_t stream);
gsResult_t gsCudaScale(gsReducer_t r, void *vector, float factor, gsStream_t stream);

#endif

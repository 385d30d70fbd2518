/* cuda.c: a communicator of the CUDA backend, by what gradsieve's package says alone. Needs no device. */
#include <cuda_runtime.h>
#define GS_ADVANCED
#include <gradsieve.h>

int main(void)
{
    gsComm_t comm = NULL;
    int version = 0;
    if (cudaRuntimeGetVersion(&version) != cudaSuccess || version != CUDART_VERSION)
        return 1;
    return gsCommInitStagesCuda(&comm, 0, 2, NULL) != GS_SUCCESS || gsCommDestroy(comm) != GS_SUCCESS;
}

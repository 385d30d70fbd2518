/* nccl.c: NCCL and gradsieve in one program, by what gradsieve's package says alone. Needs no device. */
#include <gradsieve.h>
#include <nccl.h>

int main(void)
{
    gsComm_t comm = NULL;
    ncclComm_t none = NULL;
    int version = 0;
    if (ncclGetVersion(&version) != ncclSuccess || version != NCCL_VERSION_CODE)
        return 1;
    return gsCommInitNccl(&comm, none, NULL) != GS_ERROR_INVALID_ARGUMENT;
}

/* gradsieve.c: the least that a user of an installed gradsieve writes. Fails unless header and library are one version. */
#include <gradsieve.h>

int main(void)
{
    int version = 0;
    gsComm_t comm = NULL;
    if (gsGetVersion(&version) != GS_SUCCESS || version != GS_VERSION_CODE)
        return 1;
    return gsCommInitAll(&comm, 1, NULL) != GS_SUCCESS || gsCommDestroy(comm) != GS_SUCCESS;
}

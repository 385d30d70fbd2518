/*
 * The NCCL behind the wrappers. This library is linked with none, so that it never brings a second one into a process. What the
 * program would have called without it comes next in the global scope; a framework that loads NCCL for itself alone (Python's import
 * does) has it elsewhere, and it is found among the loaded files.
 */
#include "preload.h"

#include <dlfcn.h>
#include <link.h>
#include <string.h>

/* The NCCLs among the loaded files. */
typedef struct {
    int n;
    char first[4096];
} found_t;

static int visitFile(struct dl_phdr_info *info, size_t bytes, void *context)
{
    found_t *found = context;
    const char *slash = strrchr(info->dlpi_name, '/');
    (void)bytes;
    if (strncmp(slash ? slash + 1 : info->dlpi_name, "libnccl.so", strlen("libnccl.so")) != 0)
        return 0;
    if (found->n++ == 0)
        strncpy(found->first, info->dlpi_name, sizeof found->first - 1);
    return 0;
}

static preloadNccl nccl;
static bool complete;

static void *find(void *file, const char *name)
{
    void *next = dlsym(RTLD_NEXT, name);
    return next || !file ? next : dlsym(file, name);
}

static void findAll(void)
{
    found_t found = {0};
    dl_iterate_phdr(visitFile, &found);
    void *file = found.n ? dlopen(found.first, RTLD_NOLOAD | RTLD_LAZY) : NULL;
    complete = true;
#define PRELOAD_FIND(name)                                \
    nccl.name = (__typeof__(nccl.name))find(file, #name); \
    complete = complete && nccl.name;
#define PRELOAD_WRAPPED PRELOAD_FIND
#define PRELOAD_USED PRELOAD_FIND
#define PRELOAD_PASSED(name)
#include "preload_calls.def"
    nccl.libraries = found.n;
    if (complete)
        nccl.ncclGetVersion(&nccl.version);
}

const preloadNccl *preloadFindNccl(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, findAll);
    return complete ? &nccl : NULL;
}

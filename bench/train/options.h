/* options.h: what the command line of gs_train asks for. */
#ifndef TRAIN_OPTIONS_H
#define TRAIN_OPTIONS_H

#include "flags.h"

enum { MODEL_SOFTMAX, MODEL_MLP };
enum { TRANSPORT_THREADS, TRANSPORT_MPI };
enum { DTYPE_F32, DTYPE_BF16 };

typedef struct {
    const char *data;    /* a known name or a directory */
    const char *dataDir; /* NULL: where Debian's package puts it */
    int model;           /* MODEL_* */
    int hidden;
    const char *recipe; /* NULL: not given */
    textList_t compare; /* after optionsParse: what to run, from --compare or --recipe */
    int ranks;          /* 0: not given */
    int transport;      /* TRANSPORT_* */
    int epochs;
    int batch; /* of one rank */
    double rate;
    double momentum;
    int dtype; /* DTYPE_* */
    int seed;
    const char *json; /* NULL: none */
    const char *plot; /* NULL: none */
    bool quiet;
    bool help;
} options_t;

/* False, with a failure text, where the line cannot be understood. `transport` is set in any case. */
bool optionsParse(options_t *options, int argc, char **argv);

void optionsPrintHelp(void);

const char *optionsModelName(const options_t *options);

#endif

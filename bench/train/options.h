/* options.h: what the command line of gs_train asks for. */
#ifndef TRAIN_OPTIONS_H
#define TRAIN_OPTIONS_H

#include "flags.h"

enum { MODEL_SOFTMAX, MODEL_MLP, MODEL_CNN, MODEL_LOGREG, MODEL_LINREG };
enum { TRANSPORT_THREADS, TRANSPORT_MPI };
enum { DEVICE_CPU, DEVICE_CUDA };
enum { DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_F64 };

enum { OPTIONS_MAX_DEPTH = 8 };

typedef struct {
    int model;           /* MODEL_* */
    const char *data;    /* a known name, a directory or a file; NULL: not given */
    const char *dataDir; /* NULL: where Debian's package puts it */
    const char *test;    /* a file; NULL: none */
    int hidden, depth;
    double l2;
    const char *recipe; /* NULL: not given */
    textList_t compare; /* after optionsParse: what to run, from --compare or --recipe */
    int ranks;          /* 0: not given */
    int transport;      /* TRANSPORT_* */
    int epochs;
    int batch; /* of one rank; 0: its whole share */
    double rate;
    int optimizer; /* gsOptimizerKind_t */
    double momentum;
    int dtype;  /* DTYPE_* */
    int device; /* DEVICE_* */
    int seed;
    const char *start; /* a file; NULL: the model's own */
    bool overlap;
    const char *json; /* NULL: none */
    const char *plot; /* NULL: none */
    bool quiet;
    bool help;
} options_t;

/* False, with a failure text, where the line cannot be understood. `transport` is set in any case. */
bool optionsParse(options_t *options, int argc, char **argv);

void optionsPrintHelp(void);

#endif

/* failure.h: what went wrong, as one line of text, kept per thread until somebody prints it. */
#ifndef TRAIN_FAILURE_H
#define TRAIN_FAILURE_H

#include <stdbool.h>

enum { FAILURE_LENGTH = 400 };

/* Keeps the text and returns false, so that a caller can write `return fail(...)`. */
bool fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

const char *failureText(void);

#endif

/* json_values.h: what writes a list of objects as JSON. `lead` comes before the name: a brace, a comma, blanks. */
#ifndef TRAIN_JSON_VALUES_H
#define TRAIN_JSON_VALUES_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

void jsonReal(FILE *file, const char *lead, const char *name, double number); /* NaN and infinity become null */
void jsonCount(FILE *file, const char *lead, const char *name, uint64_t count);
void jsonString(FILE *file, const char *lead, const char *name, const char *text);

/* Writes item `index` of `items`. */
typedef void (*jsonItem_t)(FILE *file, const void *items, int index);

/* False, with a failure text, where the file cannot be written. */
bool jsonWriteList(const char *path, jsonItem_t writeItem, const void *items, int count);

#endif

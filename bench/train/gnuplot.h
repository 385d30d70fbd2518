/* gnuplot.h: what the plots have in common: the page, the lines' looks, and the call of gnuplot. */
#ifndef TRAIN_GNUPLOT_H
#define TRAIN_GNUPLOT_H

#include <stdbool.h>
#include <stdio.h>

/* gnuplot's single quotes know one escape: the quote, doubled. */
void gnuplotQuoted(FILE *file, const char *text);

/* Colour and dashes of line `index`. */
void gnuplotLine(FILE *file, int index);

/* The SVG page at `path`, the grid and the borders. */
void gnuplotStart(FILE *file, const char *path, int width, int height);

/* Writes the whole script that draws `path`. */
typedef void (*gnuplotWriter_t)(FILE *file, const char *path, const void *context);

/* On failure the script stays beside the picture, and the failure text says where. */
bool gnuplotDraw(const char *path, gnuplotWriter_t writeScript, const void *context);

#endif

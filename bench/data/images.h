/* images.h: labelled images from idx files, the format of MNIST. */
#ifndef DATA_IMAGES_H
#define DATA_IMAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { IMAGE_CLASSES = 10 };

typedef struct {
    uint32_t count;
    uint32_t height;
    uint32_t width;
    uint32_t pixels; /* of one image: height * width */
    uint8_t *values; /* count * pixels, one byte each */
    uint8_t *labels; /* count, each below IMAGE_CLASSES */
} images_t;

typedef struct {
    images_t train;
    images_t test;
    float mean; /* of the training images' values */
} dataset_t;

/* `name` is a known data set or a directory; `directory`, where not NULL, is where the named set lies. */
bool datasetLoad(dataset_t *dataset, const char *name, const char *directory);
void datasetFree(dataset_t *dataset);

#endif

/* softmax.c: the loss behind the last layer. */
#include "layer.h"

#include <math.h>

static double lossOf(const float *logits, float *slopes, int label, int classes, float scale)
{
    float largest = logits[0], sum = 0.0f;
    for (int c = 1; c < classes; c++)
        largest = fmaxf(largest, logits[c]);
    for (int c = 0; c < classes; c++)
        sum += slopes[c] = expf(logits[c] - largest);
    for (int c = 0; c < classes; c++)
        slopes[c] = scale * (slopes[c] / sum - (c == label ? 1.0f : 0.0f));
    return (double)(logf(sum) - (logits[label] - largest));
}

double softmaxLoss(const float *logits, float *slopes, const uint8_t *labels, int classes, int rows, float *scratch)
{
    double loss = 0.0;
    (void)scratch;
    for (int row = 0; row < rows; row++, logits += classes, slopes += classes)
        loss += lossOf(logits, slopes, labels[row], classes, 1.0f / (float)rows);
    return loss;
}

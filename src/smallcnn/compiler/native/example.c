/* Prints what a network says about one image: the largest number of each output and where it is.

       cc example.c ./network.so -o example && ./example image.rgb

   The image is raw: height * width * channels bytes, at the network's size. */

#include <stdio.h>
#include <stdlib.h>

#include "smallcnn.h"

static size_t length(int output) {
    int shape[SMALLCNN_DIMENSIONS], dimensions = smallcnn_output_shape(output, shape);
    size_t numbers = 1;
    for (int i = 0; i < dimensions; i++) numbers *= (size_t)shape[i];
    return numbers;
}

/* The real number that number `i` of an output stands for. */
static double value(int output, const void *numbers, size_t i) {
    double scale = smallcnn_output_scale(output), stored = 0;
    switch (smallcnn_output_number(output)) {
    case SMALLCNN_FLOAT32: return ((const float *)numbers)[i];
    case SMALLCNN_UINT8: stored = ((const uint8_t *)numbers)[i]; break;
    case SMALLCNN_INT8: stored = ((const int8_t *)numbers)[i]; break;
    case SMALLCNN_INT32: stored = ((const int32_t *)numbers)[i]; break;
    }
    return scale > 0 ? scale * (stored - smallcnn_output_zero(output)) : stored;
}

int main(int argc, char **argv) {
    size_t size = (size_t)smallcnn_height() * smallcnn_width() * smallcnn_channels();
    uint8_t *image = malloc(size);
    FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
    if (!file || fread(image, 1, size, file) != size) {
        fprintf(stderr, "give a file of %zu bytes\n", size);
        return 2;
    }
    int count = smallcnn_output_count();
    void **outputs = malloc(count * sizeof *outputs);
    for (int i = 0; i < count; i++) outputs[i] = malloc(length(i) * sizeof(float)); /* no number is larger */

    smallcnn_net *net;
    int error = smallcnn_create(2, &net);
    if (!error) error = smallcnn_run(net, image, outputs);
    if (error) {
        fprintf(stderr, "%s\n", smallcnn_error(error));
        return 1;
    }
    for (int i = 0; i < count; i++) {
        size_t best = 0;
        for (size_t j = 1; j < length(i); j++)
            if (value(i, outputs[i], j) > value(i, outputs[i], best)) best = j;
        printf("%s: %zu, %.4f\n", smallcnn_output_name(i), best, value(i, outputs[i], best));
    }
    smallcnn_destroy(net);
    for (int i = 0; i < count; i++) free(outputs[i]);
    free(outputs);
    free(image);
    return 0;
}

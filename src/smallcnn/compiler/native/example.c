/* Prints the class of one image. The image is raw: height * width * channels bytes, at the network's size.

       cc example.c ./network.so -o example && ./example image.rgb */

#include <stdio.h>
#include <stdlib.h>

#include "smallcnn.h"

int main(int argc, char **argv) {
    size_t size = (size_t)smallcnn_height() * smallcnn_width() * smallcnn_channels();
    uint8_t *image = malloc(size);
    float *logits = malloc(smallcnn_outputs() * sizeof *logits);
    FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
    if (!file || fread(image, 1, size, file) != size) {
        fprintf(stderr, "give a file of %zu bytes\n", size);
        return 2;
    }

    smallcnn_net *net;
    int error = smallcnn_create(2, &net);
    if (!error) error = smallcnn_run(net, image, logits);
    if (error) {
        fprintf(stderr, "%s\n", smallcnn_error(error));
        return 1;
    }
    int best = 0;
    for (int i = 1; i < smallcnn_outputs(); i++)
        if (logits[i] > logits[best]) best = i;
    printf("class %d, logit %.4f\n", best, logits[best]);
    smallcnn_destroy(net);
    free(logits);
    free(image);
    return 0;
}

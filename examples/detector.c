/* Prints the objects that a compiled detector finds in one image: class, score, left, top, right, bottom; sides in
   fractions of the image, as the whole image fills the network's input.

       smallcnn compile runs/raccoons/best.safetensors --out finder.o
       cc detector.c finder.o -pthread -o detector && ./detector image.rgb

   The image is raw: height * width * channels bytes, at the network's size. */

#include <stdio.h>
#include <stdlib.h>

#include "finder.h"

enum { BOXES, SCORES, CLASSES, COUNT, OUTPUTS }; /* a detector's outputs, in this order; all are float */

int main(int argc, char **argv) {
    size_t bytes = (size_t)finder_height() * finder_width() * finder_channels();
    uint8_t *image = malloc(bytes);
    FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
    if (!image || !file || fread(image, 1, bytes, file) != bytes) {
        fprintf(stderr, "give a file of %zu bytes\n", bytes);
        return 2;
    }
    fclose(file);

    int most;
    finder_output_shape(SCORES, &most);
    float *numbers = malloc(6 * (size_t)most * sizeof *numbers), count;
    float *boxes = numbers, *scores = boxes + 4 * most, *classes = scores + most;
    void *const outputs[OUTPUTS] = {[BOXES] = boxes, [SCORES] = scores, [CLASSES] = classes, [COUNT] = &count};

    finder_net *net;
    int error = numbers ? finder_create(2, &net) : FINDER_MEMORY; /* on two threads */
    if (!error) error = finder_run(net, image, outputs);           /* for as many images as there are */
    if (error) {
        fprintf(stderr, "%s\n", finder_error(error));
        return 1;
    }
    for (int i = 0; i < (int)count; i++)
        printf("%.0f %.4f %.4f %.4f %.4f %.4f\n", classes[i], scores[i], boxes[4 * i], boxes[4 * i + 1],
               boxes[4 * i + 2], boxes[4 * i + 3]);
    finder_destroy(net);
    free(numbers);
    free(image);
    return 0;
}

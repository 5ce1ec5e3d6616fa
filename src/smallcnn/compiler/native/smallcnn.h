/* A compiled network: one image in, one or more outputs. It needs only the C library (or kernel32 on Windows).

       smallcnn_net *net;
       float logits[10];                   // a classifier: one output, as smallcnn_output_shape says
       void *const outputs[] = {logits};
       int error = smallcnn_create(2, &net);
       if (!error) error = smallcnn_run(net, image, outputs);
       if (error) puts(smallcnn_error(error));
       smallcnn_destroy(net);

   An image is height * width * channels bytes: rows from the top, pixels from the left, channels interleaved, RGB. It
   must have the network's size; the network scales its values. Functions that can fail return an error code.

   Different `smallcnn_net` may run at the same time on different threads; each runs one image at a time. After fork() a
   child must create its own: it does not have the parent's threads. */

#ifndef SMALLCNN_H
#define SMALLCNN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct smallcnn_net smallcnn_net;

enum {
    SMALLCNN_OK = 0,
    SMALLCNN_CPU,      /* this CPU, or its operating system, lacks one of smallcnn_features() */
    SMALLCNN_ARGUMENT, /* a null pointer, fewer than 1 thread, too little memory given to smallcnn_create_in, or a limit
                          out of range */
    SMALLCNN_MEMORY,   /* out of memory */
    SMALLCNN_THREAD,   /* the system cannot start another thread */
    SMALLCNN_SCRATCH,  /* a kernel needed more working memory than planned; smallcnn_scratch returns how much */
    SMALLCNN_KERNEL    /* a kernel reported an error */
};
enum { SMALLCNN_FLOAT32, SMALLCNN_UINT8, SMALLCNN_INT8, SMALLCNN_INT32 }; /* types of numbers */
#define SMALLCNN_DIMENSIONS 3 /* the most that an output has */

const char *smallcnn_error(int error); /* one line */

/* Contents of the file. */
int smallcnn_format(void);           /* version of this interface and of the metadata: SMALLCNN_FORMAT */
const char *smallcnn_metadata(void); /* JSON: labels, preprocessing, origin of the weights */
int smallcnn_height(void);
int smallcnn_width(void);
int smallcnn_channels(void);

/* The outputs, counted from 0; without such an output: null, 0 dimensions, -1, 0 and 0. */
int smallcnn_output_count(void);
const char *smallcnn_output_name(int output);
int smallcnn_output_shape(int output, int *dimensions); /* writes up to SMALLCNN_DIMENSIONS sizes, the innermost last;
                                                           returns how many. Null is allowed */
int smallcnn_output_number(int output);   /* SMALLCNN_FLOAT32, ... */
double smallcnn_output_scale(int output); /* whole numbers stand for scale * (number - zero); 0 if for themselves */
int smallcnn_output_zero(int output);

/* Requirements of the file. These functions run on any CPU of the architecture. */
const char *smallcnn_features(void);  /* CPU features, separated by spaces; may be empty */
int smallcnn_has(const char *feature); /* 1 if this CPU has the feature, else 0 */
int smallcnn_supported(void);         /* 1 if this CPU has them all, else 0 */
size_t smallcnn_memory(int threads);  /* bytes that smallcnn_create allocates; the weights stay in the file */

/* `threads` counts the caller. Files for WebAssembly and firmware have only smallcnn_create_in: one thread, which uses
   the `bytes` at `memory` (smallcnn_memory(1) of them, any alignment) and allocates nothing. */
int smallcnn_create(int threads, smallcnn_net **net);
int smallcnn_create_in(void *memory, size_t bytes, smallcnn_net **net);
void smallcnn_destroy(smallcnn_net *net); /* null is allowed */

/* Writes each output to where `outputs` points, one array for each, densely packed. Denormal numbers are taken for zero
   during the run (not in WebAssembly); the caller's floating-point settings are as before when it returns. */
int smallcnn_run(smallcnn_net *net, const uint8_t *image, void *const *outputs);

/* The same, with the time of each step in nanoseconds. Not in files for WebAssembly and firmware. */
int smallcnn_run_timed(smallcnn_net *net, const uint8_t *image, void *const *outputs, uint64_t *nanoseconds);
int smallcnn_steps(void);             /* length of that array */
const char *smallcnn_label(int step); /* the layers that a step computes */

/* What a detector keeps in the runs after this call: objects with a score above `threshold` that overlap no better one of
   their class by more than `overlap`, both from 0 to 1, and at most `most` of them, up to the number of rows of the
   outputs. A negative number is that of the file. Files of older versions lack this function. */
int smallcnn_limit(smallcnn_net *net, float threshold, float overlap, int most);

/* The peak working memory, in bytes, that kernels used on one thread besides the network's tensors. */
size_t smallcnn_scratch(const smallcnn_net *net);

#define SMALLCNN_FORMAT 2

#ifdef __cplusplus
}
#endif

#endif

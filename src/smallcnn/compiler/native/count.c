/* The number of entries above 0: numbers (lane, pixel), result. */

int KERNEL(void **arguments) {
    const buffer_t *numbers = arguments[1], *result = arguments[2];
    int count = 0;
    for (int pixel = 0; pixel < numbers->dim[1].extent; pixel++) {
        const float *at = (const float *)(void *)numbers->host + (ptrdiff_t)pixel * numbers->dim[1].stride;
        for (int lane = 0; lane < numbers->dim[0].extent; lane++) count += at[lane] > 0;
    }
    *(float *)(void *)result->host = (float)count;
    return 0;
}

/* Rows of a few numbers that lie in the maps of a network: each map is one piece, (lane, pixel), of which a pixel holds
   one row after the other. After buffer.h. */

static int per_pixel(const buffer_t *piece, int columns) { return piece->dim[0].extent / columns; }

static int row_count(const buffer_t *piece, int columns) { return per_pixel(piece, columns) * piece->dim[1].extent; }

/* The first number of a row. */
static const void *row_at(buffer_t *const *pieces, int columns, int row) {
    const buffer_t *piece = *pieces;
    for (; row >= row_count(piece, columns); piece = *++pieces) row -= row_count(piece, columns);
    ptrdiff_t pixel = row / per_pixel(piece, columns), within = row % per_pixel(piece, columns);
    return piece->host + (pixel * piece->dim[1].stride + within * columns) * (piece->bits / 8);
}

/* Pieces of rows copied side by side: pieces, result (COLUMNS, row). */

int KERNEL(void **arguments) {
    buffer_t *const *pieces = (buffer_t *const *)(arguments + 1);
    const buffer_t *result = pieces[PIECES];
    for (int row = 0; row < result->dim[1].extent; row++) {
        const NUMBER *from = row_at(pieces, COLUMNS, row);
        NUMBER *to = (NUMBER *)(void *)result->host + (ptrdiff_t)row * result->dim[1].stride;
        for (int column = 0; column < COLUMNS; column++) to[column] = from[column];
    }
    return 0;
}

// Declarations of the part of DuckDB's C interface that the Go bindings export
// only under the build tag duckdb_arrow, or not at all. They are those of
// duckdb.h 1.5.6; the functions are in the static library that the bindings link.
#ifndef RB_DUCKARROW_SHIM_H
#define RB_DUCKARROW_SHIM_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#ifndef ARROW_C_DATA_INTERFACE
#define ARROW_C_DATA_INTERFACE
struct ArrowSchema {
  const char *format;
  const char *name;
  const char *metadata;
  int64_t flags;
  int64_t n_children;
  struct ArrowSchema **children;
  struct ArrowSchema *dictionary;
  void (*release)(struct ArrowSchema *);
  void *private_data;
};

struct ArrowArray {
  int64_t length;
  int64_t null_count;
  int64_t offset;
  int64_t n_buffers;
  int64_t n_children;
  const void **buffers;
  struct ArrowArray **children;
  struct ArrowArray *dictionary;
  void (*release)(struct ArrowArray *);
  void *private_data;
};
#endif

#ifndef ARROW_C_STREAM_INTERFACE
#define ARROW_C_STREAM_INTERFACE
struct ArrowArrayStream {
  int (*get_schema)(struct ArrowArrayStream *, struct ArrowSchema *out);
  int (*get_next)(struct ArrowArrayStream *, struct ArrowArray *out);
  const char *(*get_last_error)(struct ArrowArrayStream *);
  void (*release)(struct ArrowArrayStream *);
  void *private_data;
};
#endif

typedef uint64_t rb_idx;

typedef struct {
  rb_idx deprecated_column_count;
  rb_idx deprecated_row_count;
  rb_idx deprecated_rows_changed;
  void *deprecated_columns;
  char *deprecated_error_message;
  void *internal_data;
} rb_result;

// A feed is an Arrow stream that is read once per execution: it yields the one
// array that was put into it, then ends.
typedef struct {
  struct ArrowArrayStream stream;
  struct ArrowSchema schema;
  struct ArrowArray array;
} rb_feed;

rb_feed *rb_feed_new(void);
void rb_feed_clear(rb_feed *feed);
void rb_feed_free(rb_feed *feed);
int rb_feed_register(void *connection, const char *name, rb_feed *feed);

// rb_execute runs a bound statement. A streaming result is computed while it is
// fetched. On failure it returns a copy of the message, to be freed.
char *rb_execute(void *prepared, bool streaming, rb_result *result);
// rb_converted turns a schema into what rb_append needs, to be destroyed.
char *rb_converted(void *connection, struct ArrowSchema *schema, void **out);
void rb_destroy_converted(void *converted);
// rb_append moves array, of at most 2048 rows, into an appender. It returns 0, or
// 1 with a message to be freed, or 2 when the appender knows the error.
int rb_append(void *connection, void *appender, void *converted, struct ArrowArray *array, char **error);

// rb_next fetches the next chunk as Arrow; false at the end or with an error.
bool rb_next(rb_result *result, void *options, struct ArrowArray *out, char **error);
rb_idx rb_changed(rb_result *result);
void rb_destroy_result(rb_result *result);

void *rb_arrow_options(rb_result *result);
void rb_destroy_arrow_options(void *options);
// rb_arrow_schema returns a message to be freed, or NULL.
char *rb_arrow_schema(rb_result *result, void *options, struct ArrowSchema *out);

#endif

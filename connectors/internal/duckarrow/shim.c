#include "shim.h"

#include <string.h>

extern int duckdb_arrow_scan(void *connection, const char *name, void *stream);
extern int duckdb_pending_prepared(void *prepared, void **out);
extern int duckdb_pending_prepared_streaming(void *prepared, void **out);
extern int duckdb_execute_pending(void *pending, rb_result *out);
extern const char *duckdb_pending_error(void *pending);
extern void duckdb_destroy_pending(void **pending);
extern void duckdb_destroy_result(rb_result *result);
extern const char *duckdb_result_error(rb_result *result);
extern void *duckdb_fetch_chunk(rb_result result);
extern void duckdb_destroy_data_chunk(void **chunk);
extern rb_idx duckdb_column_count(rb_result *result);
extern const char *duckdb_column_name(rb_result *result, rb_idx column);
extern void *duckdb_column_logical_type(rb_result *result, rb_idx column);
extern void duckdb_destroy_logical_type(void **type);
extern rb_idx duckdb_rows_changed(rb_result *result);
extern void *duckdb_result_get_arrow_options(rb_result *result);
extern void duckdb_destroy_arrow_options(void **options);
extern void *duckdb_to_arrow_schema(void *options, void **types, const char **names, rb_idx count,
                                    struct ArrowSchema *out);
extern void *duckdb_data_chunk_to_arrow(void *options, void *chunk, struct ArrowArray *out);
extern void *duckdb_schema_from_arrow(void *connection, struct ArrowSchema *schema, void **out);
extern void duckdb_destroy_arrow_converted_schema(void **converted);
extern void *duckdb_data_chunk_from_arrow(void *connection, struct ArrowArray *array, void *converted, void **out);
extern int duckdb_append_data_chunk(void *appender, void *chunk);
extern bool duckdb_error_data_has_error(void *data);
extern const char *duckdb_error_data_message(void *data);
extern void duckdb_destroy_error_data(void **data);

static char *copy_text(const char *text) { return strdup(text != NULL && *text != 0 ? text : "unknown error"); }

// The schema's memory stays with the feed: what DuckDB gets is a view of it.
static void release_schema_view(struct ArrowSchema *schema) { schema->release = NULL; }

static void release_stream(struct ArrowArrayStream *stream) { stream->release = NULL; }

static int get_schema(struct ArrowArrayStream *stream, struct ArrowSchema *out) {
  rb_feed *feed = stream->private_data;
  *out = feed->schema;
  out->release = release_schema_view;
  return 0;
}

static int get_next(struct ArrowArrayStream *stream, struct ArrowArray *out) {
  rb_feed *feed = stream->private_data;
  *out = feed->array; // moved; a released array ends the stream
  memset(&feed->array, 0, sizeof feed->array);
  return 0;
}

static const char *get_last_error(struct ArrowArrayStream *stream) {
  (void)stream;
  return NULL;
}

rb_feed *rb_feed_new(void) {
  rb_feed *feed = calloc(1, sizeof *feed);
  if (feed == NULL)
    return NULL;
  feed->stream.get_schema = get_schema;
  feed->stream.get_next = get_next;
  feed->stream.get_last_error = get_last_error;
  feed->stream.release = release_stream;
  feed->stream.private_data = feed;
  return feed;
}

void rb_feed_clear(rb_feed *feed) {
  if (feed->array.release != NULL)
    feed->array.release(&feed->array);
  memset(&feed->array, 0, sizeof feed->array);
}

void rb_feed_free(rb_feed *feed) {
  rb_feed_clear(feed);
  if (feed->schema.release != NULL)
    feed->schema.release(&feed->schema);
  free(feed);
}

int rb_feed_register(void *connection, const char *name, rb_feed *feed) {
  return duckdb_arrow_scan(connection, name, &feed->stream);
}

char *rb_execute(void *prepared, bool streaming, rb_result *result) {
  void *pending = NULL;
  char *error = NULL;
  int state = streaming ? duckdb_pending_prepared_streaming(prepared, &pending)
                        : duckdb_pending_prepared(prepared, &pending);
  if (state != 0) {
    error = copy_text(duckdb_pending_error(pending));
  } else if (duckdb_execute_pending(pending, result) != 0) {
    error = copy_text(duckdb_result_error(result));
    duckdb_destroy_result(result);
  }
  duckdb_destroy_pending(&pending);
  return error;
}

rb_idx rb_changed(rb_result *result) { return duckdb_rows_changed(result); }

void rb_destroy_result(rb_result *result) { duckdb_destroy_result(result); }

void *rb_arrow_options(rb_result *result) { return duckdb_result_get_arrow_options(result); }

void rb_destroy_arrow_options(void *options) { duckdb_destroy_arrow_options(&options); }

// take_error frees data and returns its message, or NULL.
static char *take_error(void *data) {
  char *error = NULL;
  if (data == NULL)
    return NULL;
  if (duckdb_error_data_has_error(data))
    error = copy_text(duckdb_error_data_message(data));
  duckdb_destroy_error_data(&data);
  return error;
}

char *rb_arrow_schema(rb_result *result, void *options, struct ArrowSchema *out) {
  rb_idx count = duckdb_column_count(result);
  void **types = calloc(count + 1, sizeof *types);
  const char **names = calloc(count + 1, sizeof *names);
  char *error = NULL;
  if (types == NULL || names == NULL) {
    error = copy_text("no memory");
  } else {
    for (rb_idx i = 0; i < count; i++) {
      types[i] = duckdb_column_logical_type(result, i);
      names[i] = duckdb_column_name(result, i);
    }
    error = take_error(duckdb_to_arrow_schema(options, types, names, count, out));
    for (rb_idx i = 0; i < count; i++)
      duckdb_destroy_logical_type(&types[i]);
  }
  free(types);
  free(names);
  return error;
}

bool rb_next(rb_result *result, void *options, struct ArrowArray *out, char **error) {
  void *chunk = duckdb_fetch_chunk(*result);
  if (chunk == NULL) {
    const char *text = duckdb_result_error(result);
    *error = text != NULL && *text != 0 ? strdup(text) : NULL;
    return false;
  }
  *error = take_error(duckdb_data_chunk_to_arrow(options, chunk, out));
  duckdb_destroy_data_chunk(&chunk);
  return *error == NULL;
}

char *rb_converted(void *connection, struct ArrowSchema *schema, void **out) {
  return take_error(duckdb_schema_from_arrow(connection, schema, out));
}

void rb_destroy_converted(void *converted) { duckdb_destroy_arrow_converted_schema(&converted); }

int rb_append(void *connection, void *appender, void *converted, struct ArrowArray *array, char **error) {
  void *chunk = NULL;
  int state = 0;
  *error = take_error(duckdb_data_chunk_from_arrow(connection, array, converted, &chunk));
  if (*error != NULL)
    state = 1;
  else if (duckdb_append_data_chunk(appender, chunk) != 0)
    state = 2;
  if (chunk != NULL)
    duckdb_destroy_data_chunk(&chunk);
  return state;
}

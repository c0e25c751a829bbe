// Package sqltransform runs one SQL query of the user over each batch of a
// stream, in an embedded DuckDB without access to files, network or extensions.
//
// # Row-wise queries only
//
// A stream has no end and is cut into batches where it suits the engine. A query
// is therefore accepted only when its result for a row depends on that row alone:
// projection, filter, expressions, unnest. DuckDB's own plan decides: any
// operator beyond these (aggregate, DISTINCT, ORDER BY, LIMIT, window, join, set
// operation, sample) is refused with CodeSchemaQuery by Schema, before anything
// moves, because it would give results that depend on batch borders.
//
// Functions that return something else at each call (random(), uuid()) are
// refused: a batch that is transformed again after a crash would differ. now()
// and the like are accepted, once per batch, and reported by Findings: rows that
// are read again carry the time of the attempt that committed them.
//
// # Types
//
// A column that passes through unchanged keeps its type, nullability and
// metadata. A column that DuckDB would have to change (a nanosecond timestamp
// with time zone, decimal256, float16, durations) may be in the stream, but a
// query that touches it is refused with CodeSchemaType. Other columns have the
// type that DuckDB gives them; HUGEINT and other types that Arrow streams do not
// carry are refused with the advice to cast.
//
// # Objects and ownership
//
//	Transform   immutable but for two embedded databases, opened at first use:
//	            one plans, one runs; both die with the Transform
//	Stage       one connection and one catalogue of its own in the second
//	program     the query prepared over one stream and schema version
//
// DuckDB reads a batch's buffers in place and holds them until the query over
// that batch ends. What comes out is in memory of StageRequest.Mem.
//
// # Failure
//
// An error of the query for a row (a cast that does not fit) is KindData with
// the row that caused it. Out of memory is KindConfig. A query of a cancelled
// context is interrupted. An internal error of DuckDB spoils its database: it is
// dropped, and the next Open starts a new one.
package sqltransform

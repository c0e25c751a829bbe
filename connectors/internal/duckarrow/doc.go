// Package duckarrow runs DuckDB over Arrow batches, in process and without Go
// values in between. It is shared by the DuckDB connector and the SQL transform,
// and knows nothing of either.
//
// # Why not database/sql
//
// The Go driver puts its Arrow interface behind the build tag duckdb_arrow, so a
// plain "go install" would have none. The functions are in the linked library
// all the same: shim.h declares the handful that is needed, and everything else
// goes through the driver's untagged package mapping. It also gives what the
// driver hides: prepared statements that are run again over another batch,
// streaming results and transactions that are just statements.
//
// # Objects
//
//	DB      one open database; DBs of one file in one process share an instance
//	Conn    one connection; one goroutine at a time, Interrupt from any
//	Feed    a view whose rows are the batch that was put into it last
//	Stmt    a prepared statement, run any number of times
//	Result  what a run returns, fetched as Arrow in chunks of 2048 rows
//
// # Ownership
//
// Feed.Put borrows its batch: DuckDB reads its buffers in place and holds a
// reference until the run that read it ends. Result.Next returns an owned batch
// whose memory is DuckDB's; Concat copies such batches into memory of an
// allocator. Whoever opens closes: Result before Stmt before Feed before Conn
// before DB.
//
// # Failure
//
// Every complaint of DuckDB is an *Error with its class. A run whose context
// ends is interrupted, and again until it has ended, and returns the cause of
// the context.
package duckarrow

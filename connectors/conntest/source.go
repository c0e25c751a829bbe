package conntest

import (
	"testing"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// SourceFactory makes origins for the source checks.
type SourceFactory struct {
	// New returns a source on a fresh origin, with at least 20 rows in at least one
	// stream: a few dozen rows are best, each check reads them many times. What it
	// opens it closes with t.Cleanup.
	New func(t T) Origin

	// Incremental says that a scan after finished loads reads only what was added
	// since (a file source in append mode). Otherwise it reads everything again, as a
	// load with the next number.
	Incremental bool

	// AnyStream says that every name is a stream, so none can be unknown.
	AnyStream bool

	// DrainRows is how many rows a reader may emit after a barrier became due, with
	// batches of one row. 0 means 2: most positions are exact at any row.
	DrainRows int64

	// Unbounded says that a reader cannot honour ReadRequest.Limits to the row, and
	// why. The checks of limits then demand nothing. Empty for every built-in source.
	Unbounded string
}

// Origin is one thing to read.
type Origin struct {
	Source connectors.Source

	// Reopen returns a new source value on the same origin, as another node would
	// make it. Nil means that the origin lives in the value Source.
	Reopen func(t T) connectors.Source

	// Streams are the specs that the checks scan. Mode append is usual.
	Streams []connectors.StreamSpec

	// Rows returns what the origin holds now, by stream, as RowText of each row in
	// the order of the columns of the planned schema. The order of rows is free.
	Rows func(t T) map[messages.StreamID][]string

	// Append adds rows to the origin. Nil: the origin cannot grow.
	Append func(t T)
}

// Source runs every source check as a subtest of t.
func Source(t *testing.T, f SourceFactory) {
	t.Helper()
	runAll(t, SourceChecks(), f)
}

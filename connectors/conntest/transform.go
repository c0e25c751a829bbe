package conntest

import (
	"testing"

	"github.com/apache/arrow-go/v18/arrow"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// TransformFactory describes one transform and what it does to some rows.
type TransformFactory struct {
	// New returns the transform. What it opens it closes with t.Cleanup.
	New func(t T) connectors.Transform

	Stream messages.StreamID
	Schema *arrow.Schema // of the input
	Rows   [][]any       // the input, at least 3 rows; see Build for the values

	// Want is the output as RowText, in order.
	Want []string
	// Rejected counts the rows that are set aside.
	Rejected int64
	// Whole says that the output depends on where batches are cut (an aggregate):
	// the same rows in other batches need not give the same output.
	Whole bool
}

// Transform runs every transform check as a subtest of t.
func Transform(t *testing.T, f TransformFactory) {
	t.Helper()
	runAll(t, TransformChecks(), f)
}

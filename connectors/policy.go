package connectors

import "rapidbyte.io/node/messages"

// DataErrorPolicy says what happens to a row that cannot be written.
type DataErrorPolicy string

// The policies.
const (
	DataFail DataErrorPolicy = "fail" // the run stops, nothing of the commit is visible
	DataSkip DataErrorPolicy = "skip" // the row is left out and counted
	DataDLQ  DataErrorPolicy = "dlq"  // the row becomes a dead letter in the same commit
)

// ColumnPolicy says what happens to a column that the target does not have.
type ColumnPolicy string

// The policies.
const (
	ColumnAdd    ColumnPolicy = "add"
	ColumnIgnore ColumnPolicy = "ignore"
	ColumnFail   ColumnPolicy = "fail"
)

// WritePolicy is what a pipeline says about writing, beside the write mode. A
// destination is given it when it is made; the zero value is the strictest.
type WritePolicy struct {
	OnDataError  DataErrorPolicy // empty: fail
	DeadRowsMax  *int64          // more dead letters and skipped rows than this in the pipeline's open loads stop the run; nil: no limit
	DeadRatioMax *float64        // a larger share of the rows that arrived stops the run; nil: no limit
	NewColumn    ColumnPolicy    // empty: fail
	Metadata     bool            // add ColumnRun and ColumnLoadedAt
	FlushBytes   int64           // pin of the bytes that are collected before they are sent; 0: the connector decides
}

// The metadata columns, behind those of the stream.
const (
	ColumnRun      = "_rb_run"       // text: the run that wrote the row
	ColumnLoadedAt = "_rb_loaded_at" // timestamptz: when its commit was begun
)

// Explainer is implemented by a Session or a Writer that decides something which a
// user may want to understand.
type Explainer interface {
	// Explain returns decisions and their reasons, such as the flush size; -vv shows
	// them. The engine asks when a writer is open and behind each commit, from the
	// writer's goroutine, and shows what it has not shown before. Cheap.
	Explain() []string
}

// DeadLetter is a row that was set aside.
type DeadLetter struct {
	ID       string            `json:"id"` // stable, of the destination
	Stream   messages.StreamID `json:"stream"`
	Part     messages.PartID   `json:"part"`
	Load     uint64            `json:"load"`
	Position string            `json:"position,omitempty"` // source position behind which the row was read
	Ordinal  int64             `json:"ordinal"`            // which row behind Position, from 1
	Reason   string            `json:"reason"`             // stable code
	SQLState string            `json:"sqlstate,omitempty"`
	Message  string            `json:"message"`
	Created  string            `json:"created_at"`
	Row      []byte            `json:"-"` // Arrow IPC stream of one row, as it arrived
}

// DeadLetterQuery selects dead letters of one pipeline; zero fields select all.
type DeadLetterQuery struct {
	Pipeline messages.PipelineID
	Stream   messages.StreamID
	Reason   string
	IDs      []string
	Limit    int64 // 0: no limit
}

// Replayed says what became of dead letters that were tried again.
type Replayed struct {
	Written int64 `json:"written"` // in the target now, and no dead letters any more
	Left    int64 `json:"left"`    // failed again, with a new message
}

package messages

import "time"

// Lane is how rows travel from the source to the destination.
type Lane string

// The lanes.
const (
	LaneArrow       Lane = "arrow"       // decoded, as record batches
	LanePassthrough Lane = "passthrough" // as the source sends them, never decoded
)

// StreamResult is what one run did for one stream.
type StreamResult struct {
	Stream       StreamID `json:"name"`
	Target       string   `json:"target,omitempty"`
	State        RunState `json:"state"`
	RowsRead     int64    `json:"rows_read"`    // from the source, in committed work of this run
	RowsWritten  int64    `json:"rows_written"` // committed at the destination in this run
	RowsRejected int64    `json:"rows_rejected,omitempty"`
	Bytes        int64    `json:"bytes"`            // read in this run, as they travel
	Cursor       *Cursor  `json:"cursor,omitempty"` // of the last persisted receipt, when the stream is one task
	Open         bool     `json:"open,omitempty"`   // completed for this run; the next one reads on behind Cursor
	Tasks        int      `json:"tasks"`
	Lane         Lane     `json:"lane,omitempty"`        // of all tasks of this run; empty: none was opened
	LaneReason   string   `json:"lane_reason,omitempty"` // of arrow, where both ends have another one
	Retries      int      `json:"retries,omitempty"`
	How          []string `json:"how,omitempty"` // how its rows were written, and why so
	Failure      *Failure `json:"error,omitempty"`
}

// Decision is something that the engine has chosen, and why.
type Decision struct {
	What   string `json:"what"`
	Value  string `json:"value"`
	Reason string `json:"reason"`
}

// RunResult is how a run ended.
type RunResult struct {
	RunID    string         `json:"run_id"`
	Pipeline PipelineID     `json:"pipeline"`
	Epoch    Epoch          `json:"epoch"`
	State    RunState       `json:"state"`
	Elapsed  time.Duration  `json:"-"`
	Streams  []StreamResult `json:"streams"`
	Warnings []string       `json:"warnings,omitempty"`
	// Decisions are what the engine has chosen for speed. They change nothing that is written.
	Decisions []Decision `json:"tuning,omitempty"`
	Failure   *Failure   `json:"error,omitempty"` // the first cause
}

package messages

import "time"

// EventKind names what an Event reports.
type EventKind string

// The kinds of events, in the order in which a run sends them.
const (
	EventRunStarted     EventKind = "run_started"
	EventStreamPlanned  EventKind = "stream_planned"  // Total rows, when known; Tasks
	EventTaskStarted    EventKind = "task_started"    // Token
	EventProgress       EventKind = "progress"        // Rows and bytes so far, of one stream
	EventCheckpoint     EventKind = "checkpoint"      // a receipt is persisted
	EventNote           EventKind = "note"            // Message: a decision of a connector and its reason
	EventTaskRetry      EventKind = "task_retry"      // Failure, Delay
	EventTaskEnded      EventKind = "task_ended"      //
	EventWarning        EventKind = "warning"         // Message
	EventStreamFinished EventKind = "stream_finished" //
	EventStreamFailed   EventKind = "stream_failed"   // Failure
	EventDraining       EventKind = "draining"        // Message: the reason
	EventRunRetry       EventKind = "run_retry"       // Failure, Delay
	EventRunEnded       EventKind = "run_ended"       // State, Failure
)

// Event is one line of a run's story, for terminals, NDJSON files and later the
// API. It is plain data and holds no secrets.
type Event struct {
	Kind        EventKind     `json:"event"`
	Time        time.Time     `json:"time"`
	Pipeline    PipelineID    `json:"pipeline"`
	Run         string        `json:"run_id,omitempty"`
	Stream      StreamID      `json:"stream,omitempty"`
	Part        PartID        `json:"task,omitempty"`
	Token       Token         `json:"token,omitzero"`
	Tasks       int           `json:"tasks,omitempty"`
	RowsRead    int64         `json:"rows_read,omitempty"`    // of the stream, this run
	RowsWritten int64         `json:"rows_written,omitempty"` // committed, this run
	Rejected    int64         `json:"rows_rejected,omitempty"`
	Bytes       int64         `json:"bytes,omitempty"`   // Arrow bytes read, this run
	Total       int64         `json:"total,omitempty"`   // rows expected, 0 unknown
	Waiting     string        `json:"waiting,omitempty"` // what a stalled stream waits for
	Position    string        `json:"position,omitempty"`
	Delay       time.Duration `json:"delay_ns,omitempty"`
	State       RunState      `json:"state,omitempty"`
	Message     string        `json:"message,omitempty"`
	Failure     *Failure      `json:"error,omitempty"`
}

// RunState says how a run stands or ended.
type RunState string

// The states of a run.
const (
	RunRunning   RunState = "running"
	RunCompleted RunState = "completed" // every load is finished and persisted
	RunDrained   RunState = "drained"   // stopped on request at a committed position
	RunFailed    RunState = "failed"
)

package messages

import "time"

// Demand grants the stage above more batches. Both counts are positive while a
// stage may send; bytes may be overshot by one batch.
type Demand struct {
	Part    PartID
	Token   Token
	Batches int
	Bytes   int64 // true footprint
}

// Resume tells a source where to begin: at the position of the receipt that
// OpenWriter returned to the same attempt.
type Resume struct {
	Part  PartID
	Token Token
	From  Position
}

// Drain asks the receiver to stop at the next exact position.
type Drain struct {
	Reason   string
	Deadline time.Time // then the attempt is cancelled instead
}

// Opened says that OpenWriter returned: the part is fenced for Token.
type Opened struct {
	Token   Token
	Receipt Receipt
}

// TaskEnded says that the stream of items of an attempt has ended in order: the
// barrier of kind drain or end was committed.
type TaskEnded struct {
	Part  PartID
	Token Token
	Kind  BarrierKind // drain or end
	Seq   Seq         // of that barrier
}

// StageStatus says what a stage is doing; for progress and for naming the cause
// of a stall. Counts are totals of the attempt.
type StageStatus struct {
	Part   PartID
	Token  Token
	Stage  string
	Stream StreamID
	Doing  string // "reading", "waiting for credit", "writing batch 12", "committing barrier 40"
	Rows   int64
	Bytes  int64
}

// Inspect asks a stage for its StageStatus.
type Inspect struct {
	Part  PartID
	Token Token
}

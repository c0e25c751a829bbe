package messages

import "time"

// ToSource is what a source actor accepts.
//
//sumtype:decl
type ToSource interface{ toSource() }

// ToTransform is what a transform actor accepts.
//
//sumtype:decl
type ToTransform interface{ toTransform() }

// ToDestination is what a destination actor accepts.
//
//sumtype:decl
type ToDestination interface{ toDestination() }

// ToRun is what a run actor accepts from stages and from its pipeline.
//
//sumtype:decl
type ToRun interface{ toRun() }

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
	Raw   string // format of undecoded rows that both ends have agreed on; empty: Arrow
}

// Drain asks the receiver to stop at the next exact position.
type Drain struct {
	Reason   string
	Deadline time.Time // then attempts are cancelled instead; zero: none
}

// Opened says that OpenWriter returned: the part is fenced for Token.
type Opened struct {
	Token   Token
	Receipt Receipt
	Raw     string // format of undecoded rows that the writer takes; empty: Arrow
	Why     string // Arrow, although the source offers more; to stand behind "because"
}

// Explained carries what the destination of an attempt has decided and why.
type Explained struct {
	Part  PartID
	Token Token
	Lines []string // immutable
}

// TaskEnded says that the stream of items of an attempt has ended in order: the
// barrier of kind drain or end is committed.
type TaskEnded struct {
	Part  PartID
	Token Token
	Kind  BarrierKind // drain or end
	Seq   Seq         // of that barrier, as the destination counts
}

// StageStatus says what a stage is doing; for progress and for naming the cause
// of a stall. Counts are totals of the attempt.
type StageStatus struct {
	Part  PartID
	Token Token
	Stage string
	Doing string // "reading", "waiting for credit", "writing batch 12", "committing barrier 40"
	Rows  int64
	Bytes int64
}

// Inspect asks a stage for its StageStatus.
type Inspect struct {
	Part  PartID
	Token Token
}

// AckWanted asks a destination for its latest ack: one may have been lost.
type AckWanted struct {
	Part  PartID
	Token Token
}

func (Resume) toSource()              {}
func (Demand) toSource()              {}
func (Drain) toSource()               {}
func (CheckpointCommitted) toSource() {}
func (Inspect) toSource()             {}

func (Batch) toTransform()        {}
func (SchemaChange) toTransform() {}
func (Truncate) toTransform()     {}
func (Rejected) toTransform()     {}
func (Barrier) toTransform()      {}
func (Demand) toTransform()       {}
func (Inspect) toTransform()      {}

func (Batch) toDestination()               {}
func (SchemaChange) toDestination()        {}
func (Truncate) toDestination()            {}
func (Rejected) toDestination()            {}
func (Barrier) toDestination()             {}
func (AckWanted) toDestination()           {}
func (CheckpointCommitted) toDestination() {}
func (Inspect) toDestination()             {}

func (Opened) toRun()      {}
func (Explained) toRun()   {}
func (TaskEnded) toRun()   {}
func (StageFailed) toRun() {}
func (StageStatus) toRun() {}
func (Drain) toRun()       {}

// IgnoreDeadLetterLogging keeps rows out of logs: a dead-letter log prints whole
// messages.
func (Batch) IgnoreDeadLetterLogging() {}

// IgnoreDeadLetterLogging keeps rows out of logs.
func (Rejected) IgnoreDeadLetterLogging() {}

// IgnoreDeadLetterLogging keeps positions out of logs.
func (Barrier) IgnoreDeadLetterLogging() {}

// IgnoreDeadLetterLogging keeps a late grant to an ended stage quiet.
func (Demand) IgnoreDeadLetterLogging() {}

// IgnoreDeadLetterLogging keeps a late question to an ended stage quiet.
func (Inspect) IgnoreDeadLetterLogging() {}

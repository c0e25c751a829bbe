package messages

import "fmt"

// Receipt is what a destination stores, in the same transaction as the data, for
// one part. The highest one is the truth about how far the part has come.
type Receipt struct {
	Part     PartID   `json:"part"`
	Load     string   `json:"load"`    // name of the load the part belongs to
	Version  Version  `json:"version"` // +1 commit each
	Token    Token    `json:"token"`   // who wrote it
	Position Position `json:"position,omitzero"`
	Final    bool     `json:"final,omitempty"` // the part is complete
	Rows     Counts   `json:"rows"`
}

// LoadID returns the load that r belongs to.
func (r Receipt) LoadID() LoadID { return LoadID{Name: r.Load, Number: r.Version.Load} }

// Reached says to a person how far r has come.
func (r Receipt) Reached() string {
	at := r.Position.String()
	if r.Final && r.Position.Equal(Position{}) {
		at = "its end"
	}
	return fmt.Sprintf("load %d, commit %d, at %s", r.Version.Load, r.Version.Commit, at)
}

// Counts add up over the commits of one part.
type Counts struct {
	Read     int64 `json:"read"`     // emitted by the source
	Arrived  int64 `json:"arrived"`  // reached the writer, dead letters included
	Applied  int64 `json:"applied"`  // written or merged
	Rejected int64 `json:"rejected"` // dead letters; Arrived = Applied + Rejected
}

// DestinationAck tells the checkpoint actor that the commit at barrier Seq is durable. It
// confirms every barrier of that attempt up to Seq, of that part only. It is the
// whole truth so far, not a difference: the newest one stands for all before it.
type DestinationAck struct {
	Pipeline PipelineID `json:"pipeline"`
	Seq      Seq        `json:"seq"`
	Receipt  Receipt    `json:"receipt"` // names part, epoch and attempt
}

// CheckpointCommitted tells a task that everything up to barrier Seq of its attempt is in
// the state store too. A source may now let the origin forget it.
type CheckpointCommitted struct {
	Part     PartID   `json:"part"`
	Token    Token    `json:"token"`
	Seq      Seq      `json:"seq"`
	Position Position `json:"position"`
}

// StageFailed says that a stage of an attempt gave up. The owner decides by Kind.
type StageFailed struct {
	Part    PartID  `json:"part"`
	Token   Token   `json:"token"`
	Stage   string  `json:"stage"`
	Failure Failure `json:"failure"`
	// RetryAfter is the delay the failing system asked for, in nanoseconds; 0 none.
	RetryAfter int64 `json:"retry_after,omitempty"`
}

package checkpoint

import (
	"errors"

	"rapidbyte.io/node/messages"
)

// Event is something that happened.
//
//sumtype:decl
type Event interface{ event() }

// The events.
type (
	// Recovered comes first, once: what the state store and the destination hold.
	Recovered struct {
		Stored         []messages.Receipt // K
		StoredFinished []messages.LoadID
		Durable        []messages.Receipt // D, every receipt of the pipeline
		Begun          []messages.LoadID  // every load the destination knows, the highest number of each name
		Finished       []messages.LoadID  // those of them that it calls finished
	}
	// Began says that Session.Begin returned: the parts exist at commit 0.
	Began struct {
		Load  messages.LoadID
		Parts []messages.PartID
	}
	// Started says that OpenWriter returned Receipt to the task with Token.
	Started struct {
		Token   messages.Token
		Receipt messages.Receipt
	}
	// Acked is a destination's ack, from anywhere, in any order, any number of times.
	Acked struct{ messages.DestinationAck }
	// Saved says that the transaction of Save ID is durable.
	Saved struct{ ID uint64 }
	// SaveFailed says that it is not, or may not be; a Save is absolute, so doing it
	// again is safe either way.
	SaveFailed struct {
		ID     uint64
		Fenced bool // the store has a higher epoch
	}
	// Finished says that Session.Finish returned.
	Finished struct{ Load messages.LoadID }
	// Tick comes every few seconds: do again what may have been lost.
	Tick struct{}
)

func (Recovered) event()  {}
func (Began) event()      {}
func (Started) event()    {}
func (Acked) event()      {}
func (Saved) event()      {}
func (SaveFailed) event() {}
func (Finished) event()   {}
func (Tick) event()       {}

// Effect is something to be done, in the order returned.
//
//sumtype:decl
type Effect interface{ effect() }

// The effects.
type (
	// Save writes these receipts in one transaction that checks the epoch and never
	// lowers a version. A receipt of load n replaces those of smaller loads of its name.
	Save struct {
		ID       uint64
		Receipts []messages.Receipt
		Finished []messages.LoadID
	}
	// Tell sends CheckpointCommitted to the task. Receipt is what was persisted.
	Tell struct {
		messages.CheckpointCommitted
		Receipt messages.Receipt
	}
	// PartDone says that a part of that load is complete and persisted; parts After it may
	// start. A part of the next load may have its name.
	PartDone struct {
		Part messages.PartID
		Load messages.LoadID
	}
	// FinishLoad calls Session.Finish.
	FinishLoad struct{ Load messages.LoadID }
	// Done says that the load is finished and persisted.
	Done struct{ Load messages.LoadID }
	// Ask asks the task for its latest ack.
	Ask struct {
		Part  messages.PartID
		Token messages.Token
	}
	// Reject reports a note that changed nothing; for logs and counters.
	Reject struct{ Err error }
	// Stop ends the pipeline. Nothing follows it.
	Stop struct {
		Err   error
		Ahead []Ahead // of ErrStateAhead, at least one
	}
)

// Ahead is one receipt that the state store has and the destination does not.
type Ahead struct {
	Stored  messages.Receipt // K; without a part: the mark that the load is finished
	Durable messages.Receipt // D of the same part; zero: there is none
	Begun   bool             // the destination knows the load
}

func (Save) effect()       {}
func (Tell) effect()       {}
func (PartDone) effect()   {}
func (FinishLoad) effect() {}
func (Done) effect()       {}
func (Ask) effect()        {}
func (Reject) effect()     {}
func (Stop) effect()       {}

// Why a note was rejected or the pipeline stopped.
var (
	ErrOtherPipeline = errors.New("ack of another pipeline")
	ErrStaleEpoch    = errors.New("ack of another epoch")
	ErrStaleAttempt  = errors.New("ack of another attempt")
	ErrUnknownPart   = errors.New("ack of an unknown part")
	ErrFenced        = errors.New("the state store has a higher epoch")
	// ErrStateAhead: the destination lost data that the state store calls confirmed.
	// The operator decides: reset the state to the receipt, or load again.
	ErrStateAhead = errors.New("state is ahead of the destination")
)

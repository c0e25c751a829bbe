package run

import (
	"github.com/asynkron/protoactor-go/actor"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
)

// Config is fixed at construction.
type Config struct {
	Spec    Spec
	Store   statestore.Store
	State   statestore.State // as loaded under this epoch
	Epoch   messages.Epoch
	Attempt messages.Attempt // the last one given out under this epoch
	Run     statestore.Run   // its record
	Hold    func() error     // says whether the pipeline is still ours; nil: for as long as we live
	Jitter  func() float64   // in [0, 1)
	Observe func(messages.Event)
}

// Ended says how it went. The actor stays until it is stopped.
type Ended struct {
	State   messages.RunState // completed, drained or failed
	Failure *messages.Failure // the first cause; nil unless failed
	// Again says that another go can help: the failure was met before or outside of the
	// tasks and is transient, or the scan is lost, or the source has more.
	Again      bool
	RunID      string         // a lost state store's run goes on under its own
	Registered messages.Epoch // of the owner that Open met; 0 otherwise
	Attempt    messages.Attempt
	Streams    []messages.StreamResult
	Warnings   []string
	Decisions  []messages.Decision
}

// Abort ends the run at once, for a reason outside of it.
type Abort struct{ Failure messages.Failure }

// Conclude asks for the run's record to be closed; Concluded answers.
type Conclude struct{ Run statestore.Run }

// Concluded says that the record is written, or why not.
type Concluded struct{ Err error }

// Messages to self.
type (
	jobDone struct {
		name string
		err  error
		then func(c actor.Context) // only without error
	}
	wake struct {
		part  messages.PartID
		token messages.Token
	}
	bereft   struct{} // the checkpoint actor has terminated
	tick     struct{}
	deadline struct{}
)

// job is a blocking call for the worker goroutine.
type job struct {
	name   string
	run    func(ctx runContext) (then func(c actor.Context), err error)
	finish []*loadRun // of jobFinish, which has no run until its turn comes
}

// attempt is what lives while a part is being worked on.
type attempt struct {
	part    connectors.Part
	token   messages.Token
	pids    []*actor.PID // source first
	alive   int
	release func() int // what is left in the register
}

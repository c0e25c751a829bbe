package run

import (
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// What is decided here changes how fast a run is, never what it writes. Each decision is a
// pure function of what is known when it is made, and the run's report has it with its reason.

// taskFacts are what the number of tasks at a time depends on.
type taskFacts struct {
	Asked  int    // by the document, or as many as there are cores
	Pinned string // key of the document that asks; empty: none does
	Tune   bool   // autotune is on
	Parts  int    // that are to be moved
	Room   int    // connections that the origin has left; 0: not known, or it needs none
	Fit    int    // tasks that max_memory has room for
}

const (
	// Two tasks on two cores that the servers share cost as much CPU as one, and use what one
	// leaves idle while it waits; more add nothing.
	manyParts = 16 // from so many on each is small beside its commits, which wait for disks
	manyTasks = 3  // are then worth having on few cores too; ten connections are enough for them
)

// decideTasks returns how many tasks run at a time, and why so many.
func decideTasks(f taskFacts) (n int, reason string) {
	n, reason = max(1, f.Asked), "one per core"
	switch {
	case f.Pinned != "":
		reason = f.Pinned
	case !f.Tune:
		reason = "one per core, autotune is off"
	default:
		if f.Parts >= manyParts && n < manyTasks {
			n, reason = manyTasks, fmt.Sprintf("%d parts: some work while others wait for a commit", f.Parts)
		}
		if f.Room > 0 && f.Room/2 < n {
			n, reason = max(1, f.Room/2), fmt.Sprintf("connections left at the server: %d, half of them for others", f.Room)
		}
	}
	if f.Parts > 0 && f.Parts < n {
		n, reason = f.Parts, "no more parts than that"
	}
	if f.Fit < n {
		n, reason = max(1, f.Fit), "max_memory has no room for more"
	}
	return n, reason
}

// Batches of 4,096 to 16,384 rows are equally fast; what is above a few MiB only takes memory.
const (
	batchRowsLeast = 4096
	batchBytesGood = 4 << 20
)

// decideRows returns how many rows a batch has at most, by the width of a row in bytes.
func decideRows(width int64, tune bool) (n int64, reason string) {
	switch {
	case !tune:
		return batchRowsBest, "autotune is off"
	case width*batchRowsBest <= batchBytesGood:
		return batchRowsBest, fmt.Sprintf("rows of about %d bytes", width)
	}
	return max(batchRowsLeast, batchBytesGood/width), fmt.Sprintf("rows of about %d bytes", width)
}

// widthOf guesses the width of a row by its schema.
func widthOf(s *arrow.Schema) (n int64) {
	const text = 24 // bytes of a value without a fixed width
	for _, f := range s.Fields() {
		if w, ok := f.Type.(arrow.FixedWidthDataType); ok {
			n += int64(max(1, w.Bytes()))
		} else {
			n += text
		}
	}
	return max(1, n)
}

// tune decides when the plan is known, before anything moves.
func (a *Actor) tune(loads []planned, room int) {
	r := &a.cfg.Spec.Resources
	hops := 1 + len(a.cfg.Spec.Transforms)
	facts := taskFacts{Asked: r.Tasks, Pinned: r.Pinned, Tune: r.Tune, Room: room}
	var width int64
	for _, l := range loads {
		facts.Parts += len(l.load.Parts)
		for _, s := range l.reads {
			width = max(width, widthOf(s.Schema))
		}
	}
	if facts.Parts == 0 {
		return // nothing moves
	}
	fits := *r
	fits.Tasks = max(r.Tasks, manyTasks)
	facts.Fit = fits.tasks(hops)
	tasks, why := decideTasks(facts)
	a.decide("tasks", fmt.Sprintf("%d at a time", tasks), why)
	r.Tasks, a.board.slots = tasks, tasks
	rows, why := decideRows(width, r.Tune)
	_, limits := r.budget(hops)
	r.BatchRows = rows
	a.decide("batch", fmt.Sprintf("at most %d rows, %s", rows, connectors.ByteSize(limits.BatchBytes)), why)
}

// decide keeps a decision for the report.
func (a *Actor) decide(what, value, reason string) {
	a.decisions = append(a.decisions, messages.Decision{What: what, Value: value, Reason: reason})
	a.observe(messages.Event{Kind: messages.EventNote, Message: what + ": " + value + " (" + reason + ")"})
}

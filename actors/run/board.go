package run

import (
	"slices"
	"time"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/mutant"
)

// board decides which parts run when: attempts, retries, drains, endings. It is a
// pure machine: methods are events, what they return is to be done, in order. Time
// and actors are its owner's.
type board struct {
	epoch    messages.Epoch
	attempt  messages.Attempt // the last one given out
	slots    int              // tasks at once
	retries  int              // per part, in a row
	jitter   func() float64   // in [0, 1)
	tasks    []*task          // in plan order
	failed   map[string]bool  // loads that will not finish, by name
	draining bool             // on request: nothing new starts
	aborting bool             // a failure that concerns the whole run
}

type taskState uint8

const (
	taskWaiting taskState = iota // for a slot, or for the parts in After
	taskRunning                  // its actors live
	taskLeaving                  // its actors are being stopped
	taskBackoff                  // for its timer
	taskDone                     // final, and persisted
	taskRested                   // stopped at a committed position; resumes another time
	taskFailed
)

type task struct {
	part    connectors.Part
	state   taskState
	then    taskState // of taskLeaving: what follows
	token   messages.Token
	delay   time.Duration // of a coming backoff
	ended   *messages.TaskEnded
	saved   messages.Seq      // the highest persisted barrier of the attempt
	at      messages.Position // that it covers, or that the attempt began from
	final   bool              // the final receipt is persisted
	retry   Retry
	tries   int // attempts that were given up
	failure messages.Failure
}

// What the board wants done.
type (
	spawnTask struct {
		part  connectors.Part
		token messages.Token
	}
	// stopTask ends the attempt's actors; gone must follow.
	stopTask struct {
		part  messages.PartID
		token messages.Token
	}
	drainTask struct {
		part  messages.PartID
		token messages.Token
	}
	wakeTask struct {
		part  messages.PartID
		token messages.Token // the attempt that failed
		delay time.Duration
	}
	retrying struct {
		part    messages.PartID
		failure messages.Failure
		delay   time.Duration
	}
	taskGaveUp struct {
		part    messages.PartID
		load    string
		failure messages.Failure
	}
)

func newBoard(epoch messages.Epoch, attempt messages.Attempt, slots, retries int, jitter func() float64) *board {
	return &board{
		epoch: epoch, attempt: attempt, slots: max(1, slots), retries: retries, jitter: jitter,
		failed: map[string]bool{},
	}
}

// add plans a part; final says that its last receipt is at the destination already.
func (b *board) add(p connectors.Part, final bool) {
	t := &task{part: p, retry: Retry{Max: b.retries}}
	if final {
		t.state = taskDone
	}
	t.final = final
	b.tasks = append(b.tasks, t)
}

// start fills free slots.
func (b *board) start() []any {
	var out []any
	if b.draining || b.aborting {
		return nil
	}
	active := 0
	for _, t := range b.tasks {
		if t.state == taskRunning || t.state == taskLeaving {
			active++
		}
	}
	for _, t := range b.tasks {
		if active >= b.slots {
			break
		}
		if t.state != taskWaiting || b.failed[t.part.Load.Name] || !b.ready(t) {
			continue
		}
		if t.token == (messages.Token{}) || !mutant.On(mutant.NoAttempt) {
			b.attempt++
			t.token = messages.Token{Epoch: b.epoch, Attempt: b.attempt}
		}
		t.state, t.ended, t.saved = taskRunning, nil, 0
		active++
		out = append(out, spawnTask{part: t.part, token: t.token})
	}
	return out
}

// ready reports whether every part in After is final and persisted.
func (b *board) ready(t *task) bool {
	for _, id := range t.part.After {
		if o := b.find(id); o != nil && !o.final {
			return false
		}
	}
	return true
}

// onOpened: OpenWriter returned. There is nothing to read if the receipt is final,
// or if the run is to stop.
func (b *board) onOpened(m messages.Opened) (resume bool, out []any) {
	t := b.running(m.Receipt.Part, m.Token)
	switch {
	case t == nil || m.Receipt.Final:
		return false, nil
	case b.draining || b.failed[t.part.Load.Name]:
		return false, b.leave(t, taskRested)
	}
	t.at = m.Receipt.Position
	return true, nil
}

// onEnded: the drain or end barrier is committed.
func (b *board) onEnded(m messages.TaskEnded) []any {
	if t := b.running(m.Part, m.Token); t != nil {
		t.ended = &m
		return b.settle(t)
	}
	return nil
}

// onPersisted: a barrier of the attempt is in the state store.
func (b *board) onPersisted(m messages.CheckpointCommitted) []any {
	t := b.running(m.Part, m.Token)
	if t == nil {
		return nil
	}
	t.saved = max(t.saved, m.Seq)
	if !m.Position.Equal(t.at) { // a commit without rows, for its time, is none
		t.at = m.Position
		t.retry.Progressed()
	}
	return b.settle(t)
}

// onFinal: the part's final receipt is in the state store. That of the load before may
// be heard of late, when it was repaired: the part goes by the same name.
func (b *board) onFinal(p messages.PartID, of messages.LoadID) []any {
	t := b.find(p)
	if t == nil || t.final || t.part.Load != of {
		return nil
	}
	t.final = true
	switch t.state {
	case taskRunning:
		return b.leave(t, taskDone)
	case taskLeaving:
		t.then = taskDone
	case taskWaiting, taskBackoff, taskDone, taskRested, taskFailed:
		t.state = taskDone
		return b.start() // those that waited for it
	}
	return nil
}

// settle ends an attempt whose last barrier is persisted: nothing before that.
func (b *board) settle(t *task) []any {
	if t.ended == nil || t.saved < t.ended.Seq && !mutant.On(mutant.EndBeforeSaved) {
		return nil
	}
	if t.ended.Kind == messages.BarrierEnd {
		return nil // onFinal follows
	}
	return b.leave(t, taskRested)
}

func (b *board) leave(t *task, then taskState) []any {
	t.state, t.then = taskLeaving, then
	return []any{stopTask{part: t.part.ID, token: t.token}}
}

// onFailed: a stage of the attempt gave up.
func (b *board) onFailed(m messages.StageFailed) []any {
	t := b.running(m.Part, m.Token)
	if t == nil {
		return nil // of an attempt that is being ended already: the first cause won
	}
	t.failure = m.Failure
	t.tries++
	if b.draining || b.aborting || b.failed[t.part.Load.Name] {
		out := b.leave(t, taskRested)
		if !Retryable(m.Failure) {
			t.then = taskFailed
			out = append(out, b.giveUp(t)...)
		}
		return out
	}
	delay, again := t.retry.Failed(m.Failure, time.Duration(m.RetryAfter), b.jitter())
	if again {
		t.delay = delay
		return append(b.leave(t, taskBackoff), retrying{part: t.part.ID, failure: m.Failure, delay: delay})
	}
	return append(b.leave(t, taskFailed), b.giveUp(t)...)
}

// giveUp fails the load; its other parts stop at a committed position.
func (b *board) giveUp(t *task) []any {
	name := t.part.Load.Name
	out := []any{taskGaveUp{part: t.part.ID, load: name, failure: t.failure}}
	b.failed[name] = true
	return append(out, b.rest(func(o *task) bool { return o.part.Load.Name == name })...)
}

// failLoad gives a load up for a reason outside its tasks.
func (b *board) failLoad(name string) []any {
	b.failed[name] = true
	return b.rest(func(o *task) bool { return o.part.Load.Name == name })
}

// drain stops everything at the next committed position.
func (b *board) drain() []any {
	b.draining = true
	return b.rest(func(*task) bool { return true })
}

// abort stops everything at once; what is committed stays.
func (b *board) abort() []any {
	b.aborting = true
	var out []any
	for _, t := range b.tasks {
		switch t.state {
		case taskWaiting, taskBackoff:
			t.state = taskRested
		case taskRunning:
			out = append(out, b.leave(t, taskRested)...)
		case taskLeaving:
			if t.then == taskBackoff {
				t.then = taskRested
			}
		case taskDone, taskRested, taskFailed:
		}
	}
	return out
}

func (b *board) rest(which func(*task) bool) []any {
	var out []any
	for _, t := range b.tasks {
		if !which(t) {
			continue
		}
		switch t.state {
		case taskWaiting, taskBackoff:
			t.state = taskRested
		case taskRunning:
			out = append(out, drainTask{part: t.part.ID, token: t.token})
		case taskLeaving:
			if t.then == taskBackoff {
				t.then = taskRested
			}
		case taskDone, taskRested, taskFailed:
		}
	}
	return out
}

// onGone: every actor of the attempt has terminated, so it has no more effects.
func (b *board) onGone(p messages.PartID, k messages.Token) []any {
	t := b.find(p)
	if t == nil || t.token != k || t.state != taskLeaving {
		return nil
	}
	t.state = t.then
	if t.state == taskBackoff {
		return append([]any{wakeTask{part: p, token: k, delay: t.delay}}, b.start()...)
	}
	return b.start()
}

// onWake: the backoff is over.
func (b *board) onWake(p messages.PartID, k messages.Token) []any {
	t := b.find(p)
	if t == nil || t.token != k || t.state != taskBackoff {
		return nil
	}
	t.state = taskWaiting
	return b.start()
}

// idle reports whether nothing runs, leaves or may start: no event will change a task.
// A part that waits for others when all of them are at rest waits in vain.
func (b *board) idle() bool {
	return !slices.ContainsFunc(b.tasks, func(t *task) bool {
		switch t.state {
		case taskWaiting:
			return !b.failed[t.part.Load.Name] && b.ready(t)
		case taskRunning, taskLeaving, taskBackoff:
			return true
		case taskDone, taskRested, taskFailed:
		}
		return false
	})
}

// paused reports whether every part of a load that is not final came to rest at a
// drain barrier of its own: the stream goes on with the next run.
func (b *board) paused(name string) bool {
	return !slices.ContainsFunc(b.tasks, func(t *task) bool {
		return t.part.Load.Name == name && !t.final && (t.state != taskRested || t.ended == nil)
	})
}

func (b *board) find(p messages.PartID) *task {
	i := slices.IndexFunc(b.tasks, func(t *task) bool { return t.part.ID == p })
	if i < 0 {
		return nil
	}
	return b.tasks[i]
}

// running returns the task if that attempt is the one that runs.
func (b *board) running(p messages.PartID, k messages.Token) *task {
	t := b.find(p)
	if t == nil || t.token != k || t.state != taskRunning {
		return nil
	}
	return t
}

package flow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"

	"github.com/asynkron/protoactor-go/actor"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// Wire tells a stage who its neighbours are. It is the first message it gets.
type Wire struct {
	Up         *actor.PID // receives Demand; nil for the source
	Down       *actor.PID // receives items; nil for the destination
	Checkpoint *actor.PID // receives acks; the destination's only
	Owner      *actor.PID // receives Opened, TaskEnded, StageFailed, StageStatus
}

// ErrStopped is the cause with which an actor cancels its worker.
var ErrStopped = errors.New("the attempt was ended")

// Props returns the props an actor of the tree is spawned with, one actor per props.
// A panic reaches the supervisor as an error with the stack of where it happened. One
// of an actor that is stopping is recovered: in Stopping it would resurrect the actor,
// and later it would keep its parent waiting for ever.
func Props(produce func() actor.Actor, opts ...actor.PropsOption) *actor.Props {
	return actor.PropsFromProducer(produce, append([]actor.PropsOption{actor.WithReceiverMiddleware(guard)}, opts...)...)
}

func guard(next actor.ReceiverFunc) actor.ReceiverFunc {
	stopping := false
	return func(c actor.ReceiverContext, env *actor.MessageEnvelope) {
		switch env.Message.(type) {
		case *actor.Stopping, *actor.Restarting:
			stopping = true
		case *actor.Started:
			stopping = false
		}
		defer func() {
			r := recover()
			switch {
			case r == nil:
			case stopping:
				c.Logger().Error("panic while stopping", slog.String("actor", c.Self().Id), slog.Any("panic", PanicError(r)))
			default:
				panic(PanicError(r)) // its supervisor decides
			}
		}()
		next(c, env)
	}
}

// Worker is the one goroutine of an actor that may block.
type Worker struct {
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when the goroutine has returned
}

// Go starts fn. A panic of fn reaches failed as an error.
func Go(fn func(ctx context.Context), failed func(error)) *Worker {
	ctx, cancel := context.WithCancelCause(context.Background())
	w := &Worker{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		if err := Protect(func() error { fn(ctx); return nil }); err != nil {
			failed(err)
		}
	}()
	return w
}

// Stop cancels the goroutine and waits until it has returned: afterwards it has
// no more side effects. Connectors return when their context ends.
func (w *Worker) Stop() {
	if w == nil {
		return
	}
	w.cancel(ErrStopped)
	<-w.done
}

// Protect runs fn and turns a panic into an error that is retried like a crash.
func Protect(fn func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = PanicError(r)
		}
	}()
	return fn()
}

// PanicError describes a recovered panic, with its stack. Call it where it was
// recovered; what it made of a panic once it leaves as it is.
func PanicError(r any) error {
	if e, ok := r.(*connectors.Error); ok && e.Code == messages.CodePanic {
		return e
	}
	return &connectors.Error{
		Op: "run stage", Kind: connectors.KindInternal, Commit: connectors.CommitUnknown, Code: messages.CodePanic,
		Err: fmt.Errorf("panic: %v\n%s", r, debug.Stack()),
	}
}

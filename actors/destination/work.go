package destination

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"rapidbyte.io/node/actors/flow"
	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/mutant"
)

// work is the worker goroutine's side: it alone touches the writer.
type work struct {
	cfg    Config
	jobs   <-chan messages.Item
	report func(any)
	writer connectors.Writer
	last   messages.Receipt              // of the last commit, or as opened
	told   []string                      // what was explained already; at most explainedMax
	ack    func(messages.DestinationAck) // of a planted fault only
}

func (k *work) run(ctx context.Context) {
	w, r, err := k.cfg.Session.OpenWriter(ctx, k.cfg.Task.Part, k.cfg.Task.Token)
	if err != nil {
		if ctx.Err() == nil {
			k.report(jobDone{err: err})
		}
		return
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		_ = w.Close(closing) // gives up what is not committed; that is read again
	}()
	if err := k.checkOpened(r); err != nil {
		k.report(jobDone{err: err})
		return
	}
	k.writer, k.last = w, r
	k.report(k.opened(r))
	k.explain()
	for {
		select {
		case <-ctx.Done():
			return
		case item := <-k.jobs:
			d := jobDone{item: item}
			if rows := flow.RowsOf(item); rows != nil {
				d.bytes, d.rows = max(1, rows.Bytes()), rows.Len()
			}
			d.err = flow.Protect(func() (err error) { d.receipt, err = k.do(ctx, item); return err })
			if d.err != nil && ctx.Err() != nil {
				return // the attempt was ended; whoever ended it knows why
			}
			if rows := flow.RowsOf(item); rows != nil && mutant.On(mutant.NoLatch) {
				d.err = nil
			}
			k.report(d)
			if d.err != nil {
				return // latched: nothing is written or committed over a hole
			}
			if _, committed := item.(messages.Barrier); committed {
				k.explain()
			}
		}
	}
}

// opened tells how the part stands and how its rows are to come.
func (k *work) opened(r messages.Receipt) opened {
	out := opened{receipt: r, raw: k.cfg.Task.Part.Raw}
	if out.raw == "" {
		return out
	}
	taker, ok := k.writer.(connectors.RawTaker)
	if !ok {
		return opened{receipt: r}
	}
	if out.why = taker.TakesRaw(); out.why != "" {
		out.raw = ""
	}
	return out
}

func (k *work) do(ctx context.Context, item messages.Item) (messages.Receipt, error) {
	switch m := item.(type) {
	case messages.Barrier:
		return k.commit(ctx, m)
	case messages.Batch:
		return messages.Receipt{}, k.write(ctx, m)
	case messages.Rejected:
		return messages.Receipt{}, k.write(ctx, m)
	case messages.SchemaChange:
		return messages.Receipt{}, k.writer.Write(ctx, m)
	case messages.Truncate:
		return messages.Receipt{}, k.writer.Write(ctx, m)
	}
	return messages.Receipt{}, nil
}

// write takes the rows out of the register and moves them into the writer.
func (k *work) write(ctx context.Context, d messages.Data) error {
	if !k.cfg.Register.Take(k.cfg.Hop, flow.StampOf(d).Seq) {
		return errors.New("the attempt is over")
	}
	return k.writer.Write(ctx, d)
}

func (k *work) commit(ctx context.Context, b messages.Barrier) (messages.Receipt, error) {
	// A process that was frozen past its lease must not begin what it would lose. That it
	// cannot win is the fence's work (I4).
	if err := flow.Held(k.cfg.Hold, "commit"); err != nil {
		return messages.Receipt{}, err
	}
	if mutant.On(mutant.SaveBeforeCommit) {
		r := k.last
		r.Version.Commit++
		r.Token, r.Position, r.Final = k.cfg.Task.Token, b.Position, b.Kind == messages.BarrierEnd
		k.ack(messages.DestinationAck{Pipeline: k.cfg.Task.Pipeline, Seq: b.Seq, Receipt: r})
	}
	r, err := k.writer.Commit(ctx, b)
	if err != nil {
		return r, err
	}
	if err := k.checkCommitted(b, r); err != nil {
		return r, err
	}
	k.last = r
	return r, nil
}

// explainedMax bounds the lines that one attempt can show.
const explainedMax = 32

// explain reports decisions of the session and the writer that are new.
func (k *work) explain() {
	var lines []string
	for _, v := range []any{k.cfg.Session, k.writer} {
		e, ok := v.(connectors.Explainer)
		if !ok {
			continue
		}
		for _, line := range e.Explain() {
			if len(k.told) < explainedMax && !slices.Contains(k.told, line) {
				k.told, lines = append(k.told, line), append(lines, line)
			}
		}
	}
	if len(lines) > 0 {
		k.report(explained{lines: lines})
	}
}

// checkOpened asserts what OpenWriter promises.
func (k *work) checkOpened(r messages.Receipt) error {
	t := k.cfg.Task
	if r.Part != t.Part.ID || r.LoadID() != t.Part.Load || r.Token.Compare(t.Token) > 0 {
		return broken("open writer", fmt.Errorf("the receipt is of part %q, load %v, written by %v; want %q, %v, at most %v",
			r.Part, r.LoadID(), r.Token, t.Part.ID, t.Part.Load, t.Token))
	}
	return nil
}

// checkCommitted asserts what Commit promises, before anybody believes it (I1).
func (k *work) checkCommitted(b messages.Barrier, r messages.Receipt) error {
	want := messages.Version{Load: k.last.Version.Load, Commit: k.last.Version.Commit + 1}
	switch {
	case r.Part != k.cfg.Task.Part.ID || r.Token != k.cfg.Task.Token:
		return broken("commit", fmt.Errorf("the receipt is of part %q and token %v", r.Part, r.Token))
	case r.Version != want:
		return broken("commit", fmt.Errorf("the receipt has version %v, want %v", r.Version, want))
	case !r.Position.Equal(b.Position):
		return broken("commit", errors.New("the receipt has another position than the barrier"))
	case r.Final != (b.Kind == messages.BarrierEnd):
		return broken("commit", fmt.Errorf("the receipt says final %t behind a barrier of kind %d", r.Final, b.Kind))
	case r.Rows.Arrived != r.Rows.Applied+r.Rows.Rejected: // I7
		return broken("commit", fmt.Errorf("%d rows arrived, %d were applied and %d rejected", r.Rows.Arrived, r.Rows.Applied, r.Rows.Rejected))
	}
	return nil
}

// broken reports a connector that does not keep its contract.
func broken(op string, err error) error {
	return &connectors.Error{Op: op, Kind: connectors.KindInternal, Commit: connectors.CommitUnknown, Err: err}
}

// closeTimeout bounds giving up what a writer holds.
const closeTimeout = 5 * time.Second

package conntest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

const (
	pipeline = messages.PipelineID("conntest")
	store    = "conntest-store"
	promptly = 10 * time.Second // within which a cancelled call must return
)

// destRig plays the engine against one target.
type destRig struct {
	Target
	t        T
	ctx      context.Context //nolint:containedctx // of the check, which this is a part of
	f        DestinationFactory
	mem      *memory.CheckedAllocator
	mode     connectors.WriteMode // of loads that do not care: append, else upsert
	opened   []messages.Epoch     // with open; again is a further session of the same owner
	sessions []connectors.Session
	writers  []connectors.Writer
}

func newDestRig(t T, f DestinationFactory) *destRig {
	r := &destRig{t: t, ctx: t.Context(), f: f, mem: checked(t), mode: connectors.ModeAppend}
	if !r.supports(connectors.ModeAppend) {
		r.mode = connectors.ModeUpsert
	}
	r.Target = f.New(t)
	t.Cleanup(r.closeAll)
	return r
}

func (r *destRig) supports(m connectors.WriteMode) bool { return slices.Contains(r.f.Modes, m) }

// closeAll closes writers and sessions, as the engine does at the end of an attempt.
func (r *destRig) closeAll() {
	ctx := context.WithoutCancel(r.ctx)
	for _, w := range r.writers {
		_ = w.Close(ctx)
	}
	for _, s := range r.sessions {
		_ = s.Close(ctx)
	}
	r.writers, r.sessions = nil, nil
}

// restart stands for the next process: a new value on the same target.
func (r *destRig) restart() connectors.Destination {
	r.t.Helper()
	if r.f.Exclusive {
		r.closeAll()
	}
	if r.f.Forgets {
		return r.Destination
	}
	return r.Reopen(r.t)
}

func (r *destRig) request(epoch messages.Epoch) connectors.SessionRequest {
	return connectors.SessionRequest{Pipeline: pipeline, Epoch: epoch, Store: store}
}

// open opens a session with d.
func (r *destRig) open(d connectors.Destination, epoch messages.Epoch) connectors.Session {
	r.t.Helper()
	request := r.request(epoch)
	request.Join = slices.Contains(r.opened, epoch)
	s, err := d.Open(r.ctx, request)
	require.NoError(r.t, err, "open a session of epoch %d", epoch)
	r.opened = append(r.opened, epoch)
	r.sessions = append(r.sessions, s)
	return s
}

// load plans a load of one Numbers stream; the target has the stream's name.
func (r *destRig) load(number uint64, mode connectors.WriteMode, stream messages.StreamID, parts int) connectors.Load {
	plan := Numbers(stream, 0).plan()
	plan.Target = string(stream)
	l := connectors.Load{
		ID: messages.LoadID{Name: string(stream), Number: number}, Mode: mode, Streams: []connectors.StreamPlan{plan},
		Identity: "origin-1", History: json.RawMessage(fmt.Sprintf(`{"pass":%d}`, number)),
	}
	for i := range parts {
		l.Parts = append(l.Parts, connectors.Part{
			ID: messages.PartID(fmt.Sprintf("%s/%d", stream, i)), Load: l.ID, Streams: []messages.StreamID{stream},
			Split: json.RawMessage(fmt.Sprintf(`{"from":%d}`, i)), Rows: 100,
		})
	}
	return l
}

// begun opens a session of epoch 1 and begins a load of one part of stream orders.
func (r *destRig) begun(mode connectors.WriteMode) (connectors.Session, connectors.Load) {
	r.t.Helper()
	s := r.open(r.Destination, 1)
	l := r.load(1, mode, "orders", 1)
	require.NoError(r.t, s.Begin(r.ctx, l), "begin load 1")
	return s, l
}

// writer opens a writer for a part.
func (r *destRig) writer(s connectors.Session, p connectors.Part, epoch messages.Epoch, attempt messages.Attempt) (connectors.Writer, messages.Receipt) {
	r.t.Helper()
	w, receipt, err := s.OpenWriter(r.ctx, p, messages.Token{Epoch: epoch, Attempt: attempt})
	require.NoError(r.t, err, "open a writer of %s, attempt %d", p.ID, attempt)
	r.writers = append(r.writers, w)
	return w, receipt
}

// batch returns rows of a Numbers stream as an item; the caller owns them.
func (r *destRig) batch(stream messages.StreamID, rows [][]any) messages.Batch {
	r.t.Helper()
	rec, err := Build(r.mem, Numbers(stream, 0).Schema, rows)
	require.NoError(r.t, err)
	return messages.Batch{Stream: stream, Version: 1, Rows: messages.ArrowRows{Record: rec}}
}

// write gives rows of stream orders to w and requires success.
func (r *destRig) write(w connectors.Writer, rows [][]any) {
	r.t.Helper()
	require.NoError(r.t, w.Write(r.ctx, r.batch("orders", rows)), "write a batch")
}

// commit commits n rows at position at and requires success.
func (r *destRig) commit(w connectors.Writer, kind messages.BarrierKind, at, n int64) messages.Receipt {
	r.t.Helper()
	receipt, err := w.Commit(r.ctx, barrier(kind, at, n))
	require.NoError(r.t, err, "commit at %d", at)
	return receipt
}

func barrier(kind messages.BarrierKind, at, rows int64) messages.Barrier {
	return messages.Barrier{Kind: kind, Position: messages.Position{At: messages.Int64Cursor(at)}, Rows: rows}
}

// sees requires that a reader of target sees exactly want.
func (r *destRig) sees(target string, want []string, when string) {
	r.t.Helper()
	if r.Rows != nil {
		sameRows(r.t, want, r.Rows(r.t, target), when)
	}
}

// fenced requires that err says that a younger writer exists.
func fenced(t T, err error, what string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: want it fenced, it succeeded", what)
		return
	}
	if k := connectors.KindOf(err); k != connectors.KindFenced {
		t.Errorf("%s: want an error of kind fenced, got %s: %v", what, k, err)
	}
}

// refused requires a typed refusal: the fault is in what was asked, not in us.
func refused(t T, err error, what string) {
	t.Helper()
	switch k := connectors.KindOf(err); k {
	case connectors.KindConfig, connectors.KindSchema, connectors.KindData:
	default:
		t.Errorf("%s: want an error of kind config, schema or data, got %s: %v", what, k, err)
	}
}

// texts returns rows as RowText.
func texts(rows [][]any) []string {
	out := make([]string, len(rows))
	for i, row := range rows {
		values := make([]string, len(row))
		for c, v := range row {
			values[c] = Text(v)
		}
		out[i] = Join(values...)
	}
	return out
}

// returns runs f and reports whether it came back soon.
func returns(t T, what string, f func()) bool {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	timer := time.NewTimer(promptly)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		t.Errorf("%s did not return within %s", what, promptly)
		return false
	}
}

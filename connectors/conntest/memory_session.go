package conntest

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/apache/arrow-go/v18/arrow"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// memorySession is one owner's access.
type memorySession struct {
	dest   *MemoryDestination
	owner  *memoryOwner
	epoch  messages.Epoch
	found  connectors.Recovered
	closed bool
}

// fenced reports a younger owner. The destination is locked.
func (s *memorySession) fenced() error {
	if s.owner.epoch > s.epoch && !s.dest.flaws.anyEpoch {
		return &connectors.FencedError{Registered: messages.Token{Epoch: s.owner.epoch}}
	}
	return nil
}

// Recovered implements connectors.Session.
func (s *memorySession) Recovered() connectors.Recovered { return s.found }

// Close implements connectors.Session. Open writers stay; each is closed by who
// has it.
func (s *memorySession) Close(context.Context) error {
	s.dest.mu.Lock()
	defer s.dest.mu.Unlock()
	if !s.closed {
		s.closed = true
		s.owner.alive--
	}
	return nil
}

// checkLoad looks for what cannot be begun.
func checkLoad(l connectors.Load) *connectors.Error {
	fail := func(kind connectors.Kind, code messages.Code, s connectors.StreamPlan, field, format string, args ...any) *connectors.Error {
		return &connectors.Error{
			Op: "begin load " + l.ID.Name, Kind: kind, Code: code,
			Place: messages.Place{Stream: s.Stream, Field: field}, Err: fmt.Errorf(format, args...),
		}
	}
	for _, s := range l.Streams {
		switch l.Mode {
		case connectors.ModeAppend, connectors.ModeReplace:
		case connectors.ModeUpsert:
			if len(s.Key) == 0 {
				return fail(connectors.KindConfig, messages.CodeDocMissing, s, "", "an upsert needs a primary key")
			}
		default:
			return fail(connectors.KindConfig, messages.CodeDocValue, s, "", "unknown write mode %q", l.Mode)
		}
		for _, k := range s.Key {
			if !s.Schema.HasField(k) {
				return fail(connectors.KindSchema, messages.CodeSchemaColumn, s, k, "there is no key column %q", k)
			}
		}
		for _, f := range s.Schema.Fields() {
			if _, odd := f.Type.(arrow.UnionType); odd {
				return fail(connectors.KindSchema, messages.CodeSchemaType, s, f.Name, "column %q is a union", f.Name)
			}
		}
	}
	return nil
}

// Begin implements connectors.Session.
func (s *memorySession) Begin(ctx context.Context, l connectors.Load) error {
	c := Call{N: s.dest.calls.next("begin"), Load: l.ID, Token: messages.Token{Epoch: s.epoch}}
	if err := s.dest.BeginFn.do(ctx, c); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := checkLoad(l); err != nil {
		return err
	}
	s.dest.mu.Lock()
	defer s.dest.mu.Unlock()
	if err := s.fenced(); err != nil {
		return err
	}
	if old := s.owner.loads[l.ID.Name]; old != nil {
		if old.plan.ID == l.ID {
			return nil
		}
		if old.plan.ID.Number > l.ID.Number {
			return &connectors.Error{Op: "begin load " + l.ID.Name, Kind: connectors.KindInternal, Err: fmt.Errorf("load %d is already there, this is %d", old.plan.ID.Number, l.ID.Number)}
		}
	}
	load := &memoryLoad{plan: l, staging: make(map[string]*memoryTable), parts: make(map[messages.PartID]*memoryPart)}
	for _, st := range l.Streams {
		if s.dest.tables[st.Target] == nil {
			s.dest.tables[st.Target] = newMemoryTable()
		}
		load.staging[st.Target] = newMemoryTable()
	}
	for _, p := range l.Parts {
		p.Load = l.ID
		load.parts[p.ID] = &memoryPart{part: p, receipt: messages.Receipt{
			Part: p.ID, Load: l.ID.Name, Version: messages.Version{Load: l.ID.Number}, Token: messages.Token{Epoch: s.epoch},
		}}
	}
	if old := s.owner.loads[l.ID.Name]; old != nil && s.dest.flaws.keepReceipts {
		load.parts = old.parts
	}
	s.owner.loads[l.ID.Name] = load
	return nil
}

// OpenWriter implements connectors.Session. A commit is atomic here, so the fate
// of the last one is always known.
func (s *memorySession) OpenWriter(ctx context.Context, p connectors.Part, t messages.Token) (connectors.Writer, messages.Receipt, error) {
	c := Call{N: s.dest.calls.next("open writer"), Load: p.Load, Part: p.ID, Token: t}
	if err := s.dest.OpenWriterFn.do(ctx, c); err != nil {
		return nil, messages.Receipt{}, err
	}
	if ctx.Err() != nil {
		return nil, messages.Receipt{}, context.Cause(ctx)
	}
	s.dest.mu.Lock()
	defer s.dest.mu.Unlock()
	if err := s.fenced(); err != nil {
		return nil, messages.Receipt{}, err
	}
	load := s.owner.loads[p.Load.Name]
	if load == nil || load.plan.ID.Number < p.Load.Number || load.plan.ID == p.Load && load.parts[p.ID] == nil {
		return nil, messages.Receipt{}, &connectors.Error{Op: "open writer of " + string(p.ID), Kind: connectors.KindInternal, Err: errors.New("its load was not begun")}
	}
	if load.plan.ID != p.Load {
		return nil, messages.Receipt{}, &connectors.FencedError{Registered: messages.Token{Epoch: s.owner.epoch}}
	}
	part := load.parts[p.ID]
	if t.Compare(part.fence) < 0 || t.Epoch < s.owner.epoch {
		return nil, messages.Receipt{}, &connectors.FencedError{Registered: part.fence}
	}
	w := &memoryWriter{session: s, load: load, part: part, token: t}
	part.fence, part.writer = t, w
	return w, part.receipt, nil
}

// Finish implements connectors.Session.
func (s *memorySession) Finish(ctx context.Context, id messages.LoadID) error {
	c := Call{N: s.dest.calls.next("finish"), Load: id, Token: messages.Token{Epoch: s.epoch}}
	if err := s.dest.FinishFn.do(ctx, c); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := s.finish(id); err != nil {
		return err
	}
	return s.dest.FinishedFn.do(ctx, c)
}

func (s *memorySession) finish(id messages.LoadID) error {
	s.dest.mu.Lock()
	defer s.dest.mu.Unlock()
	if err := s.fenced(); err != nil {
		return err
	}
	refuse := func(format string, args ...any) error {
		return &connectors.Error{Op: "finish load " + id.Name, Kind: connectors.KindInternal, Err: fmt.Errorf(format, args...)}
	}
	load := s.owner.loads[id.Name]
	if load == nil || load.plan.ID != id {
		return refuse("load %d is not the current one", id.Number)
	}
	if load.finished {
		return nil
	}
	for _, p := range load.parts {
		if !p.receipt.Final && !s.dest.flaws.finishEarly {
			return refuse("part %s is not final", p.part.ID)
		}
	}
	if load.plan.Mode == connectors.ModeReplace && !s.dest.flaws.noStaging {
		maps.Copy(s.dest.tables, load.staging)
	}
	load.finished, load.staging = true, nil
	return nil
}

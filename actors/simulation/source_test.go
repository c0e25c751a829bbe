package simulation_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"

	"rapidbyte.io/node/actors/run"
	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// origin is the simulated source system: what it holds outlives every node.
type origin struct {
	w       *world
	streams []*stream
	scans   int          // taken
	gone    map[int]bool // scans whose snapshot is lost
}

// stream is one table. An append only grows; the others are changed as a whole, from
// one version to the next.
type stream struct {
	id         messages.StreamID
	mode       connectors.WriteMode
	sync       connectors.SyncMode
	endless    bool // incremental: one part that goes on with every scan, else a load per scan
	continuity connectors.Continuity
	after      bool    // each part waits for the one before it
	sizes      []int64 // rows, by version
}

func (st *stream) version() int64 { return int64(len(st.sizes) - 1) }
func (st *stream) size() int64    { return st.sizes[len(st.sizes)-1] }

// split is what a part reads: rows [From, To) of a version; To -1: as far as the scan saw.
type split struct{ From, To, Version int64 }

func splitOf(p connectors.Part) split {
	var s split
	if err := json.Unmarshal(p.Split, &s); err != nil {
		panic(err)
	}
	return s
}

// at returns the number of the next row behind a position.
func (s split) at(p messages.Position) int64 {
	if p.At.IsZero() {
		return s.From
	}
	n, err := p.At.Int64()
	if err != nil {
		panic(err)
	}
	return n
}

// span returns rows [from, to) as the source has them.
func (s split) span(from, to int64) []row {
	out := make([]row, 0, max(0, to-from))
	for id := from; id < to; id++ {
		out = append(out, rowOf(s.Version, id))
	}
	return out
}

var schema = arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}}, nil)

func (st *stream) plan() connectors.StreamPlan {
	return connectors.StreamPlan{Stream: st.id, Schema: schema, Key: []string{"id"}, Target: string(st.id), Rows: st.size()}
}

func (o *origin) stream(id messages.StreamID) *stream {
	i := slices.IndexFunc(o.streams, func(s *stream) bool { return s.id == id })
	return o.streams[i]
}

// change lets a stream grow, or become another version.
func (o *origin) change(st *stream) {
	more := int64(1 + o.w.s.rng.IntN(8))
	if st.mode == connectors.ModeAppend {
		st.sizes[0] += more
		return
	}
	st.sizes = append(st.sizes, max(1, st.size()+more-4))
}

// source is a node's way to the origin. It implements connectors.Source.
type source struct {
	o *origin
	n *node
}

// Check implements connectors.Source.
func (s source) Check(context.Context, []connectors.StreamSpec) ([]connectors.Finding, error) {
	return nil, nil
}

// Discover implements connectors.Source.
func (s source) Discover(context.Context, []connectors.StreamSpec) ([]connectors.Discovered, error) {
	return nil, nil
}

// scan implements connectors.Scan.
type scan struct {
	source

	id   int
	plan connectors.Plan
}

// Plan implements connectors.Scan.
func (c *scan) Plan() connectors.Plan { return c.plan }

// Close implements connectors.Scan.
func (c *scan) Close(ctx context.Context) error {
	return c.n.call(ctx, &op{name: fmt.Sprintf("close scan %d", c.id), fates: []fate{fateFails}, run: func(f fate) error {
		c.o.gone[c.id] = true
		return failure(f, "close scan")
	}})
}

// failure is the error of a call that met f, nil when all went well.
func failure(f fate, what string) error {
	e := &connectors.Error{Op: what, Kind: connectors.KindTransient, Code: messages.CodeSource, Commit: connectors.CommitNone}
	switch f {
	case fateFails:
		e.Err = errSimulated
		return e
	case fateLost, fateNever, fateLate:
		e.Commit, e.Err = connectors.CommitUnknown, errSimulated
		return e
	case fateDone, fatePanic:
	}
	return nil
}

var errSimulated = fmt.Errorf("simulated")

// Scan implements connectors.Source.
func (s source) Scan(ctx context.Context, r connectors.ScanRequest) (connectors.Scan, error) {
	c := &scan{source: s}
	err := s.n.call(ctx, &op{name: "scan", fates: []fate{fateFails, fatePanic}, run: func(f fate) error {
		if err := failure(f, "scan"); err != nil {
			return err
		}
		s.o.scans++
		c.id = s.o.scans
		s.n.scans = append(s.n.scans, c.id)
		c.plan = connectors.Plan{Identity: "origin"}
		for _, spec := range r.Streams {
			s.n.saw[spec.Stream] = s.o.stream(spec.Stream).size()
			l, more := s.o.load(s.o.stream(spec.Stream), c.id, r)
			c.plan.More = c.plan.More || more
			if l != nil {
				c.plan.Loads = append(c.plan.Loads, *l)
			}
		}
		return nil
	}})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// history is what an incremental load remembers: how many rows there were.
type history struct{ Rows int64 }

// load plans one stream; nil: there is nothing new.
func (o *origin) load(st *stream, scan int, r connectors.ScanRequest) (l *connectors.Load, more bool) {
	var before connectors.LoadStatus
	for _, k := range r.Previous.Loads {
		if k.ID.Name == string(st.id) {
			before = k
		}
	}
	var past history
	if before.History != nil {
		if err := json.Unmarshal(before.History, &past); err != nil {
			panic(err)
		}
	}
	l = &connectors.Load{ID: messages.LoadID{Name: string(st.id), Number: before.ID.Number + 1}, Streams: []connectors.StreamPlan{st.plan()}}
	if before.ID.Number > 0 && !before.Finished {
		l.ID, l.Continuity, l.History = before.ID, st.continuity, before.History
		if st.continuity == connectors.ContinueExact || st.mode == connectors.ModeAppend {
			for _, p := range r.Previous.Parts {
				if p.Load == l.ID {
					p.Scan = o.token(scan, st)
					l.Parts = append(l.Parts, p)
				}
			}
			return l, st.sync == connectors.SyncIncremental && !st.endless && past.Rows < st.size()
		}
		l.Parts = o.split(st, l.ID, scan, 0, st.size(), r.Splits)
		return l, false
	}
	from := int64(0)
	if st.sync == connectors.SyncIncremental {
		if st.endless {
			l.Parts = o.split(st, l.ID, scan, 0, -1, 1)
			return l, false
		}
		if from = past.Rows; from == st.size() {
			return nil, false
		}
		l.History, _ = json.Marshal(history{Rows: st.size()})
	}
	l.Parts = o.split(st, l.ID, scan, from, st.size(), r.Splits)
	return l, false
}

// token names a snapshot and how far it goes.
func (o *origin) token(scan int, st *stream) string { return fmt.Sprintf("%d:%d", scan, st.size()) }

func (o *origin) split(st *stream, id messages.LoadID, scan int, from, to int64, n int) []connectors.Part {
	n = int(max(1, min(int64(n), to-from)))
	var out []connectors.Part
	for i := range n {
		sp := split{From: from, To: to, Version: st.version()}
		if n > 1 {
			sp.From, sp.To = from+(to-from)*int64(i)/int64(n), from+(to-from)*int64(i+1)/int64(n)
		}
		raw, _ := json.Marshal(sp)
		p := connectors.Part{
			ID: messages.PartID(fmt.Sprintf("%s/%d", st.id, i)), Load: id, Streams: []messages.StreamID{st.id}, Split: raw, Scan: o.token(scan, st), Raw: "simulation",
		}
		if st.after && i > 0 {
			p.After = []messages.PartID{out[i-1].ID}
		}
		out = append(out, p)
	}
	return out
}

// Open implements connectors.Source.
func (s source) Open(ctx context.Context, r connectors.ReadRequest) (connectors.Reader, error) {
	rd := &reader{source: s, req: r, split: splitOf(r.Part), stream: s.o.stream(r.Part.Streams[0])}
	rd.at = rd.split.at(r.From)
	first, bound, _ := strings.Cut(r.Part.Scan, ":")
	rd.scan, _ = strconv.Atoi(first)
	rd.to = rd.split.To
	if rd.to < 0 {
		rd.to, _ = strconv.ParseInt(bound, 10, 64)
	}
	err := s.n.call(ctx, &op{name: fmt.Sprintf("open reader %s %v", r.Part.ID, r.Token), fates: []fate{fateFails, fatePanic}, run: func(f fate) error {
		if err := failure(f, "open reader"); err != nil {
			return err
		}
		s.n.resumed(r, rd.split)
		return rd.lost()
	}})
	if err != nil {
		return nil, err
	}
	s.n.enter(&s.n.readers, r.Part.ID, "readers")
	return rd, nil
}

// reader implements connectors.Reader and connectors.Confirmer.
type reader struct {
	source

	req    connectors.ReadRequest
	split  split
	stream *stream
	scan   int
	at, to int64
	closed bool
}

// lost reports that the snapshot is gone.
func (r *reader) lost() error {
	if r.o.gone[r.scan] {
		return &connectors.Error{Op: "read", Kind: connectors.KindScanLost, Code: messages.CodeSource, Commit: connectors.CommitNone, Err: errSimulated}
	}
	return nil
}

// Read implements connectors.Reader.
func (r *reader) Read(ctx context.Context, out connectors.Emitter) error {
	for r.at < r.to {
		var ids []row
		err := r.n.call(ctx, &op{name: fmt.Sprintf("read %s %v at %d", r.req.Part.ID, r.req.Token, r.at), fates: []fate{fateFails, fatePanic}, run: func(f fate) error {
			if err := failure(f, "read"); err != nil {
				return err
			}
			n := min(int64(1+r.n.w.s.rng.IntN(3)), r.req.Limits.BatchBytes/rowBytes, r.to-r.at)
			ids = r.split.span(r.at, r.at+n)
			return r.lost()
		}})
		if err != nil {
			return err
		}
		r.at += int64(len(ids))
		batch := messages.Batch{Stream: r.stream.id, Version: 1, Rows: r.n.batch(r.req.Token, r.req.Part.ID, ids)}
		if err := out.Emit(ctx, batch); err != nil {
			return err
		}
		if r.at < r.to && out.Due() {
			if err := out.Barrier(ctx, messages.BarrierPeriodic, r.position()); err != nil {
				return err
			}
		}
	}
	kind := messages.BarrierEnd
	if r.stream.endless {
		kind = messages.BarrierDrain
	}
	return out.Barrier(ctx, kind, r.position())
}

func (r *reader) position() messages.Position {
	return messages.Position{At: messages.Int64Cursor(r.at)}
}

// Confirm implements connectors.Confirmer.
func (r *reader) Confirm(p messages.Position) { r.n.confirmed(r.req.Part, r.split.at(p)) }

// Close implements connectors.Reader.
func (r *reader) Close(ctx context.Context) error {
	if r.closed {
		return nil
	}
	r.closed = true
	defer r.n.leave(&r.n.readers, r.req.Part.ID)
	return r.n.call(ctx, &op{name: fmt.Sprintf("close reader %s %v", r.req.Part.ID, r.req.Token), fates: []fate{fateFails}, run: func(f fate) error {
		return failure(f, "close reader")
	}})
}

// spec returns the stream as the document has it.
func (st *stream) spec() run.Stream {
	return run.Stream{
		StreamSpec: connectors.StreamSpec{Stream: st.id, Sync: st.sync, Mode: st.mode, Key: []string{"id"}},
		Target:     string(st.id), OnLost: run.LostContinue,
	}
}

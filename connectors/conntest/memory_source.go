package conntest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// MemoryStream is one stream of a MemorySource.
type MemoryStream struct {
	Stream messages.StreamID
	Schema *arrow.Schema
	Key    []string
	Rows   [][]any // see Build
}

// Numbers returns a stream with the columns id (int64, the key, from 1) and name
// (text, every seventh missing) and n rows.
func Numbers(stream messages.StreamID, n int) MemoryStream {
	s := MemoryStream{Stream: stream, Key: []string{"id"}, Schema: arrow.NewSchema([]arrow.Field{
		{Name: "id", Type: arrow.PrimitiveTypes.Int64},
		{Name: "name", Type: arrow.BinaryTypes.String, Nullable: true},
	}, nil)}
	s.Rows = NumberRows(1, n)
	return s
}

// NumberRows returns n rows of a Numbers stream, the first with id from.
func NumberRows(from, n int) [][]any {
	rows := make([][]any, n)
	for i := range rows {
		id := from + i
		rows[i] = []any{id, fmt.Sprintf("row %d", id)}
		if id%7 == 0 {
			rows[i][1] = nil
		}
	}
	return rows
}

// MemorySource is a correct source of rows that are held in memory. Position is
// the index of the next row of the stream. A stream with SyncIncremental reads
// only rows that were added since its last finished load; the others read all rows
// again. Unfinished loads are continued exactly.
type MemorySource struct {
	CheckFn  Hook
	ScanFn   Hook
	OpenFn   Hook // Open
	ReadFn   Hook // before each batch, with the batch as Data
	BeforeFn Hook // before each barrier, with its position

	// Follow makes the last part of a stream endless, like a log: the reader waits
	// for rows that Append adds, and ends only by drain. Set before use.
	Follow bool

	// Identity of the origin; empty is "memory".
	Identity string

	calls     counter
	mu        sync.Mutex
	grown     chan struct{} // closed and replaced when rows are added
	streams   map[messages.StreamID]*MemoryStream
	confirmed map[messages.PartID]messages.Position
}

// NewMemorySource returns a source of streams. It keeps their rows.
func NewMemorySource(streams ...MemoryStream) *MemorySource {
	s := &MemorySource{
		grown:     make(chan struct{}),
		streams:   make(map[messages.StreamID]*MemoryStream),
		confirmed: make(map[messages.PartID]messages.Position),
	}
	for _, st := range streams {
		s.streams[st.Stream] = &st
	}
	return s
}

// Append adds rows at the end of a stream.
func (s *MemorySource) Append(stream messages.StreamID, rows ...[]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.streams[stream]
	st.Rows = append(slices.Clip(st.Rows), rows...)
	close(s.grown)
	s.grown = make(chan struct{})
}

// Confirmed returns the position up to which the reader of a part was told to
// forget.
func (s *MemorySource) Confirmed(p messages.PartID) (messages.Position, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pos, ok := s.confirmed[p]
	return pos, ok
}

// Rows returns the rows of a stream as RowText, in order.
func (s *MemorySource) Rows(stream messages.StreamID) []string {
	st, err := s.stream(stream)
	if err != nil {
		return nil
	}
	rec, err := Build(goAllocator, st.Schema, st.Rows)
	if err != nil {
		return nil
	}
	defer rec.Release()
	return RowTexts(rec)
}

// stream returns a copy; its rows are not changed by Append.
func (s *MemorySource) stream(id messages.StreamID) (MemoryStream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, ok := s.streams[id]
	if !ok {
		return MemoryStream{}, &connectors.Error{
			Op: fmt.Sprintf("find stream %q", id), Kind: connectors.KindConfig,
			Code: messages.CodeStreamUnknown, Place: messages.Place{Stream: id},
		}
	}
	return *st, nil
}

// Check implements connectors.Source.
func (s *MemorySource) Check(ctx context.Context, streams []connectors.StreamSpec) ([]connectors.Finding, error) {
	if err := s.CheckFn.do(ctx, Call{N: s.calls.next("check")}); err != nil {
		return nil, err
	}
	var found []connectors.Finding
	for _, spec := range streams {
		if _, err := s.stream(spec.Stream); err != nil {
			found = append(found, connectors.Finding{
				Severity: connectors.SeverityError, Code: messages.CodeStreamUnknown, Message: err.Error(),
			})
		}
	}
	return found, nil
}

// Discover implements connectors.Source.
func (s *MemorySource) Discover(_ context.Context, streams []connectors.StreamSpec) ([]connectors.Discovered, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []connectors.Discovered
	for id, st := range s.streams {
		asked := len(streams) == 0 || slices.ContainsFunc(streams, func(sp connectors.StreamSpec) bool { return sp.Stream == id })
		if asked {
			out = append(out, connectors.Discovered{StreamPlan: st.plan(), Cursors: st.Key})
		}
	}
	slices.SortFunc(out, func(a, b connectors.Discovered) int { return cmp.Compare(a.Stream, b.Stream) })
	return out, nil
}

func (st MemoryStream) plan() connectors.StreamPlan {
	return connectors.StreamPlan{Stream: st.Stream, Schema: st.Schema, Key: st.Key, Rows: int64(len(st.Rows))}
}

// memoryRange is the split of a part: rows [From, To) of its stream.
type memoryRange struct {
	From, To int64
	Follow   bool
}

// memoryHistory is what a load remembers: it was planned when there were so many rows.
type memoryHistory struct{ Rows int64 }

// memoryScan holds nothing.
type memoryScan struct{ plan connectors.Plan }

func (s memoryScan) Plan() connectors.Plan       { return s.plan }
func (s memoryScan) Close(context.Context) error { return nil }

// Scan implements connectors.Source.
func (s *MemorySource) Scan(ctx context.Context, r connectors.ScanRequest) (connectors.Scan, error) {
	if err := s.ScanFn.do(ctx, Call{N: s.calls.next("scan"), Token: messages.Token{Epoch: r.Epoch}}); err != nil {
		return nil, err
	}
	plan := connectors.Plan{Identity: cmp.Or(s.Identity, "memory")}
	for _, spec := range r.Streams {
		st, err := s.stream(spec.Stream)
		if err != nil {
			return nil, err
		}
		load, more, err := s.planLoad(st, spec, r)
		if err != nil {
			return nil, err
		}
		plan.More = plan.More || more
		if load != nil {
			plan.Loads = append(plan.Loads, *load)
		}
	}
	return memoryScan{plan}, nil
}

// planLoad continues the unfinished load of a stream or plans a new one; nil means
// that there is nothing new.
func (s *MemorySource) planLoad(st MemoryStream, spec connectors.StreamSpec, r connectors.ScanRequest) (l *connectors.Load, more bool, err error) {
	known, rows := previous(r.Previous, string(st.Stream)), int64(len(st.Rows))
	var history memoryHistory
	if known.History != nil {
		if err := json.Unmarshal(known.History, &history); err != nil {
			return nil, false, fmt.Errorf("read the history of load %s: %w", known.ID.Name, err)
		}
	}
	load := connectors.Load{
		ID: messages.LoadID{Name: string(st.Stream), Number: known.ID.Number + 1}, Streams: []connectors.StreamPlan{st.plan()},
	}
	if known.ID.Number > 0 && !known.Finished && !spec.Fresh {
		load.ID, load.Continuity, load.History = known.ID, connectors.ContinueExact, known.History
		for _, p := range r.Previous.Parts {
			if p.Load == load.ID {
				load.Parts = append(load.Parts, p)
			}
		}
		return &load, spec.Sync == connectors.SyncIncremental && history.Rows < rows, nil
	}
	from := int64(0)
	if spec.Sync == connectors.SyncIncremental && spec.Mode != connectors.ModeReplace && !spec.Fresh && known.Finished {
		if from = min(history.Rows, rows); from == rows && !s.Follow {
			return nil, false, nil
		}
	}
	load.History, _ = json.Marshal(memoryHistory{Rows: rows})
	load.Parts = s.split(st, load.ID, from, rows, r.Splits)
	return &load, false, nil
}

// previous returns what the destination knows of a load name.
func previous(r connectors.Recovered, name string) connectors.LoadStatus {
	for _, l := range r.Loads {
		if l.ID.Name == name {
			return l
		}
	}
	return connectors.LoadStatus{}
}

// split cuts rows [from, to) into at most n parts, at least one.
func (s *MemorySource) split(st MemoryStream, id messages.LoadID, from, to int64, n int) []connectors.Part {
	count := max(min(int64(n), to-from), 1)
	parts := make([]connectors.Part, count)
	for i := range count {
		a, b := from+(to-from)*i/count, from+(to-from)*(i+1)/count
		split, _ := json.Marshal(memoryRange{From: a, To: b, Follow: s.Follow && i == count-1})
		parts[i] = connectors.Part{
			ID: messages.PartID(fmt.Sprintf("%s/%d", st.Stream, i)), Load: id,
			Streams: []messages.StreamID{st.Stream}, Split: split, Rows: b - a,
		}
	}
	return parts
}

// Open implements connectors.Source.
func (s *MemorySource) Open(ctx context.Context, r connectors.ReadRequest) (connectors.Reader, error) {
	if err := s.OpenFn.do(ctx, Call{N: s.calls.next("open"), Part: r.Part.ID, Load: r.Part.Load, Token: r.Token}); err != nil {
		return nil, err
	}
	if len(r.Part.Streams) != 1 {
		return nil, &connectors.Error{Op: "open part " + string(r.Part.ID), Kind: connectors.KindInternal, Err: errors.New("want one stream")}
	}
	if _, err := s.stream(r.Part.Streams[0]); err != nil {
		return nil, err
	}
	rd := &memoryReader{source: s, req: r}
	if err := json.Unmarshal(r.Part.Split, &rd.span); err != nil {
		return nil, &connectors.Error{Op: "open part " + string(r.Part.ID), Kind: connectors.KindInternal, Err: err}
	}
	next, err := r.From.At.Int64()
	if err != nil {
		return nil, &connectors.Error{Op: "resume part " + string(r.Part.ID), Kind: connectors.KindInternal, Err: err}
	}
	rd.next = max(next, rd.span.From)
	return rd, nil
}

package generator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// identity of the origin. It is the same for every configuration: what a load was
// planned with is in its parts.
const identity = "generator"

// defaultStream is what Discover lists when nobody names a stream.
const defaultStream = messages.StreamID("generated")

// Source makes rows up. It is safe for concurrent use and holds nothing.
type Source struct {
	cfg  SourceConfig
	mark string // of what decides the values: seed and columns
}

// NewSource returns a source. It does no I/O.
func NewSource(cfg SourceConfig) (*Source, error) {
	if problems := cfg.Problems(); len(problems) > 0 {
		return nil, &connectors.Error{
			Op: "configure generator", Kind: connectors.KindConfig, Code: messages.CodeDocValue,
			Place: messages.Place{Field: problems[0].Path}, Err: errors.New(problems[0].Message),
		}
	}
	if cfg.Columns = slices.Clone(cfg.Columns); len(cfg.Columns) == 0 {
		cfg.Columns = defaultColumns()
	}
	h := mix(cfg.Seed)
	for _, c := range cfg.Columns {
		h = hash(hash(h, c.Name), fmt.Sprintf("%s/%d/%v", c.Kind, c.Bytes, c.Nulls))
	}
	return &Source{cfg: cfg, mark: strconv.FormatUint(h, 16)}, nil
}

// columns returns the columns of a stream, all of them or the named ones in that
// order.
func (s *Source) columns(stream messages.StreamID, names []string) ([]column, error) {
	var out []column
	for _, c := range s.cfg.Columns {
		if len(names) == 0 {
			out = append(out, newColumn(c, s.cfg.Seed, string(stream)))
		}
	}
	for _, name := range names {
		at := slices.IndexFunc(s.cfg.Columns, func(c ColumnConfig) bool { return c.Name == name })
		if at < 0 {
			return nil, &connectors.Error{
				Op: "plan stream " + string(stream), Kind: connectors.KindConfig, Code: messages.CodeSchemaColumn,
				Place: messages.Place{Stream: stream, Field: name}, Err: fmt.Errorf("there is no column %q", name),
			}
		}
		out = append(out, newColumn(s.cfg.Columns[at], s.cfg.Seed, string(stream)))
	}
	return out, nil
}

func schemaOf(columns []column) *arrow.Schema {
	fields := make([]arrow.Field, len(columns))
	for i, c := range columns {
		fields[i] = c.field
	}
	return arrow.NewSchema(fields, nil)
}

// plan describes a stream as spec wants it.
func (s *Source) plan(spec connectors.StreamSpec) (connectors.StreamPlan, error) {
	refuse := func(code messages.Code, field, what string) error {
		return &connectors.Error{
			Op: "plan stream " + string(spec.Stream), Kind: connectors.KindConfig, Code: code,
			Place: messages.Place{Stream: spec.Stream, Field: field}, Err: errors.New(what),
		}
	}
	switch {
	case spec.Stream == "":
		return connectors.StreamPlan{}, refuse(messages.CodeDocMissing, "name", "the stream has no name")
	case spec.Sync == connectors.SyncCDC:
		return connectors.StreamPlan{}, refuse(messages.CodeNotAvailable, "sync_mode", "a generator has no change log")
	case spec.Filter != "":
		return connectors.StreamPlan{}, refuse(messages.CodeNotAvailable, "filter", "a generator does not filter")
	}
	columns, err := s.columns(spec.Stream, spec.Columns)
	if err != nil {
		return connectors.StreamPlan{}, err
	}
	p := connectors.StreamPlan{Stream: spec.Stream, Schema: schemaOf(columns), Rows: s.cfg.Rows}
	for _, c := range columns {
		if c.kind == KindID {
			p.Key = []string{c.field.Name}
			break
		}
	}
	return p, nil
}

// Check implements connectors.Source.
func (s *Source) Check(_ context.Context, streams []connectors.StreamSpec) ([]connectors.Finding, error) {
	var out []connectors.Finding
	for _, spec := range streams {
		if _, err := s.plan(spec); err != nil {
			f := connectors.Finding{Severity: connectors.SeverityError, Message: err.Error()}
			if e, ok := errors.AsType[*connectors.Error](err); ok {
				f.Code, f.Where = e.Code, e.Place
			}
			out = append(out, f)
		}
	}
	return out, nil
}

// Discover implements connectors.Source. Every name is a stream; without specs it
// lists one.
func (s *Source) Discover(_ context.Context, streams []connectors.StreamSpec) ([]connectors.Discovered, error) {
	if len(streams) == 0 {
		streams = []connectors.StreamSpec{{Stream: defaultStream}}
	}
	out := make([]connectors.Discovered, 0, len(streams))
	for _, spec := range streams {
		p, err := s.plan(spec)
		if err != nil {
			return nil, err
		}
		out = append(out, connectors.Discovered{StreamPlan: p, Cursors: p.Key})
	}
	return out, nil
}

// split is the work of a part: rows [From, To), counted from 0.
type split struct {
	From    int64    `json:"from"`
	To      int64    `json:"to"`
	Columns []string `json:"columns,omitempty"` // projection; empty: all
	Print   string   `json:"print"`             // of the configuration it was planned with
}

// history is what a load remembers.
type history struct {
	Rows  int64  `json:"rows"`
	Print string `json:"print"`
}

// scan is a plan; there is no snapshot to keep.
type scan struct{ plan connectors.Plan }

func (s scan) Plan() connectors.Plan       { return s.plan }
func (s scan) Close(context.Context) error { return nil }

// Scan implements connectors.Source.
func (s *Source) Scan(_ context.Context, r connectors.ScanRequest) (connectors.Scan, error) {
	p := connectors.Plan{Identity: identity}
	for _, spec := range r.Streams {
		stream, err := s.plan(spec)
		if err != nil {
			return nil, err
		}
		l, more := s.load(stream, spec, r)
		p.More = p.More || more
		if l != nil {
			p.Loads = append(p.Loads, *l)
		}
	}
	return scan{p}, nil
}

// load continues the unfinished load of a stream, or plans the next one; nil says
// that an incremental stream has no new rows.
func (s *Source) load(stream connectors.StreamPlan, spec connectors.StreamSpec, r connectors.ScanRequest) (l *connectors.Load, more bool) {
	known := connectors.LoadStatus{ID: messages.LoadID{Name: string(stream.Stream)}}
	for _, status := range r.Previous.Loads {
		if status.ID.Name == known.ID.Name {
			known = status
		}
	}
	var past history
	if err := json.Unmarshal(known.History, &past); err != nil || past.Print != s.mark {
		past = history{} // made up from another configuration: nothing of it is known
	}
	incremental := spec.Sync == connectors.SyncIncremental && spec.Mode != connectors.ModeReplace
	out := connectors.Load{ID: known.ID, Streams: []connectors.StreamPlan{stream}}
	if known.ID.Number > 0 && !known.Finished && !spec.Fresh {
		out.History, out.Continuity = known.History, connectors.ContinueExact
		for _, p := range r.Previous.Parts {
			if p.Load != known.ID {
				continue
			}
			out.Parts = append(out.Parts, p)
			var sp split
			if err := json.Unmarshal(p.Split, &sp); err != nil || sp.Print != s.mark || !slices.Equal(sp.Columns, spec.Columns) {
				out.Continuity = connectors.ContinueLost
			}
		}
		return &out, incremental && past.Rows < s.cfg.Rows
	}
	from := int64(0)
	if incremental && known.Finished && !spec.Fresh {
		if from = min(past.Rows, s.cfg.Rows); from == s.cfg.Rows {
			return nil, false
		}
	}
	out.ID.Number++
	out.History, _ = json.Marshal(history{Rows: s.cfg.Rows, Print: s.mark})
	out.Parts = s.parts(out.ID, stream.Stream, spec.Columns, from, r.Splits)
	return &out, false
}

// parts cuts rows [from, cfg.Rows) into at most n ranges, at least one.
func (s *Source) parts(id messages.LoadID, stream messages.StreamID, columns []string, from int64, n int) []connectors.Part {
	total := s.cfg.Rows - from
	count := max(min(int64(n), total), 1)
	out := make([]connectors.Part, count)
	for i := range count {
		sp := split{From: from + share(total, i, count), To: from + share(total, i+1, count), Columns: columns, Print: s.mark}
		text, _ := json.Marshal(sp)
		out[i] = connectors.Part{
			ID: messages.PartID(fmt.Sprintf("%s/%d", stream, i)), Load: id,
			Streams: []messages.StreamID{stream}, Split: text, Rows: sp.To - sp.From,
		}
	}
	return out
}

// share returns total*i/n without overflow.
func share(total, i, n int64) int64 { return total/n*i + min(total%n, i) }

// Open implements connectors.Source.
func (s *Source) Open(_ context.Context, r connectors.ReadRequest) (connectors.Reader, error) {
	refuse := func(err error) error {
		return &connectors.Error{Op: "open part " + string(r.Part.ID), Kind: connectors.KindInternal, Place: messages.Place{Part: r.Part.ID}, Err: err}
	}
	var sp split
	if err := json.Unmarshal(r.Part.Split, &sp); err != nil {
		return nil, refuse(err)
	}
	if len(r.Part.Streams) != 1 {
		return nil, refuse(errors.New("want one stream"))
	}
	if sp.Print != s.mark {
		return nil, refuse(errors.New("it was planned with another configuration"))
	}
	next, err := r.From.At.Int64()
	if err != nil {
		return nil, refuse(fmt.Errorf("resume: %w", err))
	}
	columns, err := s.columns(r.Part.Streams[0], sp.Columns)
	if err != nil {
		return nil, err
	}
	rd := &reader{
		req: r, columns: columns, schema: schemaOf(columns), stream: r.Part.Streams[0],
		next: max(next, sp.From), end: sp.To, perSecond: s.cfg.RowsPerSecond,
	}
	if r.Limit > 0 {
		rd.end = min(rd.end, rd.next+r.Limit)
	}
	if size := rd.size(1); r.Limits.RowBytes > 0 && size > r.Limits.RowBytes {
		return nil, &connectors.Error{
			Op: "make row", Kind: connectors.KindData, Code: messages.CodeRowTooLarge,
			Place: messages.Place{Stream: rd.stream, Row: rd.next + 1},
			Err:   fmt.Errorf("%d bytes, the limit is %d", size, r.Limits.RowBytes),
		}
	}
	rd.batchRows = rd.rowsOf(r.Limits)
	return rd, nil
}

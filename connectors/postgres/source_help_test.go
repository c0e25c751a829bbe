package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/connectors/postgres/pgtest"
	"rapidbyte.io/node/messages"
)

// newSource returns a source of a database, with parts and pieces of single blocks.
func newSource(t conntest.T, s *pgtest.Server, db string, change func(*SourceConfig)) *Source {
	t.Helper()
	cfg := SourceConfig{Connection: Connection{DSN: connectors.NewSecret(s.URL(db))}, Schema: "public"}
	if change != nil {
		change(&cfg)
	}
	out, err := NewSource(cfg)
	require.NoError(t, err)
	out.splitPages, out.chunkBlocks, out.chunkMost = 1, 1, 1
	return out
}

// origin is a database that is read as the engine reads it: what a part has committed is
// where its next attempt begins.
type origin struct {
	t      *testing.T
	server *pgtest.Server
	db     string
	source *Source
	mem    *memory.CheckedAllocator
	limits connectors.Limits
	splits int
	epoch  messages.Epoch
	known  connectors.Recovered
	at     map[messages.PartID]messages.Position
	open   []connectors.Scan
}

func newOrigin(t *testing.T, sql string, change func(*SourceConfig)) *origin {
	t.Helper()
	server := pgtest.Shared(t)
	return originOn(t, server, server.Database(t), sql, change)
}

func originOn(t *testing.T, server *pgtest.Server, db, sql string, change func(*SourceConfig)) *origin {
	t.Helper()
	o := &origin{
		t: t, server: server, db: db, mem: memory.NewCheckedAllocator(memory.DefaultAllocator), splits: 1, epoch: 1,
		limits: connectors.Limits{BatchRows: 1000, BatchBytes: 1 << 26, RowBytes: 1 << 28}, at: map[messages.PartID]messages.Position{},
	}
	o.exec(sql)
	o.source = newSource(t, server, db, change)
	t.Cleanup(func() { o.mem.AssertSize(t, 0) })
	return o
}

func (o *origin) exec(sql string) {
	o.t.Helper()
	o.server.Exec(o.t, o.db, sql)
}

func (o *origin) request(specs ...connectors.StreamSpec) connectors.ScanRequest {
	return connectors.ScanRequest{Pipeline: "source test", Epoch: o.epoch, Streams: specs, Splits: o.splits, Previous: o.known}
}

// scan plans; the scan is closed when the test ends.
func (o *origin) scan(specs ...connectors.StreamSpec) connectors.Plan {
	o.t.Helper()
	p, err := o.tryScan(specs...)
	require.NoError(o.t, err)
	return p
}

func (o *origin) tryScan(specs ...connectors.StreamSpec) (connectors.Plan, error) {
	o.t.Helper()
	s, err := o.source.Scan(o.t.Context(), o.request(specs...))
	if err != nil {
		return connectors.Plan{}, err
	}
	o.open = append(o.open, s)
	o.t.Cleanup(func() { require.NoError(o.t, s.Close(context.Background())) })
	return s.Plan(), nil
}

// reading is one attempt of a part.
type reading struct {
	rows     []string
	barriers []messages.Barrier
	kind     messages.BarrierKind
}

// read makes one attempt from where the part stands. on, if not nil, sees each item.
func (o *origin) read(part connectors.Part, every int64, on func(messages.Item, *reading, *conntest.Emitter) error) (reading, error) {
	o.t.Helper()
	return o.readFrom(part, o.at[part.ID], every, on)
}

func (o *origin) readFrom(part connectors.Part, from messages.Position, every int64, on func(messages.Item, *reading, *conntest.Emitter) error) (reading, error) {
	o.t.Helper()
	return o.readWith(o.t.Context(), o.source, part, from, every, on)
}

func (o *origin) readWith(ctx context.Context, source *Source, part connectors.Part, from messages.Position, every int64, on func(messages.Item, *reading, *conntest.Emitter) error) (reading, error) {
	o.t.Helper()
	var out reading
	text, err := json.Marshal(part)
	require.NoError(o.t, err)
	var there connectors.Part
	require.NoError(o.t, json.Unmarshal(text, &there))
	r, err := source.Open(ctx, connectors.ReadRequest{
		Part: there, Token: messages.Token{Epoch: o.epoch, Attempt: 1}, From: from, Limits: o.limits, Mem: o.mem,
	})
	if err != nil {
		return out, err
	}
	e := &conntest.Emitter{Part: part.ID, Token: messages.Token{Epoch: o.epoch, Attempt: 1}, Every: every}
	e.Sink = func(_ context.Context, it messages.Item) error {
		if batch, ok := it.(messages.Batch); ok {
			out.rows = append(out.rows, conntest.RowTexts(batch.Rows.(messages.ArrowRows).Record)...)
			batch.Rows.Release()
		}
		if barrier, ok := it.(messages.Barrier); ok {
			out.barriers = append(out.barriers, barrier)
		}
		if on != nil {
			return on(it, &out, e)
		}
		return nil
	}
	err = r.Read(ctx, e)
	require.Empty(o.t, e.Broken())
	if err == nil {
		require.NoError(o.t, e.Finished())
	}
	out.kind, _ = e.Ended()
	require.NoError(o.t, r.Close(context.Background()))
	return out, err
}

// all reads every part of a plan to its end, and keeps where they stand.
func (o *origin) all(p connectors.Plan) map[messages.StreamID][]string {
	o.t.Helper()
	out := map[messages.StreamID][]string{}
	for _, l := range p.Loads {
		for _, part := range l.Parts {
			got, err := o.read(part, 0, nil)
			require.NoError(o.t, err)
			o.at[part.ID] = got.barriers[len(got.barriers)-1].Position
			out[part.Streams[0]] = append(out[part.Streams[0]], got.rows...)
		}
	}
	return out
}

// remember closes the scans and makes a plan what the destination knows, through JSON as
// it does.
func (o *origin) remember(p connectors.Plan) {
	o.t.Helper()
	o.known = connectors.Recovered{}
	for _, l := range p.Loads {
		o.known.Loads = append(o.known.Loads, connectors.LoadStatus{ID: l.ID, Mode: l.Mode, Identity: p.Identity})
		o.known.Parts = append(o.known.Parts, l.Parts...)
	}
	text, err := json.Marshal(o.known.Parts)
	require.NoError(o.t, err)
	require.NoError(o.t, json.Unmarshal(text, &o.known.Parts))
	o.epoch++
	for _, s := range o.open { // the attempt is over
		require.NoError(o.t, s.Close(context.Background()))
	}
	o.open = nil
}

// once scans and reads what is there to read, and remembers it.
func (o *origin) once(specs ...connectors.StreamSpec) map[messages.StreamID][]string {
	o.t.Helper()
	p := o.scan(specs...)
	rows := o.all(p)
	o.remember(p)
	return rows
}

// full is the spec of a full refresh.
func full(stream messages.StreamID) connectors.StreamSpec {
	return connectors.StreamSpec{Stream: stream, Sync: connectors.SyncFullRefresh, Mode: connectors.ModeAppend}
}

// following is the spec of an incremental stream.
func following(stream messages.StreamID, cursor string) connectors.StreamSpec {
	return connectors.StreamSpec{Stream: stream, Sync: connectors.SyncIncremental, Mode: connectors.ModeAppend, CursorField: cursor, CursorMode: "raw", NullCursor: "fail"}
}

// texts returns the rows of a query as RowText, for types whose text is the same there.
func (o *origin) texts(sql string) []string {
	o.t.Helper()
	var out []string
	for _, row := range o.server.Query(o.t, o.db, sql) {
		out = append(out, strings.Join(row, "|"))
	}
	return out
}

// sameRows requires the same rows in any order.
func sameRows(t *testing.T, want, got []string) {
	t.Helper()
	w, g := slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(got))
	require.Len(t, g, len(w), "number of rows")
	require.Equal(t, w, g)
}

// typed requires a connectors.Error of a kind and a code.
func typed(t *testing.T, err error, kind connectors.Kind, code messages.Code) *connectors.Error {
	t.Helper()
	e, ok := errors.AsType[*connectors.Error](err)
	require.True(t, ok, "error %v", err)
	require.Equal(t, kind, e.Kind, "kind of %v", err)
	require.Equal(t, code, e.Code, "code of %v", err)
	return e
}

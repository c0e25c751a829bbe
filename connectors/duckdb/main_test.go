package duckdb

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/connectors/internal/duckarrow"
	"rapidbyte.io/node/messages"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		runChild(path)
		return
	}
	goleak.VerifyTestMain(m)
}

// sqlFile runs statements in a database file, as another user would.
func sqlFile(t conntest.T, path, sql string) {
	t.Helper()
	db, err := duckarrow.Open(path, options(0))
	require.NoError(t, err)
	defer db.Close()
	conn, err := db.Connect()
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Exec(context.Background(), sql)
	require.NoError(t, err)
}

// rowsOf returns what a query on the file sees, as RowText.
func rowsOf(t conntest.T, path, sql string) []string {
	t.Helper()
	if _, err := os.Stat(path); os.IsNotExist(err) {
		return nil
	}
	opening.Lock()
	db, err := duckarrow.Open(path, options(0))
	opening.Unlock()
	require.NoError(t, err)
	defer db.Close()
	conn, err := db.Connect()
	require.NoError(t, err)
	defer conn.Close()
	ctx := context.Background()
	_, err = conn.Exec(ctx, "SET TimeZone='UTC'")
	require.NoError(t, err)
	stmt, err := conn.Prepare(ctx, sql)
	require.NoError(t, err)
	defer stmt.Close()
	res, err := stmt.Query(ctx)
	require.NoError(t, err)
	defer res.Close()
	var out []string
	for {
		rec, err := res.Next(ctx)
		require.NoError(t, err)
		if rec == nil {
			return out
		}
		out = append(out, conntest.RowTexts(rec)...)
		rec.Release()
	}
}

// opening keeps a reader of a test from opening a file while another closes it.
var opening sync.Mutex

func tableRows(t conntest.T, path, schema, target string) []string {
	t.Helper()
	if _, err := os.Stat(path); os.IsNotExist(err) {
		return nil
	}
	count := rowsOf(t, path, "SELECT count(*) FROM duckdb_tables() WHERE table_name = "+duckarrow.Literal(target)+" AND schema_name = "+duckarrow.Literal(schema))
	if count[0] == "0" {
		return nil
	}
	return rowsOf(t, path, "FROM "+duckarrow.Quote(schema)+"."+duckarrow.Quote(target))
}

func newDestination(t conntest.T, path string) *Destination {
	t.Helper()
	d, err := NewDestination(DestinationConfig{Path: path})
	require.NoError(t, err)
	return d
}

// harness is a destination in a fresh file, with one session.
type harness struct {
	t    *testing.T
	path string
	dest *Destination
	s    connectors.Session
	mem  *memory.CheckedAllocator
}

func newHarness(t *testing.T) *harness {
	t.Helper()
	h := &harness{t: t, path: filepath.Join(t.TempDir(), "x.duckdb"), mem: memory.NewCheckedAllocator(memory.DefaultAllocator)}
	t.Cleanup(func() { h.mem.AssertSize(t, 0) })
	h.dest = newDestination(t, h.path)
	h.s = h.open(1)
	return h
}

func (h *harness) open(epoch messages.Epoch) connectors.Session {
	h.t.Helper()
	s, err := h.dest.Open(h.t.Context(), connectors.SessionRequest{Pipeline: "p", Epoch: epoch, Store: "store"})
	require.NoError(h.t, err)
	h.t.Cleanup(func() { require.NoError(h.t, s.Close(context.Background())) })
	return s
}

func load(mode connectors.WriteMode, number uint64, sp connectors.StreamPlan, parts ...messages.PartID) connectors.Load {
	if sp.Target == "" {
		sp.Target = string(sp.Stream)
	}
	l := connectors.Load{ID: messages.LoadID{Name: string(sp.Stream), Number: number}, Mode: mode, Streams: []connectors.StreamPlan{sp}, Identity: "origin"}
	for _, p := range parts {
		l.Parts = append(l.Parts, connectors.Part{ID: p, Load: l.ID, Streams: []messages.StreamID{sp.Stream}, Split: []byte(`{}`)})
	}
	return l
}

func (h *harness) begin(l connectors.Load) connectors.Writer {
	h.t.Helper()
	require.NoError(h.t, h.s.Begin(h.t.Context(), l))
	w, _, err := h.s.OpenWriter(h.t.Context(), l.Parts[0], messages.Token{Epoch: 1, Attempt: 1})
	require.NoError(h.t, err)
	return w
}

func (h *harness) batch(sp connectors.StreamPlan, rows ...[]any) messages.Batch {
	h.t.Helper()
	rec, err := conntest.Build(h.mem, sp.Schema, rows)
	require.NoError(h.t, err)
	return messages.Batch{Stream: sp.Stream, Version: 1, Rows: messages.ArrowRows{Record: rec}}
}

func (h *harness) commit(w connectors.Writer, kind messages.BarrierKind, at, n int64) messages.Receipt {
	h.t.Helper()
	r, err := w.Commit(h.t.Context(), barrier(kind, at, n))
	require.NoError(h.t, err)
	return r
}

func barrier(kind messages.BarrierKind, at, n int64) messages.Barrier {
	return messages.Barrier{Kind: kind, Position: messages.Position{At: messages.Int64Cursor(at)}, Rows: n}
}

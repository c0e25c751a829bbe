package postgres

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/connectors/postgres/pgtest"
	"rapidbyte.io/node/messages"
)

// connectionTo names a database of a test server.
func connectionTo(s *pgtest.Server, db string) Connection {
	return Connection{Host: s.Host(), Port: s.Port(), User: s.User(), Database: db, LockTimeout: 2 * time.Second}
}

func newDestination(t conntest.T, s *pgtest.Server, db string, policy connectors.WritePolicy, change func(*DestinationConfig)) *Destination {
	t.Helper()
	cfg := DestinationConfig{Connection: connectionTo(s, db), Schema: "public"}
	if change != nil {
		change(&cfg)
	}
	d, err := NewDestination(cfg, policy)
	require.NoError(t, err)
	return d
}

// tableRows reads a table with pgx's own decoding, as conntest.RowText.
func tableRows(t conntest.T, s *pgtest.Server, db, schema, table string) []string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.URL(db))
	require.NoError(t, err)
	defer closeConn(conn)
	_, err = conn.Exec(t.Context(), "SET TimeZone = 'UTC'")
	require.NoError(t, err)
	var exists bool
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT count(*) > 0 FROM pg_tables WHERE schemaname = $1 AND tablename = $2", schema, table).Scan(&exists))
	if !exists {
		return nil
	}
	rows, err := conn.Query(t.Context(), "SELECT * FROM "+pgx.Identifier{schema, table}.Sanitize())
	require.NoError(t, err)
	defer rows.Close()
	var out []string
	for rows.Next() {
		values, err := rows.Values()
		require.NoError(t, err)
		var texts []string
		for i, v := range values {
			name := rows.FieldDescriptions()[i].Name
			if !strings.HasPrefix(name, "_rb_") {
				texts = append(texts, goText(v, rows.FieldDescriptions()[i].DataTypeOID))
			}
		}
		out = append(out, conntest.Join(texts...))
	}
	require.NoError(t, rows.Err())
	return out
}

// goText is the canonical text of what pgx decodes.
func goText(v any, oid uint32) string {
	switch v := v.(type) {
	case time.Time:
		switch oid {
		case pgtype.DateOID:
			return v.Format(time.DateOnly)
		case pgtype.TimestamptzOID:
			return conntest.Instant(v)
		}
		return conntest.Text(v)
	case pgtype.Numeric:
		text, err := v.Value()
		if err != nil || text == nil {
			return fmt.Sprint(text, err)
		}
		if v.Exp >= 0 && v.Int != nil {
			return new(big.Int).Mul(v.Int, new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(v.Exp)), nil)).String()
		}
		return conntest.DecimalText(fmt.Sprint(text))
	case pgtype.Time:
		return time.UnixMicro(v.Microseconds).UTC().Format("15:04:05.999999999")
	case pgtype.Interval:
		return (time.Duration(v.Microseconds) * time.Microsecond).String()
	case [16]byte:
		return uuid.UUID(v).String()
	case []any:
		parts := make([]string, len(v))
		for i, e := range v {
			parts[i] = goText(e, 0)
		}
		return "[" + strings.Join(parts, ",") + "]"
	case map[string]any:
		raw, err := json.Marshal(v)
		return string(raw) + fmt.Sprint(errors.Join(err))
	}
	return conntest.Text(v)
}

func fields(f ...arrow.Field) *arrow.Schema { return arrow.NewSchema(f, nil) }

var (
	idField   = arrow.Field{Name: "id", Type: arrow.PrimitiveTypes.Int64}
	nameField = arrow.Field{Name: "name", Type: arrow.BinaryTypes.String, Nullable: true}
	orders    = connectors.StreamPlan{Stream: "orders", Target: "orders", Schema: fields(idField, nameField), Key: []string{"id"}}
)

// load plans a load with parts named by the arguments.
func loadOf(mode connectors.WriteMode, number uint64, sp connectors.StreamPlan, parts ...messages.PartID) connectors.Load {
	l := connectors.Load{
		ID: messages.LoadID{Name: string(sp.Stream), Number: number}, Mode: mode, Streams: []connectors.StreamPlan{sp}, Identity: "origin", Shape: "s",
	}
	for _, p := range parts {
		l.Parts = append(l.Parts, connectors.Part{ID: p, Load: l.ID, Streams: []messages.StreamID{sp.Stream}, Split: json.RawMessage(`{}`)})
	}
	return l
}

const testPipeline = messages.PipelineID("p")

// rig is a destination in a fresh database, with one session.
type rig struct {
	t      *testing.T
	server *pgtest.Server
	db     string
	dest   *Destination
	s      connectors.Session
	epoch  messages.Epoch
	mem    *memory.CheckedAllocator
}

func newRig(t *testing.T, policy connectors.WritePolicy, change func(*DestinationConfig)) *rig {
	t.Helper()
	return rigOf(t, pgtest.Shared(t), policy, change)
}

// newRigOn is newRig, on a server of its own if it is to be stopped.
func newRigOn(t *testing.T, own bool, policy connectors.WritePolicy) *rig {
	t.Helper()
	if own {
		return rigOf(t, pgtest.Start(t), policy, nil)
	}
	return newRig(t, policy, nil)
}

func rigOf(t *testing.T, server *pgtest.Server, policy connectors.WritePolicy, change func(*DestinationConfig)) *rig {
	t.Helper()
	return rigIn(t, server, server.Database(t), policy, change)
}

// rigIn is a rig in a database that is emptied first: that is faster than a new one.
func rigIn(t *testing.T, server *pgtest.Server, db string, policy connectors.WritePolicy, change func(*DestinationConfig)) *rig {
	t.Helper()
	server.Exec(t, db, "SET client_min_messages = error; DROP SCHEMA public CASCADE; DROP SCHEMA IF EXISTS _rapidbyte CASCADE; CREATE SCHEMA public")
	r := &rig{t: t, server: server, db: db, mem: memory.NewCheckedAllocator(memory.DefaultAllocator)}
	if policy.NewColumn == "" {
		policy.NewColumn = connectors.ColumnAdd
	}
	r.dest = newDestination(t, server, r.db, policy, change)
	t.Cleanup(func() {
		if r.s != nil {
			require.NoError(t, r.s.Close(t.Context()))
		}
		r.mem.AssertSize(t, 0)
	})
	return r
}

// sql runs statements as a user would.
func (r *rig) sql(text string) { r.t.Helper(); r.server.Exec(r.t, r.db, text) }

// rows is the table as a user sees it.
func (r *rig) rows(table string) []string {
	r.t.Helper()
	return tableRows(r.t, r.server, r.db, "public", table)
}

// next opens the session of the next owner.
func (r *rig) next() connectors.Session {
	r.t.Helper()
	r.epoch++
	s, err := r.dest.Open(r.t.Context(), connectors.SessionRequest{Pipeline: testPipeline, Epoch: r.epoch, Run: "run-1", Store: "store"})
	require.NoError(r.t, err)
	if r.s != nil {
		require.NoError(r.t, r.s.Close(r.t.Context()))
	}
	r.s = s
	return s
}

// writer begins a load of one part and opens its writer.
func (r *rig) writer(mode connectors.WriteMode, sp connectors.StreamPlan, number uint64) connectors.Writer {
	r.t.Helper()
	if r.s == nil {
		r.next()
	}
	l := loadOf(mode, number, sp, messages.PartID(sp.Stream))
	require.NoError(r.t, r.s.Begin(r.t.Context(), l))
	w, _, err := r.s.OpenWriter(r.t.Context(), l.Parts[0], messages.Token{Epoch: r.epoch, Attempt: 1})
	require.NoError(r.t, err)
	return w
}

func (r *rig) batch(sp connectors.StreamPlan, rows ...[]any) messages.Batch {
	r.t.Helper()
	rec, err := conntest.Build(r.mem, sp.Schema, rows)
	require.NoError(r.t, err)
	return messages.Batch{Stream: sp.Stream, Version: 1, Rows: messages.ArrowRows{Record: rec}}
}

func (r *rig) write(w connectors.Writer, sp connectors.StreamPlan, rows ...[]any) {
	r.t.Helper()
	require.NoError(r.t, w.Write(r.t.Context(), r.batch(sp, rows...)))
}

func (r *rig) commit(w connectors.Writer, kind messages.BarrierKind, at, rows int64) messages.Receipt {
	r.t.Helper()
	receipt, err := w.Commit(r.t.Context(), barrierAt(kind, at, rows))
	require.NoError(r.t, err)
	return receipt
}

func barrierAt(kind messages.BarrierKind, at, rows int64) messages.Barrier {
	return messages.Barrier{Kind: kind, Position: messages.Position{At: messages.Int64Cursor(at)}, Rows: rows}
}

func requireError(t *testing.T, err error, kind connectors.Kind, code messages.Code, says ...string) *connectors.Error {
	t.Helper()
	e, ok := errors.AsType[*connectors.Error](err)
	require.True(t, ok, "not typed: %v", err)
	require.Equal(t, kind, e.Kind, err)
	require.Equal(t, code, e.Code, err)
	for _, s := range says {
		require.ErrorContains(t, err, s)
	}
	return e
}

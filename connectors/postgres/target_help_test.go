package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/codec"
	"rapidbyte.io/node/connectors/postgres/pgtest"
	"rapidbyte.io/node/messages"
)

// bench is a fresh database with a stream that goes to public.orders.
type bench struct {
	t      *testing.T
	server *pgtest.Server
	db     string
	conn   *pgx.Conn
	goal   goal
	roles  int
}

func plainSchema() *arrow.Schema {
	return arrow.NewSchema([]arrow.Field{
		{Name: "id", Type: arrow.PrimitiveTypes.Int64},
		{Name: "name", Type: arrow.BinaryTypes.String, Nullable: true},
	}, nil)
}

// benchOf makes the database and runs sql in it.
func benchOf(t *testing.T, mode connectors.WriteMode, sql string) *bench {
	t.Helper()
	b := &bench{t: t, server: pgtest.Shared(t)}
	b.db = b.server.Database(t)
	if sql != "" {
		b.server.Exec(t, b.db, sql)
	}
	b.conn = b.connect(b.server.User())
	b.goal = goal{
		cfg: DestinationConfig{
			Connection: Connection{User: b.server.User(), LockTimeout: 400 * time.Millisecond}, Schema: "public", Swap: SwapAuto,
		},
		policy: connectors.WritePolicy{NewColumn: connectors.ColumnAdd}, pipeline: "p", mode: mode, load: 1,
		stream: connectors.StreamPlan{Stream: "orders", Target: "orders", Schema: plainSchema(), Key: []string{"id"}},
	}
	return b
}

func (b *bench) connect(user string) *pgx.Conn {
	b.t.Helper()
	cfg, err := pgx.ParseConfig(b.server.URL(b.db))
	require.NoError(b.t, err)
	cfg.User = user
	conn, err := pgx.ConnectConfig(b.t.Context(), cfg)
	require.NoError(b.t, err)
	b.t.Cleanup(func() { require.NoError(b.t, conn.Close(context.Background())) })
	return conn
}

func (b *bench) sql(text string) { b.t.Helper(); b.server.Exec(b.t, b.db, text) }

// lines returns the rows of a query, columns joined by |.
func (b *bench) lines(query string) []string {
	b.t.Helper()
	out := []string{}
	for _, row := range b.server.Query(b.t, b.db, query) {
		out = append(out, strings.Join(row, "|"))
	}
	return out
}

// prepare is what Begin does.
func (b *bench) prepare() (*planned, error) {
	b.t.Helper()
	var p *planned
	err := pgx.BeginFunc(b.t.Context(), b.conn, func(tx pgx.Tx) (err error) {
		p, err = b.goal.prepare(b.t.Context(), tx)
		return err
	})
	return p, err
}

// begun is prepare, which works.
func (b *bench) begun() *planned {
	b.t.Helper()
	p, err := b.prepare()
	require.NoError(b.t, err)
	return p
}

// staged begins a replace and fills its staging table by INSERT.
func (b *bench) staged(columns, values string) string {
	b.t.Helper()
	p := b.begun()
	require.NotEmpty(b.t, p.stage)
	b.sql(fmt.Sprintf("INSERT INTO public.%s (%s) OVERRIDING SYSTEM VALUE VALUES %s", p.stage, columns, values))
	return p.stage
}

func (b *bench) swap(stage string) error {
	b.t.Helper()
	return pgx.BeginTxFunc(b.t.Context(), b.conn, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		return b.goal.swap(b.t.Context(), tx, stage)
	})
}

// check is the preflight as a role has it.
func (b *bench) check(conn *pgx.Conn) []connectors.Finding {
	b.t.Helper()
	var out []connectors.Finding
	require.NoError(b.t, pgx.BeginTxFunc(b.t.Context(), conn, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(pgx.Tx) (err error) {
		out, err = b.goal.check(b.t.Context(), conn)
		return err
	}))
	return out
}

func wantError(t *testing.T, err error, kind connectors.Kind, code messages.Code, says ...string) *connectors.Error {
	t.Helper()
	e, ok := errors.AsType[*connectors.Error](err)
	require.True(t, ok, "not typed: %v", err)
	require.Equal(t, kind, e.Kind, err)
	require.Equal(t, code, e.Code, err)
	for _, s := range says {
		require.ErrorContains(t, err, s)
	}
	require.Equal(t, messages.StreamID("orders"), e.Place.Stream)
	return e
}

// like gives the goal the columns of a table, as a Postgres source reads them.
func (b *bench) like(conn *pgx.Conn, schema, table string) {
	b.t.Helper()
	r, err := readRelation(b.t.Context(), conn, schema, table)
	require.NoError(b.t, err)
	require.NotNil(b.t, r)
	fields := make([]arrow.Field, len(r.columns))
	for i, c := range r.columns {
		fields[i], _ = codec.Field(c.Column, false)
	}
	b.goal.stream.Schema, b.goal.stream.Key = arrow.NewSchema(fields, nil), r.key
}

// schemaOf makes a schema of int columns, except name.
func schemaOf(names ...string) *arrow.Schema {
	fields := make([]arrow.Field, len(names))
	for i, n := range names {
		fields[i] = arrow.Field{Name: n, Type: arrow.PrimitiveTypes.Int64, Nullable: true}
		if n == "name" {
			fields[i].Type = arrow.BinaryTypes.String
		}
	}
	return arrow.NewSchema(fields, nil)
}

// role makes a role, which belongs to the whole server.
func (b *bench) role(options string) string {
	b.t.Helper()
	b.roles++
	name := fmt.Sprintf("%s_r%d", b.db, b.roles)
	b.sql("CREATE ROLE " + name + " " + options)
	b.t.Cleanup(func() { b.sql("DROP OWNED BY " + name + " CASCADE; DROP ROLE " + name) })
	return name
}

package postgres

import (
	"context"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/codec"
	"rapidbyte.io/node/messages"
)

// beginAll begins loads as the engine does.
func (r *rig) beginAll(ctx context.Context, loads ...connectors.Load) error {
	r.t.Helper()
	b, ok := r.s.(connectors.Beginner)
	require.True(r.t, ok)
	return b.BeginAll(ctx, loads)
}

// like is a stream with the columns of a table.
func (r *rig) like(conn *pgx.Conn, table string) connectors.StreamPlan {
	r.t.Helper()
	t, err := readRelation(r.t.Context(), conn, "public", table)
	require.NoError(r.t, err)
	sp := streamOf(table)
	var f []arrow.Field
	for _, c := range t.columns {
		one, _ := codec.Field(c.Column, false)
		f = append(f, one)
	}
	sp.Schema = fields(f...)
	return sp
}

// A table that is to be widened is locked against everybody: while it is waited for, no other
// table is.
func TestPGNoTableIsLockedWhileAnotherIsWaitedFor(t *testing.T) {
	r := newRig(t, connectors.WritePolicy{}, func(c *DestinationConfig) { c.LockTimeout = time.Minute })
	r.next()
	r.sql("CREATE TABLE a (id bigint); CREATE TABLE b (id bigint); CREATE TABLE c (id bigint)")
	var loads []connectors.Load
	for _, name := range []string{"new", "a", "b", "c", "newer"} {
		loads = append(loads, loadOf(connectors.ModeAppend, 1, streamOf(name), messages.PartID(name)))
	}
	reader := r.other()
	_, err := reader.Exec(t.Context(), "BEGIN; SELECT FROM b")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- r.beginAll(t.Context(), loads...) }()
	require.Eventually(t, func() bool {
		return len(r.server.Query(t, r.db, "SELECT 1 FROM pg_locks WHERE relation = 'b'::regclass AND NOT granted")) == 1
	}, 30*time.Second, 20*time.Millisecond)
	require.Equal(t, [][]string{{"b"}}, r.server.Query(t, r.db, "SELECT DISTINCT relation::regclass::text FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation > 16383 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"))
	_, err = reader.Exec(t.Context(), "COMMIT")
	require.NoError(t, err)
	require.NoError(t, <-done)
	require.Len(t, r.noted(), len(loads))
	for _, name := range []string{"a", "b", "c"} {
		require.Equal(t, [][]string{{"2"}}, r.server.Query(t, r.db, "SELECT count(*) FROM pg_attribute WHERE attnum > 0 AND attrelid = '"+name+"'::regclass"))
	}
}

// The same holds for a load that goes on with another shape.
func TestPGALoadOfAnotherShapeIsBegunByItself(t *testing.T) {
	r := newRig(t, connectors.WritePolicy{}, nil)
	r.next()
	loads := func() (out []connectors.Load) {
		for _, name := range []string{"a", "b", "c"} {
			out = append(out, loadOf(connectors.ModeAppend, 1, streamOf(name), messages.PartID(name)))
		}
		return out
	}
	require.NoError(t, r.beginAll(t.Context(), loads()...))
	wider := loads()
	more := nameField
	more.Name = "more"
	for i := range wider {
		wider[i].Shape, wider[i].Streams[0].Schema = "wider", fields(idField, nameField, more)
	}
	reader := r.other()
	_, err := reader.Exec(t.Context(), "BEGIN; SELECT FROM c")
	require.NoError(t, err)
	requireError(t, r.beginAll(t.Context(), wider...), connectors.KindTransient, messages.CodeDestBusy, "lock")
	require.Equal(t, [][]string{{"a"}, {"b"}}, r.server.Query(t, r.db, "SELECT attrelid::regclass::text FROM pg_attribute WHERE attname = 'more' ORDER BY 1"), "those before it")
	_, err = reader.Exec(t.Context(), "COMMIT")
	require.NoError(t, err)
	require.NoError(t, r.beginAll(t.Context(), wider...))
	require.Len(t, r.server.Query(t, r.db, "SELECT 1 FROM pg_attribute WHERE attname = 'more'"), 3)
}

// What the server refuses to do in one transaction it does in several: a label that an enum
// has got may not be used in the transaction that added it.
func TestPGLoadsThatCannotBeBegunTogetherAreBegunAlone(t *testing.T) {
	source := newRig(t, connectors.WritePolicy{}, nil)
	source.sql(`CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE DOMAIN fair AS mood CHECK (VALUE < 'happy');
		CREATE TABLE a (id bigint, m mood); CREATE TABLE b (id bigint, f fair)`)
	from := source.other()
	r := newRig(t, connectors.WritePolicy{}, nil)
	r.next()
	r.sql("CREATE TYPE mood AS ENUM ('sad')")
	a, b := source.like(from, "a"), source.like(from, "b")
	require.NoError(t, r.beginAll(t.Context(), loadOf(connectors.ModeAppend, 1, a, "a"), loadOf(connectors.ModeAppend, 1, b, "b")))
	require.Len(t, r.noted(), 2)
}

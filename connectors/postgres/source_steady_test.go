package postgres

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/messages"
)

// TestPGSourceTableThatIsAlteredBeforeItIsLocked: its bytes would be read as of another type.
func TestPGSourceTableThatIsAlteredBeforeItIsLocked(t *testing.T) {
	o := newOrigin(t, "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL); INSERT INTO t SELECT i, i FROM generate_series(1, 3) i", nil)
	late := o.session()
	exec(t, late, "BEGIN; ALTER TABLE t ALTER n TYPE float4 USING n::float4")
	_, err := o.scanning(func(<-chan struct{}) {
		require.Eventually(t, func() bool {
			return len(o.server.Query(t, o.db, "SELECT pid FROM pg_locks WHERE NOT granted AND relation = 't'::regclass")) > 0
		}, 10*time.Second, time.Millisecond)
		exec(t, late, "COMMIT")
	}, full("t"))
	typed(t, err, connectors.KindTransient, messages.CodeSourceChanged)
	require.Equal(t, []string{"1|1", "2|2", "3|3"}, o.once(full("t"))["t"])
}

// TestPGSourceReadsByRightsOnColumns: LOCK wants the right on the table.
func TestPGSourceReadsByRightsOnColumns(t *testing.T) {
	o := newOrigin(t, `CREATE TABLE t (id int PRIMARY KEY, secret text) PARTITION BY RANGE (id); CREATE TABLE t1 PARTITION OF t DEFAULT; INSERT INTO t VALUES (1, 'x');
		DROP ROLE IF EXISTS by_column; CREATE ROLE by_column LOGIN; GRANT SELECT (id) ON t TO by_column`, nil)
	t.Cleanup(func() { o.server.Exec(t, o.db, "DROP OWNED BY by_column; DROP ROLE by_column") })
	o.source = newSource(t, o.server, o.db, func(c *SourceConfig) {
		c.DSN = connectors.NewSecret(strings.Replace(o.server.URL(o.db), o.server.User()+"@", "by_column@", 1))
	})
	spec := full("t")
	spec.Columns = []string{"id"}
	require.Equal(t, []string{"1"}, o.once(spec)["t"])
}

// TestPGSourceKeysOfAParentAreNotThoseOfInheritors: rows share them.
func TestPGSourceKeysOfAParentAreNotThoseOfInheritors(t *testing.T) {
	o := newOrigin(t, `CREATE TABLE t (id int PRIMARY KEY, n int); CREATE TABLE c () INHERITS (t);
		INSERT INTO t SELECT i, 1 FROM generate_series(1, 5) i; INSERT INTO c SELECT i, 2 FROM generate_series(1, 5) i`, nil)
	o.limits.BatchRows = 1
	plan := o.scan(following("t", "id"))
	require.Empty(t, plan.Loads[0].Streams[0].Key)
	at, seen := []int{}, 0
	whole, err := o.read(plan.Loads[0].Parts[0], 1, func(it messages.Item, r *reading, _ *conntest.Emitter) error {
		if _, ok := it.(messages.Barrier); ok {
			at = append(at, seen)
		}
		seen = len(r.rows)
		return nil
	})
	require.NoError(t, err)
	require.Len(t, whole.rows, 10)
	require.Greater(t, len(at), 1)
	for _, n := range at {
		require.Zero(t, n%2, "a barrier between rows that share a position: %v", at)
	}
}

// stopped reads the first part of a plan up to its barrier number n, and keeps it.
func (o *origin) stopped(plan connectors.Plan, n int) []string {
	o.t.Helper()
	stop, rows := errors.New("stop"), 0
	part := plan.Loads[0].Parts[0]
	got, err := o.read(part, 1, func(it messages.Item, r *reading, _ *conntest.Emitter) error {
		if _, ok := it.(messages.Barrier); ok && len(r.barriers) == n {
			rows = len(r.rows)
			return stop
		}
		return nil
	})
	require.ErrorIs(o.t, err, stop)
	o.at[part.ID] = got.barriers[n-1].Position
	o.remember(plan)
	return got.rows[:rows]
}

const padded = "CREATE TABLE t (id int, pad text); INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 60) i; DELETE FROM t WHERE id <= 20;"

// TestPGSourceRewrittenTableIsNotReadOn: blocks are not where they were.
func TestPGSourceRewrittenTableIsNotReadOn(t *testing.T) {
	for sql, want := range map[string]connectors.Continuity{
		"SELECT":        connectors.ContinueDrift,
		"VACUUM t":      connectors.ContinueDrift,
		"VACUUM FULL t": connectors.ContinueLost,
		"TRUNCATE t":    connectors.ContinueLost,
	} {
		t.Run(sql, func(t *testing.T) {
			o := newOrigin(t, padded, nil)
			first := o.stopped(o.scan(full("t")), 5)
			o.exec(sql)
			plan := o.scan(full("t"))
			require.Equal(t, want, plan.Loads[0].Continuity)
			if want == connectors.ContinueDrift {
				sameRows(t, o.texts("SELECT id, pad FROM t"), append(first, o.all(plan)["t"]...))
			}
		})
	}
}

// TestPGSourcePartitionThatIsAttachedMeanwhile: pieces that were read before lack its rows.
func TestPGSourcePartitionThatIsAttachedMeanwhile(t *testing.T) {
	o := newOrigin(t, padded+`ALTER TABLE t RENAME TO b; CREATE TABLE p (id int, pad text) PARTITION BY RANGE (id); CREATE TABLE a PARTITION OF p FOR VALUES FROM (100) TO (200);
		INSERT INTO a SELECT i, repeat('x', 1000) FROM generate_series(100, 140) i`, nil)
	plan := o.scan(full("p"))
	attached := false
	_, err := o.read(plan.Loads[0].Parts[0], 1, func(_ messages.Item, r *reading, _ *conntest.Emitter) error {
		if !attached && len(r.rows) > 10 {
			attached = true
			o.exec("ALTER TABLE p ATTACH PARTITION b FOR VALUES FROM (0) TO (100)")
		}
		return nil
	})
	typed(t, err, connectors.KindScanLost, messages.CodeSourceChanged)
	o.remember(plan)
	sameRows(t, o.texts("SELECT id, pad FROM p"), o.once(full("p"))["p"])
}

// TestPGSourceTableThatIsRewrittenBehindALostScan: what still has the snapshot would find
// a table empty that never was.
func TestPGSourceTableThatIsRewrittenBehindALostScan(t *testing.T) {
	o := newOrigin(t, "CREATE TABLE a (id int); CREATE TABLE b (id int); INSERT INTO a VALUES (1); INSERT INTO b VALUES (1)", nil)
	plan := o.scan(full("a"), full("b"))
	_, err := o.read(plan.Loads[0].Parts[0], 0, nil)
	require.NoError(t, err)
	scan, ok := o.open[0].(*snapshotScan)
	require.True(t, ok)
	require.NoError(t, scan.conn.Close(t.Context()))
	o.exec("SET lock_timeout = '10s'; BEGIN; TRUNCATE b; INSERT INTO b VALUES (2); COMMIT")
	_, err = o.read(plan.Loads[1].Parts[0], 0, nil)
	typed(t, err, connectors.KindScanLost, messages.CodeSourceChanged)
}

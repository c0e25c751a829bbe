package postgres

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/connectors/postgres/pgtest"
	"rapidbyte.io/node/messages"
)

// session is a connection of somebody else.
func (o *origin) session() *pgx.Conn {
	o.t.Helper()
	conn, err := pgx.Connect(o.t.Context(), o.server.URL(o.db))
	require.NoError(o.t, err)
	o.t.Cleanup(func() { require.NoError(o.t, conn.Close(context.Background())) })
	return conn
}

// scanning runs a scan until do has returned and the scan has ended.
func (o *origin) scanning(do func(ended <-chan struct{}), specs ...connectors.StreamSpec) (connectors.Plan, error) {
	o.t.Helper()
	var plan connectors.Plan
	var err error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		plan, err = o.tryScan(specs...)
	}()
	do(ended)
	<-ended
	return plan, err
}

func exec(t *testing.T, c *pgx.Conn, sql string) {
	t.Helper()
	_, err := c.Exec(t.Context(), sql)
	require.NoError(t, err)
}

// waits requires that the scan still waits after it has looked at the writers again.
func (o *origin) waits(ended <-chan struct{}) {
	o.t.Helper()
	const sql = "SELECT extract(epoch FROM query_start) FROM pg_stat_activity WHERE application_name LIKE 'rb:%:e:1' AND query LIKE '%virtualtransaction%'"
	var seen []string
	require.Eventually(o.t, func() bool {
		for _, row := range o.server.Query(o.t, o.db, sql) {
			if len(seen) == 0 || seen[len(seen)-1] != row[0] {
				seen = append(seen, row[0])
			}
		}
		select {
		case <-ended:
			return true
		default:
			return len(seen) > 2
		}
	}, 10*time.Second, time.Millisecond)
	select {
	case <-ended:
		o.t.Error("the scan did not wait")
	default:
	}
}

// TestPGSourceStrictWaitsForWhatIsPreparedMeanwhile: a transaction that is prepared goes
// on under another name.
func TestPGSourceStrictWaitsForWhatIsPreparedMeanwhile(t *testing.T) {
	s := pgtest.Start(t, "max_prepared_transactions=5", "fsync=off")
	o := originOn(t, s, s.Database(t), "CREATE TABLE t (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY)", nil)
	late := o.session()
	exec(t, late, "BEGIN; INSERT INTO t DEFAULT VALUES")
	o.exec("INSERT INTO t DEFAULT VALUES")
	spec := following("t", "id")
	spec.CursorMode = cursorStrict
	plan, err := o.scanning(func(ended <-chan struct{}) {
		o.waits(ended)
		exec(t, late, "PREPARE TRANSACTION 'x'")
		o.waits(ended)
		exec(t, late, "COMMIT PREPARED 'x'")
	}, spec)
	require.NoError(t, err)
	require.Equal(t, []string{"1", "2"}, o.all(plan)["t"])
}

// TestPGSourceStrictWaitsForWritersOfViews: they lock the tables, not the view.
func TestPGSourceStrictWaitsForWritersOfViews(t *testing.T) {
	o := newOrigin(t, `CREATE TABLE t (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, n int) PARTITION BY RANGE (id); CREATE TABLE t1 PARTITION OF t DEFAULT;
		CREATE VIEW v AS SELECT * FROM t; CREATE VIEW w AS SELECT id FROM v WHERE n IS NULL`, nil)
	late := o.session()
	exec(t, late, "BEGIN; INSERT INTO t DEFAULT VALUES")
	o.exec("INSERT INTO t DEFAULT VALUES")
	spec := following("w", "id")
	spec.CursorMode = cursorStrict
	plan, err := o.scanning(func(ended <-chan struct{}) {
		o.waits(ended)
		exec(t, late, "COMMIT")
	}, spec)
	require.NoError(t, err)
	require.Equal(t, []string{"1", "2"}, o.all(plan)["w"])
}

// TestPGSourceStrictIsRefusedWhereNobodySeesWriters: rows that commit late would be lost.
func TestPGSourceStrictIsRefusedWhereNobodySeesWriters(t *testing.T) {
	o := newOrigin(t, `CREATE TABLE t (id int); CREATE MATERIALIZED VIEW m AS SELECT * FROM t; CREATE VIEW v AS SELECT * FROM m;
		CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing; CREATE TABLE p (id int) PARTITION BY LIST (id);
		CREATE FOREIGN TABLE f PARTITION OF p FOR VALUES IN (1) SERVER nowhere; CREATE TABLE empty (id int) PARTITION BY LIST (id)`, nil)
	for stream, why := range map[messages.StreamID]string{"m": "a materialised view", "v": "a materialised view"} {
		spec := following(stream, "id")
		spec.CursorMode = cursorStrict
		_, err := o.tryScan(spec)
		e := typed(t, err, connectors.KindConfig, messages.CodeDocValue)
		require.Contains(t, e.Error(), why)
		require.Equal(t, "cursor_mode", e.Place.Field)
		found, err := o.source.Check(t.Context(), []connectors.StreamSpec{spec})
		require.NoError(t, err)
		require.Condition(t, func() bool {
			for _, f := range found {
				if f.Severity == connectors.SeverityError && f.Where.Field == "cursor_mode" {
					return true
				}
			}
			return false
		}, "%+v", found)
		spec.CursorMode = "raw"
		require.Empty(t, o.once(spec)[stream])
	}
	spec := following("p", "id")
	spec.CursorMode = ""
	found, err := o.source.Check(t.Context(), []connectors.StreamSpec{spec})
	require.NoError(t, err)
	require.Contains(t, found[len(found)-1].Message, "a foreign table")
}

func TestWritersThatRemain(t *testing.T) {
	a, b, x, y := openWriter{"3/1", 7}, openWriter{"4/1", 8}, openWriter{"-1/700", 0}, openWriter{"-1/701", 0}
	require.Equal(t, []openWriter{a}, remaining([]openWriter{a, b}, []openWriter{a}))
	require.Equal(t, []openWriter{x}, remaining([]openWriter{x}, []openWriter{x, y, a}), "who begins later is not waited for")
	require.Equal(t, []openWriter{a, x}, remaining([]openWriter{a, b}, []openWriter{a, x}), "b may have become x")
	require.Empty(t, remaining([]openWriter{x}, []openWriter{y}), "a prepared one only ends")
	require.Empty(t, remaining([]openWriter{a, b}, nil))
}

// TestPGSourceNullsAreNotAskedForAnyMore: the position among them is none of the cursor.
func TestPGSourceNullsAreNotAskedForAnyMore(t *testing.T) {
	o := newOrigin(t, "CREATE TABLE t (id int PRIMARY KEY, c int); INSERT INTO t SELECT i, CASE WHEN i % 2 = 0 THEN i END FROM generate_series(1, 10) i", nil)
	o.limits.BatchRows = 1
	spec := following("t", "c")
	spec.NullCursor = "first"
	plan := o.scan(spec)
	stop := errors.New("stop")
	got, err := o.read(plan.Loads[0].Parts[0], 1, func(it messages.Item, r *reading, _ *conntest.Emitter) error {
		if len(r.barriers) == 3 {
			return stop
		}
		return nil
	})
	require.ErrorIs(t, err, stop)
	o.at["t"] = got.barriers[2].Position
	o.remember(plan)
	spec.NullCursor = "ignore"
	require.Equal(t, []string{"2|2", "4|4", "6|6", "8|8", "10|10"}, o.once(spec)["t"])
}

// TestPGSourceStrictIsRefusedOnAStandby: writers hold their locks at the primary.
func TestPGSourceStrictIsRefusedOnAStandby(t *testing.T) {
	s := pgtest.Start(t, "fsync=off")
	o := originOn(t, s, "postgres", "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)", nil)
	s.Stop(t)
	s.File(t, "standby.signal", "")
	s.Restart(t)
	spec := following("t", "id")
	require.Equal(t, []string{"1"}, o.all(o.scan(spec))["t"])
	spec.CursorMode = cursorStrict
	_, err := o.tryScan(spec)
	e := typed(t, err, connectors.KindConfig, messages.CodeDocValue)
	require.Contains(t, e.Error(), "hot standby")
}

// TestPGSourceStrictByTimeIsWarnedOf: a transaction that has not written yet holds no lock,
// and its now() is from before the bound. What looks back finds its rows.
func TestPGSourceStrictByTimeIsWarnedOf(t *testing.T) {
	for mode, want := range map[string][]string{cursorStrict: nil, cursorLookback: {"1", "2"}} {
		t.Run(mode, func(t *testing.T) {
			o := newOrigin(t, "CREATE TABLE t (id int PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())", nil)
			late := o.session()
			exec(t, late, "BEGIN; SELECT 1")
			o.exec("INSERT INTO t VALUES (2)")
			spec := following("t", "at")
			spec.Columns, spec.CursorMode = []string{"id"}, mode
			if mode == cursorLookback {
				spec.Lookback = time.Hour
			}
			found, err := o.source.Check(t.Context(), []connectors.StreamSpec{spec})
			require.NoError(t, err)
			require.Equal(t, mode == cursorStrict, slices.ContainsFunc(found, func(f connectors.Finding) bool {
				return f.Severity == connectors.SeverityWarning && f.Where.Field == "at" && strings.Contains(f.Message, "now()")
			}), "%+v", found)
			require.Equal(t, []string{"2"}, o.once(spec)["t"])
			exec(t, late, "INSERT INTO t VALUES (1); COMMIT")
			require.Equal(t, want, o.once(spec)["t"])
		})
	}
}

package postgres

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
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

// onOldServer makes the writers of a rig believe that the server has no MERGE.
func (r *rig) onOldServer(p *pgtest.Proxy, change func(*DestinationConfig)) {
	r.t.Helper()
	p.Judge(func(m pgtest.Message) pgtest.Fate {
		if version, ok := bytes.CutPrefix(m.Body, []byte("server_version\x00")); ok && m.Type == 'S' {
			copy(version, "14")
		}
		return pgtest.Pass
	})
	policy := r.dest.policy
	r.dest = newDestination(r.t, r.server, r.db, policy, func(c *DestinationConfig) {
		c.Host, c.Port = "127.0.0.1", p.Port()
		if change != nil {
			change(c)
		}
	})
}

// forUpserts runs a test for each way in which an upsert can go.
func forUpserts(t *testing.T, policy connectors.WritePolicy, test func(t *testing.T, r *rig)) {
	for _, old := range []bool{false, true} {
		for _, method := range []LoadMethod{LoadCopy, LoadInsert} {
			t.Run(fmt.Sprintf("%s/old server %t", method, old), func(t *testing.T) {
				set := func(c *DestinationConfig) { c.LoadMethod = method }
				p := pgtest.NewProxy(t, pgtest.Shared(t).Port()) // before the rig: it outlives its connections
				r := newRig(t, policy, set)
				if old {
					r.onOldServer(p, set)
				}
				test(t, r)
			})
		}
	}
}

// Short rows go onto pages that long ones have left room on: the place of a staged row
// says nothing about when it came.
func TestPGUpsertKeepsTheNewestOfRowsOfAnyLength(t *testing.T) {
	forUpserts(t, connectors.WritePolicy{}, func(t *testing.T, r *rig) {
		w := r.writer(connectors.ModeUpsert, orders, 1)
		rng := rand.New(rand.NewPCG(1, 2))
		newest := map[int]string{}
		for batch := range 20 {
			var rows [][]any
			for i := range 200 {
				text := make([]byte, 10)
				if rng.IntN(3) == 0 {
					text = make([]byte, 1000+rng.IntN(950))
				}
				for j := range text {
					text[j] = byte('!' + rng.IntN(90)) // no compression
				}
				id := rng.IntN(300)
				newest[id] = fmt.Sprintf("%d %s", 200*batch+i, text)
				rows = append(rows, []any{id, newest[id]})
			}
			r.write(w, orders, rows...)
		}
		r.commit(w, messages.BarrierEnd, 4000, 4000)
		require.NoError(t, w.Close(t.Context()))
		var want [][]string
		for id, text := range newest {
			want = append(want, []string{fmt.Sprint(id), text})
		}
		require.ElementsMatch(t, want, r.server.Query(t, r.db, "SELECT id, name FROM orders"))
	})
}

// Of a row whose key is NULL nobody can tell whether it is there already.
func TestPGUpsertRefusesKeysThatAreNull(t *testing.T) {
	forUpserts(t, connectors.WritePolicy{OnDataError: connectors.DataDLQ}, func(t *testing.T, r *rig) {
		sp := orders
		sp.Schema = fields(arrow.Field{Name: "id", Type: arrow.PrimitiveTypes.Int64, Nullable: true}, nameField)
		r.sql("CREATE TABLE orders (id bigint UNIQUE, name text)")
		w := r.writer(connectors.ModeUpsert, sp, 1)
		r.write(w, sp, []any{1, "a"}, []any{nil, "b"}, []any{nil, "c"}, []any{2, "d"})
		receipt := r.commit(w, messages.BarrierEnd, 4, 4)
		require.NoError(t, w.Close(t.Context()))
		require.Equal(t, messages.Counts{Read: 4, Arrived: 4, Applied: 2, Rejected: 2}, receipt.Rows)
		require.ElementsMatch(t, []string{"1|a", "2|d"}, r.rows("orders"))
		letters, err := r.dest.DeadLetters(t.Context(), connectors.DeadLetterQuery{Pipeline: testPipeline})
		require.NoError(t, err)
		require.Len(t, letters, 2)
		require.Equal(t, []int64{2, 3}, []int64{letters[0].Ordinal, letters[1].Ordinal})
		require.Equal(t, "column id: the key column id is NULL", letters[0].Message)
		require.Equal(t, notNullViolation, letters[0].SQLState)
	})
}

// Values of a key that are equal are not always the same: the newest is kept.
func TestPGUpsertWritesKeysAsTheyCame(t *testing.T) {
	numeric, _ := codec.Field(codec.Column{Name: "id", Type: &codec.Type{OID: 1700, Schema: "pg_catalog", Name: "numeric", Mod: -1, SQL: "numeric", Kind: codec.KindBase}}, false)
	sp := connectors.StreamPlan{Stream: "prices", Target: "prices", Schema: fields(numeric, nameField), Key: []string{"id"}}
	forUpserts(t, connectors.WritePolicy{}, func(t *testing.T, r *rig) {
		w := r.writer(connectors.ModeUpsert, sp, 1)
		r.write(w, sp, []any{"1.0", "a"}, []any{"2", "b"})
		r.commit(w, messages.BarrierPeriodic, 2, 2)
		r.write(w, sp, []any{"1", "a"}, []any{"1.00", "a"}, []any{"2", "c"})
		r.commit(w, messages.BarrierEnd, 5, 3)
		require.NoError(t, w.Close(t.Context()))
		require.Equal(t, [][]string{{"1.00", "a"}, {"2", "c"}}, r.server.Query(t, r.db, "SELECT id, name FROM prices ORDER BY id"))
	})
}

func TestPGUpsertByAKeyOfALaxCollation(t *testing.T) {
	forUpserts(t, connectors.WritePolicy{}, func(t *testing.T, r *rig) {
		r.sql(`CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
			CREATE TABLE people (name text COLLATE ci PRIMARY KEY, n bigint); INSERT INTO people VALUES ('Ann', 1)`)
		schema := fields(arrow.Field{Name: "name", Type: arrow.BinaryTypes.String}, arrow.Field{Name: "n", Type: arrow.PrimitiveTypes.Int64})
		sp := connectors.StreamPlan{Stream: "people", Target: "people", Key: []string{"name"}, Schema: schema}
		w := r.writer(connectors.ModeUpsert, sp, 1)
		r.write(w, sp, []any{"ann", 2}, []any{"bob", 3}, []any{"ANN", 4}, []any{"BOB", 5})
		r.commit(w, messages.BarrierEnd, 4, 4)
		require.NoError(t, w.Close(t.Context()))
		require.Equal(t, [][]string{{"ANN", "4"}, {"BOB", "5"}}, r.server.Query(t, r.db, "SELECT name, n FROM people ORDER BY n"))
	})
}

// Somebody else inserts a key while the rows are merged: that is no fault of the row.
func TestPGUpsertBesideAForeignInsert(t *testing.T) {
	for _, policy := range []connectors.DataErrorPolicy{connectors.DataFail, connectors.DataDLQ} {
		forUpserts(t, connectors.WritePolicy{OnDataError: policy}, func(t *testing.T, r *rig) {
			r.sql("CREATE TABLE orders (id bigint PRIMARY KEY, name text)")
			w := r.writer(connectors.ModeUpsert, orders, 1)
			r.write(w, orders, []any{1, "ours"})
			other, err := pgx.Connect(t.Context(), r.server.URL(r.db))
			require.NoError(t, err)
			defer closeConn(other)
			_, err = other.Exec(t.Context(), "BEGIN; INSERT INTO orders VALUES (1, 'theirs')")
			require.NoError(t, err)
			done := make(chan error, 1)
			go func() {
				_, err := w.Commit(t.Context(), barrierAt(messages.BarrierEnd, 1, 1))
				done <- err
			}()
			require.Eventually(t, func() bool {
				return r.server.Query(t, r.db, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted")[0][0] == "t"
			}, 5*time.Second, 5*time.Millisecond)
			_, err = other.Exec(t.Context(), "COMMIT")
			require.NoError(t, err)
			require.NoError(t, <-done)
			require.Equal(t, []string{"1|ours"}, r.rows("orders"))
			require.NoError(t, w.Close(t.Context()))
		})
	}
}

// A trigger that lets inserts through and not updates is noticed, too.
func TestPGTriggerThatSwallowsUpdatesIsNoticed(t *testing.T) {
	forUpserts(t, connectors.WritePolicy{}, func(t *testing.T, r *rig) {
		r.sql(`CREATE TABLE orders (id bigint PRIMARY KEY, name text); INSERT INTO orders VALUES (1, 'old'), (2, 'same');
			CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF TG_OP = 'UPDATE' AND OLD.id = 1 THEN RETURN NULL; END IF; RETURN NEW; END $$;
			CREATE TRIGGER tr BEFORE INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION f()`)
		w := r.writer(connectors.ModeUpsert, orders, 1)
		r.write(w, orders, []any{2, "same"}, []any{3, "new"})
		r.commit(w, messages.BarrierPeriodic, 2, 2)
		r.write(w, orders, []any{1, "new"}, []any{2, "same"})
		_, err := w.Commit(t.Context(), barrierAt(messages.BarrierEnd, 4, 2))
		requireError(t, err, connectors.KindConfig, messages.CodeRowsSwallowed, "1 rows of orders were to be written, 0 were")
		require.NoError(t, w.Close(t.Context()))
		require.ElementsMatch(t, []string{"1|old", "2|same", "3|new"}, r.rows("orders"))
	})
}

// A statement that fails takes back what earlier ones have staged, and what was noted of it.
func TestPGRowsThatAreStagedAgainAreCountedOnce(t *testing.T) {
	forUpserts(t, connectors.WritePolicy{OnDataError: connectors.DataDLQ}, func(t *testing.T, r *rig) {
		r.sql("CREATE DOMAIN small AS bigint CHECK (value < 5000); CREATE TABLE orders (id bigint PRIMARY KEY, n small, name text UNIQUE)")
		small := &codec.Type{Schema: "public", Name: "small", Mod: -1, SQL: "public.small", Kind: codec.KindDomain, Base: &codec.Type{OID: 20, Schema: "pg_catalog", Name: "int8", Mod: -1, SQL: "bigint", Kind: codec.KindBase}}
		n, _ := codec.Field(codec.Column{Name: "n", Type: small}, false)
		sp := connectors.StreamPlan{Stream: "orders", Target: "orders", Schema: fields(idField, n, nameField), Key: []string{"id"}}
		var rows [][]any
		for i := range 2500 {
			row := []any{i, i, fmt.Sprint("name ", i)}
			switch i {
			case 1200, 2300:
				row[1] = 9000 // refused by the temporary table
			case 700, 2400:
				row[2] = "name 5" // refused by the table
			}
			rows = append(rows, row)
		}
		w := r.writer(connectors.ModeUpsert, sp, 1)
		r.write(w, sp, rows...)
		receipt := r.commit(w, messages.BarrierEnd, 2500, 2500)
		require.NoError(t, w.Close(t.Context()))
		require.Equal(t, messages.Counts{Read: 2500, Arrived: 2500, Applied: 2496, Rejected: 4}, receipt.Rows)
		letters, err := r.dest.DeadLetters(t.Context(), connectors.DeadLetterQuery{Pipeline: testPipeline})
		require.NoError(t, err)
		var ordinals []int64
		for _, l := range letters {
			ordinals = append(ordinals, l.Ordinal-1)
			rec, err := decodeRow(l.Row)
			require.NoError(t, err)
			require.True(t, strings.HasPrefix(rec.Column(0).ValueStr(0), fmt.Sprint(l.Ordinal-1)), "the letter holds its row")
			rec.Release()
		}
		slices.Sort(ordinals)
		require.Equal(t, []int64{700, 1200, 2300, 2400}, ordinals)
		require.Equal(t, [][]string{{"2496"}}, r.server.Query(t, r.db, "SELECT count(*) FROM orders"))
	})
}

// The temporary table has one column more than are written.
func TestPGUpsertOfAsManyColumnsAsThereCanBe(t *testing.T) {
	for _, method := range []LoadMethod{LoadCopy, LoadInsert} {
		r := newRig(t, connectors.WritePolicy{OnDataError: connectors.DataDLQ}, func(c *DestinationConfig) { c.LoadMethod = method })
		sp := connectors.StreamPlan{Stream: "wide", Target: "wide", Key: []string{"c0"}}
		wide := func(n int) *arrow.Schema {
			var all []arrow.Field
			for i := range n {
				all = append(all, arrow.Field{Name: fmt.Sprint("c", i), Type: arrow.PrimitiveTypes.Int32})
			}
			return fields(all...)
		}
		sp.Schema = wide(columnsMax)
		r.next()
		requireError(t, r.s.Begin(t.Context(), loadOf(connectors.ModeUpsert, 1, sp, "wide")), connectors.KindSchema, messages.CodeSchemaColumn, "an upsert can have 1599")
		sp.Schema = wide(columnsMax - 1)
		var rows [][]any
		for i := range 45 { // 40 rows have as many parameters as a statement can have
			rows = append(rows, slices.Repeat([]any{i}, columnsMax-1))
		}
		w := r.writer(connectors.ModeUpsert, sp, 1)
		r.write(w, sp, rows...)
		require.EqualValues(t, 45, r.commit(w, messages.BarrierEnd, 45, 45).Rows.Applied)
		require.NoError(t, w.Close(t.Context()))
		require.Len(t, r.server.Query(t, r.db, "SELECT c0 FROM wide"), 45)
	}
}

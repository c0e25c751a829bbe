package query

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors/postgres/pgtest"
)

func connect(t *testing.T, s *pgtest.Server, db string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.URL(db))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close(t.Context())) })
	return conn
}

// row is a row of the table of combinations, as Go has it.
type row struct {
	id, block int
	c         *int
	a         string
	b         *float64
}

const combinationTable = `CREATE SCHEMA "s.1";
CREATE TABLE "s.1"."t ""x""" (id int PRIMARY KEY, c int, a text NOT NULL, b numeric(4,1), pad text);
ALTER TABLE "s.1"."t ""x""" ALTER pad SET STORAGE PLAIN;
INSERT INTO "s.1"."t ""x""" SELECT i, CASE WHEN i % 7 = 0 THEN NULL ELSE i * 13 % 6 * 5 END, chr(97 + i * 5 % 26), CASE WHEN i % 11 = 0 THEN NULL ELSE i % 10 / 2.0 END,
	repeat('x', 1500) FROM generate_series(1, 40) i;`

// TestPGEveryCombinationSelectsItsRows compares the server with a model in Go.
func TestPGEveryCombinationSelectsItsRows(t *testing.T) {
	server := pgtest.Shared(t)
	db := server.Database(t)
	server.Exec(t, db, combinationTable)
	conn := connect(t, server, db)
	rows, err := conn.Query(t.Context(), `SELECT id, (ctid::text::point)[0]::int, c, a, b::float8 FROM "s.1"."t ""x"""`)
	require.NoError(t, err)
	all, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (x row, err error) {
		err = r.Scan(&x.id, &x.block, &x.c, &x.a, &x.b)
		return x, err
	})
	require.NoError(t, err)
	require.Greater(t, all[len(all)-1].block, 5, "blocks")
	cases := combinations()
	require.Greater(t, len(cases), 3000)
	for _, c := range cases {
		sql, err := Select(c.Stream)
		require.NoError(t, err)
		rows, err := conn.Query(t.Context(), "SELECT id FROM (\n"+sql+"\n) AS q", pgx.QueryExecModeSimpleProtocol)
		require.NoError(t, err, sql)
		got, err := pgx.CollectRows(rows, pgx.RowTo[int])
		require.NoError(t, err, "%s\n%s", c.name, sql)
		want := model(c.Stream, all)
		if c.Limit > 0 && (len(c.Order) == 0 || len(c.Order) < 3) { // which ones is open
			require.Len(t, got, min(len(want), int(c.Limit)), "%s\n%s", c.name, sql)
			continue
		}
		if c.Limit > 0 {
			want = want[:min(len(want), int(c.Limit))]
		}
		slices.Sort(got)
		slices.Sort(want)
		require.Equal(t, want, got, "%s\n%s", c.name, sql)
	}
}

func deref[V any](p *V) V {
	if p == nil {
		return *new(V)
	}
	return *p
}

func number(s string) float64 {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		panic(err)
	}
	return v
}

// against compares x with the values of keys.
func against(x row, keys []Key, values []string) int {
	for i, v := range values {
		var d int
		switch keys[i].Column {
		case "c":
			d = cmp.Compare(float64(deref(x.c)), number(v))
		case "a":
			d = cmp.Compare(x.a, v)
		case "b":
			d = cmp.Compare(deref(x.b), number(v))
		}
		if d != 0 {
			return d
		}
	}
	return 0
}

// model returns the ids that s selects, in its order. A comparison with NULL is false
// wherever it decides.
func model(s Stream, all []row) []int {
	keys := s.Order
	if len(keys) > 0 && s.Nulls == NullsOnly {
		keys = keys[1:]
	}
	var found []row
	for _, x := range all {
		if inside(s, x) && inOrder(s, keys, x) {
			found = append(found, x)
		}
	}
	slices.SortStableFunc(found, func(x, y row) int {
		values := make([]string, len(keys))
		for i, k := range keys {
			values[i] = map[string]string{"c": fmt.Sprint(deref(y.c)), "a": y.a, "b": fmt.Sprint(deref(y.b))}[k.Column]
			if k.Column == "b" && (x.b == nil) != (y.b == nil) { // NULLs last, behind equal ones before
				if d := against(x, keys[:i], values[:i]); d != 0 {
					return d
				}
				return map[bool]int{true: 1, false: -1}[x.b == nil]
			}
			if k.Column == "c" && (x.c == nil) != (y.c == nil) {
				return map[bool]int{true: 1, false: -1}[x.c == nil]
			}
		}
		return against(x, keys, values)
	})
	ids := make([]int, len(found))
	for i, x := range found {
		ids[i] = x.id
	}
	return ids
}

// inside decides about split and filter.
func inside(s Stream, x row) bool {
	if b := s.Blocks; b != nil && (x.block < int(b.From) || b.To > 0 && x.block >= int(b.To)) {
		return false
	}
	if r := s.Range; r != nil {
		bounded := r.From != nil || r.To != nil
		switch {
		case x.b == nil:
			if bounded && !r.Nulls {
				return false
			}
		case r.From != nil && *x.b < number(*r.From), r.To != nil && *x.b >= number(*r.To):
			return false
		}
	}
	return s.Filter == "" || x.id%2 == 0
}

// inOrder decides about cursor and position.
func inOrder(s Stream, keys []Key, x row) bool {
	if len(s.Order) == 0 {
		return true
	}
	if s.Nulls == NullsOnly && x.c != nil || s.Nulls == NullsNone && x.c == nil {
		return false
	}
	if n := min(len(s.After), len(keys)); n > 0 {
		known := true
		for i, k := range keys[:n] {
			null := k.Column == "c" && x.c == nil || k.Column == "b" && x.b == nil
			if null {
				known = against(x, keys[:i], s.After[:i]) != 0 // decided before it
				break
			}
			if against(x, keys[:i+1], s.After[:i+1]) != 0 {
				break
			}
		}
		behind := against(x, keys[:n], s.After[:n]) > 0
		if !known || behind == s.Again {
			return false
		}
	}
	if s.Nulls == NullsOnly {
		return true
	}
	if s.From != nil && (x.c == nil || *x.c < int(number(*s.From))) {
		return false
	}
	return s.UpTo == nil || x.c != nil && *x.c <= int(number(*s.UpTo))
}

// TestPGNamesAndLiteralsComeBack sends random names and texts through a server, whatever
// it is told about backslashes.
func TestPGNamesAndLiteralsComeBack(t *testing.T) {
	seed := uint64(1)
	if v := os.Getenv("RB_SEED"); v != "" {
		var err error
		seed, err = strconv.ParseUint(v, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("RB_SEED=%d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a test repeats
	server := pgtest.Shared(t)
	conn := connect(t, server, server.Database(t))
	texts := slices.Clone(nasty)
	for range 300 {
		var b strings.Builder
		for range rnd.IntN(20) {
			b.WriteString(nasty[rnd.IntN(len(nasty))])
			b.WriteRune(rune(rnd.IntN(0x250) + 1))
		}
		texts = append(texts, b.String())
	}
	for i, text := range texts {
		_, err := conn.Exec(t.Context(), "SET standard_conforming_strings = "+[]string{"on", "off"}[i%2])
		require.NoError(t, err)
		got, err := conn.PgConn().Exec(t.Context(), "SELECT "+Literal(text)).ReadAll()
		require.NoError(t, err, "%q", text)
		require.Equal(t, text, string(got[0].Rows[0][0]))
		name := text
		for len(name) > 63 || !utf8.ValidString(name) {
			name = name[:len(name)-1]
		}
		if name == "" {
			continue
		}
		got, err = conn.PgConn().Exec(t.Context(), "SELECT 1 AS "+Ident(name)).ReadAll()
		require.NoError(t, err, "%q", name)
		require.Equal(t, name, got[0].FieldDescriptions[0].Name)
	}
	_, err := conn.PgConn().Exec(t.Context(), "SELECT "+Literal("a\x00b")).ReadAll()
	require.Error(t, err, "NUL")
}

// TestPGLiteralsAreNotRoundedToFit: a cast with the column's modifier would change them.
func TestPGLiteralsAreNotRoundedToFit(t *testing.T) {
	server := pgtest.Shared(t)
	db := server.Database(t)
	server.Exec(t, db, "CREATE TABLE p (n numeric(10,2), v varchar(3)); INSERT INTO p VALUES (1.00, 'abc'), (1.01, 'abd')")
	conn := connect(t, server, db)
	for _, c := range []struct {
		key   Key
		value string
		want  int
	}{
		{Key{Column: "n", Type: Qualified("pg_catalog", "numeric")}, "1.004", 1},
		{Key{Column: "v", Type: Qualified("pg_catalog", "varchar")}, "abcd", 1},
		{Key{Column: "v", Type: Qualified("pg_catalog", "bpchar")}, "abc  ", 1},
	} {
		sql, err := Select(Stream{Schema: "public", Table: "p", Columns: []Column{{Name: "n"}}, Order: []Key{c.key}, After: []string{c.value}})
		require.NoError(t, err)
		var n int
		require.NoError(t, conn.QueryRow(t.Context(), "SELECT count(*) FROM (\n"+sql+"\n) q", pgx.QueryExecModeSimpleProtocol).Scan(&n))
		require.Equal(t, c.want, n, sql)
	}
}

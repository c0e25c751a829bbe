package rowcheck

import (
	"context"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors/postgres/pgtest"
)

func connected(t *testing.T, db string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), pgtest.Shared(t).URL(db))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close(context.Background())) })
	return conn
}

// once remembers the digest of a table that does not change.
type once struct {
	Table
	digest *Digest
}

func (o *once) Digest(ctx context.Context) (_ *Digest, err error) {
	if o.digest == nil {
		o.digest, err = o.Table.Digest(ctx)
	}
	return o.digest, err
}

// million rows are made by the server, and again here.
const million = 1_000_000

var millionColumns = []string{"id", "name", "price", "flag"}

const millionSQL = `CREATE TABLE rows AS SELECT i AS id, CASE i % 3 WHEN 0 THEN 'row ' || i WHEN 1 THEN 'a "' || i || '"' ELSE '' END AS name,
	i::float8 / 7 AS price, CASE WHEN i % 5 > 0 THEN i % 5 > 2 END AS flag FROM generate_series(1::bigint, 1000000) i`

func millionRows() iter.Seq2[[]Cell, error] {
	return func(yield func([]Cell, error) bool) {
		for i := int64(1); i <= million; i++ {
			cells := []Cell{Int(i), Text([]string{fmt.Sprintf("row %d", i), fmt.Sprintf(`a "%d"`, i), ""}[i%3]), Float(float64(i) / 7), Null}
			if i%5 > 0 {
				cells[3] = Bool(i%5 > 2)
			}
			if !yield(cells, nil) {
				return
			}
		}
	}
}

func TestPGPlantedDamageInAMillionRowsIsFoundAndNamed(t *testing.T) {
	server := pgtest.Shared(t)
	from, to := server.Database(t), server.Database(t)
	server.Exec(t, from, millionSQL)
	server.Exec(t, to, millionSQL+" ORDER BY i % 1000")
	server.Exec(t, to, "CREATE INDEX ON rows (id)")
	table := func(on Beginner) Postgres {
		return Postgres{Conn: on, Relation: pgx.Identifier{"public", "rows"}, Columns: millionColumns, Key: []string{"id"}, Append: true}
	}
	source, target := connected(t, from), connected(t, to)
	want := &once{Table: table(source)}

	made, err := Rows{Columns: millionColumns, Key: []string{"id"}, All: millionRows()}.Digest(t.Context())
	require.NoError(t, err)
	there, err := want.Digest(t.Context())
	require.NoError(t, err)
	require.Equal(t, made, there, "the server's digest is that of the same rows in memory")
	require.EqualValues(t, million, there.Rows())

	report, err := Compare(t.Context(), want, table(target))
	require.NoError(t, err)
	require.NoError(t, report.Err())

	for _, damage := range []struct {
		name, sql                        string
		missing, doubled, extra, changed []string // keys
	}{
		{"a row is deleted", "DELETE FROM rows WHERE id = 777777", []string{"(777777)"}, nil, nil, nil},
		{"a row is doubled", "INSERT INTO rows SELECT * FROM rows WHERE id = 1", nil, []string{"(1)"}, nil, nil},
		{"a byte is flipped", "UPDATE rows SET name = convert_from(set_byte(name::bytea, 4, get_byte(name::bytea, 4) # 1), 'UTF8') WHERE id = 300000", nil, nil, nil, []string{"(300000)"}},
		{"two rows swap a value", "UPDATE rows SET price = CASE id WHEN 10 THEN 1000000 ELSE 10 END::float8 / 7 WHERE id IN (10, 1000000)", nil, nil, nil, []string{"(10)", "(1000000)"}},
		{"a value is NULL", "UPDATE rows SET flag = NULL WHERE id = 123456", nil, nil, nil, []string{"(123456)"}},
		{"a row stands in for another", "UPDATE rows r SET (id, name, price, flag) = (SELECT id, name, price, flag FROM rows WHERE id = 654321) WHERE r.id = 42", []string{"(42)"}, []string{"(654321)"}, nil, nil},
		{"the last digit of a float", "UPDATE rows SET price = price + 1.5e-11 WHERE id = 999999", nil, nil, nil, []string{"(999999)"}},
	} {
		t.Run(damage.name, func(t *testing.T) {
			tx, err := target.Begin(t.Context())
			require.NoError(t, err)
			defer func() { require.NoError(t, tx.Rollback(context.Background())) }()
			_, err = tx.Exec(t.Context(), damage.sql)
			require.NoError(t, err)
			r, err := Compare(t.Context(), want, table(tx))
			require.NoError(t, err)
			require.Error(t, r.Err())
			requireKeys(t, damage.missing, r.Missing)
			requireKeys(t, damage.doubled, r.Doubled)
			requireKeys(t, damage.extra, r.Extra)
			requireKeys(t, damage.changed, r.Changed)
		})
	}
}

func TestPGAUniqueIndexHidesRows(t *testing.T) {
	server := pgtest.Shared(t)
	db := server.Database(t)
	conn := connected(t, db)
	for kind, sql := range map[string]string{
		"by_key": "(id int PRIMARY KEY)", "by_unique": "(id int UNIQUE)", "by_exclusion": "(id int, EXCLUDE USING btree (id WITH =))",
	} {
		server.Exec(t, db, "CREATE TABLE "+kind+sql)
		got := Postgres{Conn: conn, Relation: pgx.Identifier{kind}, Columns: []string{"id"}, Append: true}
		r, err := Compare(t.Context(), Rows{Columns: []string{"id"}, All: some().All}, got)
		require.NoError(t, err)
		require.Len(t, r.Hiding, 1, kind)
		require.ErrorContains(t, r.Err(), "unique in a target of append")
		got.Append = false
		r, err = Compare(t.Context(), Rows{Columns: []string{"id"}, All: some().All}, got)
		require.NoError(t, err)
		require.NoError(t, r.Err())
	}
}

func TestPGTextsAndHashesAreThoseOfTheServer(t *testing.T) {
	server := pgtest.Shared(t)
	db := server.Database(t)
	conn := connected(t, db)
	_, err := conn.Exec(t.Context(), "CREATE TABLE odd (i bigint, f float8, b boolean, s text); SET extra_float_digits = 0; SET DateStyle = 'German'")
	require.NoError(t, err)
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // reproducible on purpose
	floats := []float64{0, math.Copysign(0, -1), 1e15, 1e14, 123456789012345, 1e-4, 9.9e-5, math.Inf(1), math.Inf(-1), math.NaN(), math.MaxFloat64, math.SmallestNonzeroFloat64, 1.0 / 3, 2.6885673056367362e+19, 1 << 53, 1 << 60}
	letters := []rune("ab ,\"\\()\n\r\t\v\fäß表😀'x{}$\u00a0\u0085")
	var rows [][]Cell
	for n := range 2000 {
		text := make([]rune, n%70)
		for i := range text {
			text[i] = letters[random.IntN(len(letters))]
		}
		f := math.Float64frombits(random.Uint64())
		if n%2 > 0 { // where a number may have its shortest text in the middle between two
			f = math.Ldexp(float64(random.Uint64()>>11), random.IntN(24)-2)
		}
		if n < len(floats) {
			f = floats[n]
		}
		i, s := int64(random.Uint64()), string(text) //nolint:gosec // any bits
		cells := []Cell{Int(i), Float(f), Bool(n%2 > 0), Text(s)}
		b := new(n%2 > 0)
		if n%7 == 0 {
			b, cells[2] = nil, Null
		}
		_, err := conn.Exec(t.Context(), "INSERT INTO odd VALUES ($1, $2, $3, $4)", i, f, b, s)
		require.NoError(t, err)
		rows = append(rows, cells)
	}
	columns := []string{"i", "f", "b", "s"}
	for _, key := range [][]string{nil, {"i"}, {"s", "b"}} {
		memory := some(rows...)
		memory.Columns, memory.Key = columns, key
		r, err := Compare(t.Context(), memory, Postgres{Conn: conn, Relation: pgx.Identifier{"odd"}, Columns: columns, Key: key})
		require.NoError(t, err)
		require.NoError(t, r.Err())
		require.EqualValues(t, len(rows), r.Got)
	}
	var style string
	require.NoError(t, conn.QueryRow(t.Context(), "SHOW DateStyle").Scan(&style))
	require.Equal(t, "German, DMY", style, "the session is left as it was")
}

package codec

import (
	"bytes"
	"context"
	"strconv"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/pgtest"
)

// database is a fresh database with one connection.
type database struct {
	t    *testing.T
	s    *pgtest.Server
	name string
	conn *pgconn.PgConn
}

func newDatabase(t *testing.T, name string) *database {
	t.Helper()
	s := pgtest.Shared(t)
	if name == "" {
		name = s.Database(t)
	}
	conn, err := pgconn.Connect(t.Context(), s.URL(name))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close(context.Background())) })
	return &database{t: t, s: s, name: name, conn: conn}
}

func (db *database) exec(sql string) { db.t.Helper(); db.s.Exec(db.t, db.name, sql) }

func (db *database) rows(sql string) [][]string {
	db.t.Helper()
	return db.s.Query(db.t, db.name, sql)
}

// typeOf reads the type of an OID with a modifier.
func (db *database) typeOf(oid, mod string) *Type {
	db.t.Helper()
	r := db.rows(`SELECT n.nspname, t.typname, format_type(t.oid, ` + mod + `), CASE WHEN e.oid IS NULL THEN t.typtype::text ELSE 'A' END,
		coalesce(e.oid, 0), t.typbasetype, t.typtypmod FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
		LEFT JOIN pg_type e ON e.oid = t.typelem AND e.typarray = t.oid WHERE t.oid = ` + oid)[0]
	n, err := strconv.ParseUint(oid, 10, 32)
	require.NoError(db.t, err)
	m, err := strconv.ParseInt(mod, 10, 32)
	require.NoError(db.t, err)
	t := &Type{OID: uint32(n), Schema: r[0], Name: r[1], Mod: int32(m), SQL: r[2], Kind: Kind(r[3][0])}
	switch t.Kind {
	case KindArray:
		t.Elem = db.typeOf(r[4], mod)
	case KindDomain:
		t.Base = db.typeOf(r[5], r[6])
	case KindEnum:
		for _, l := range db.rows("SELECT enumlabel FROM pg_enum WHERE enumtypid = " + oid + " ORDER BY enumsortorder") {
			t.Labels = append(t.Labels, l[0])
		}
	default:
	}
	return t
}

// columns reads the columns of a table.
func (db *database) columns(table string) (cols []Column) {
	db.t.Helper()
	for _, r := range db.rows("SELECT attname, atttypid, atttypmod, attnotnull FROM pg_attribute WHERE attrelid = '" + table + "'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum") {
		cols = append(cols, Column{Name: r[0], Type: db.typeOf(r[1], r[2]), NotNull: r[3] == "t"})
	}
	return cols
}

// copyOut returns what COPY of the query sends.
func (db *database) copyOut(query string) []byte {
	db.t.Helper()
	var out bytes.Buffer
	_, err := db.conn.CopyTo(db.t.Context(), &out, "COPY ("+query+") TO STDOUT (FORMAT binary)")
	require.NoError(db.t, err)
	return out.Bytes()
}

// read returns the rows of a table, columns as Field says.
func (db *database) read(table string) (*arrow.Schema, []*Type, []arrow.RecordBatch, error) {
	db.t.Helper()
	cols := db.columns(table)
	s, types, asText := fieldsOf(cols)
	var list []string
	for i, c := range cols {
		if list = append(list, `"`+c.Name+`"`); asText[i] {
			list[i] += "::text"
		}
	}
	wire := db.copyOut("SELECT " + strings.Join(list, ", ") + " FROM " + table)
	d := newDecoder(db.t, cols, checked(db.t), connectors.Limits{BatchRows: 3, BatchBytes: 1 << 26, RowBytes: 1 << 26})
	var payloads [][]byte
	for len(wire) > 0 { // pieces of any size
		n := min(1+len(wire)%97, len(wire))
		payloads, wire = append(payloads, wire[:n]), wire[n:]
	}
	recs, err := decodeAll(d, payloads)
	return s, types, recs, err
}

// write copies batches into a table; what has to be cast goes through staging.
func (db *database) write(table string, s *arrow.Schema, recs []arrow.RecordBatch) error {
	db.t.Helper()
	cols := db.columns(table)
	targets := make([]Target, len(cols))
	for i, c := range cols {
		targets[i] = Target{Field: i, Type: c.Type}
	}
	e, err := NewEncoder(s, targets)
	require.NoError(db.t, err)
	wire := AppendHeader(nil)
	for _, rec := range recs {
		for next := int64(0); next < rec.NumRows(); {
			if wire, next, err = e.Encode(wire, rec, next, rec.NumRows(), len(wire)+100); err != nil {
				return err
			}
		}
	}
	var define, list []string
	for i, w := range e.Wire() {
		name := `"` + cols[i].Name + `"`
		define = append(define, name+" "+w.SQL)
		if list = append(list, name); e.Casts()[i] {
			list[i] += "::" + cols[i].Type.SQL
		}
	}
	db.exec("DROP TABLE IF EXISTS staging; CREATE TABLE staging (" + strings.Join(define, ", ") + ")")
	_, err = db.conn.CopyFrom(db.t.Context(), bytes.NewReader(AppendTrailer(wire)), "COPY staging FROM STDIN (FORMAT binary)")
	require.NoError(db.t, err)
	db.exec("INSERT INTO " + table + " SELECT " + strings.Join(list, ", ") + " FROM staging")
	return nil
}

func releaseAll(recs []arrow.RecordBatch) {
	for _, r := range recs {
		r.Release()
	}
}

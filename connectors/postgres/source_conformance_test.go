package postgres

import (
	"fmt"
	"testing"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/connectors/postgres/pgtest"
	"rapidbyte.io/node/messages"
)

// Two rows fill a block, so that positions are as near as they can be.
const conformanceTables = `
CREATE TABLE orders (id bigint PRIMARY KEY, name text, pad text);
ALTER TABLE orders ALTER pad SET STORAGE PLAIN;
INSERT INTO orders SELECT i, 'row ' || i, repeat('x', 3500) FROM generate_series(1, 40) i;
CREATE SCHEMA "Other.one";
CREATE TABLE "Other.one"."Customers" (id int NOT NULL, note text);
INSERT INTO "Other.one"."Customers" SELECT i, NULL FROM generate_series(0, 6) i;
CREATE TABLE nobody (id int);
ANALYZE;`

func conformance(change func(*connectors.StreamSpec), tune func(*Source), drain int64) conntest.SourceFactory {
	return conntest.SourceFactory{
		DrainRows: drain,
		New: func(t conntest.T) conntest.Origin {
			server := pgtest.Shared(t)
			db := server.Database(t)
			server.Exec(t, db, conformanceTables)
			source := func(t conntest.T) connectors.Source {
				s := newSource(t, server, db, nil)
				tune(s)
				return s
			}
			rows := func(t conntest.T, sql string) []string {
				var out []string
				for _, row := range server.Query(t, db, sql) {
					out = append(out, conntest.Join(row...))
				}
				return out
			}
			grown := 0
			streams := []connectors.StreamSpec{full("orders"), full("Other.one.Customers"), full("nobody")}
			for i := range streams {
				change(&streams[i])
			}
			return conntest.Origin{
				Source: source(t), Reopen: source, Streams: streams,
				Rows: func(t conntest.T) map[messages.StreamID][]string {
					return map[messages.StreamID][]string{
						"orders": rows(t, "SELECT * FROM orders"), "Other.one.Customers": rows(t, `SELECT * FROM "Other.one"."Customers"`), "nobody": nil,
					}
				},
				Append: func(t conntest.T) {
					grown++
					server.Exec(t, db, fmt.Sprintf("INSERT INTO orders VALUES (%d, 'added', '')", 1000+grown))
				},
			}
		},
	}
}

func TestPGSourceConformance(t *testing.T) {
	conntest.Source(t, conformance(func(*connectors.StreamSpec) {}, func(*Source) {}, 3))
}

func TestPGSourceConformanceByKey(t *testing.T) {
	f := conformance(func(s *connectors.StreamSpec) { s.PartitionKey = "id" }, func(*Source) {}, 64)
	conntest.Source(t, f)
}

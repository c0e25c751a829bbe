package main

import (
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors/postgres/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestPGExamplesMoveEveryTable(t *testing.T) {
	s := newServers(t)
	for _, name := range examples {
		t.Run(name, func(t *testing.T) { newExample(t, t.Output(), s, name).run() })
	}
}

// Each way in which a target can be wrong is seen, without reading a row into the test.
func TestPGComparisonSeesWhatDiffers(t *testing.T) {
	s := pgtest.Shared(t)
	const made = `CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE DOMAIN small AS int CHECK (VALUE < 100);
		CREATE TABLE "Odd name" (id int PRIMARY KEY, t text NOT NULL, f float8, m mood, d small, "select" timestamptz);
		INSERT INTO "Odd name" SELECT i, 'row ' || i, i / 3.0, 'sad', i % 100, '2026-01-01'::timestamptz + i * interval '1 hour' FROM generate_series(1, 300) i`
	source := s.Database(t)
	s.Exec(t, source, made)
	same := func(target string) bool {
		want := shapes(t, s, source)
		return reflect.DeepEqual(want, shapes(t, s, target)) && ownTypes(t, s, source) == ownTypes(t, s, target) &&
			reflect.DeepEqual(digests(t, s, source, want, 1), digests(t, s, target, want, 1))
	}
	for name, damage := range map[string]string{
		"":                     "ANALYZE",
		"other order":          `CREATE TABLE o AS TABLE "Odd name"; TRUNCATE "Odd name"; INSERT INTO "Odd name" SELECT * FROM o ORDER BY id DESC; DROP TABLE o`,
		"a row is gone":        `DELETE FROM "Odd name" WHERE id = 7`,
		"a row is another":     `UPDATE "Odd name" SET id = 1000 WHERE id = 7`,
		"a value is NULL":      `UPDATE "Odd name" SET f = NULL WHERE id = 7`,
		"a value is rounded":   `UPDATE "Odd name" SET f = round(f::numeric, 12) WHERE id = 7`,
		"a time has moved":     `UPDATE "Odd name" SET "select" = "select" + interval '1 microsecond' WHERE id = 7`,
		"values have swapped":  `UPDATE "Odd name" SET t = 'row ' || CASE id WHEN 7 THEN 8 ELSE 7 END WHERE id IN (7, 8)`,
		"a column is nullable": `ALTER TABLE "Odd name" ALTER t DROP NOT NULL`,
		"a type is wider":      `ALTER TABLE "Odd name" ALTER id TYPE bigint`,
		"a key is gone":        `ALTER TABLE "Odd name" DROP CONSTRAINT "Odd name_pkey"`,
		"a label is there":     `ALTER TYPE mood ADD VALUE 'new'`,
		"a check is gone":      `ALTER DOMAIN small DROP CONSTRAINT small_check`,
	} {
		t.Run(name, func(t *testing.T) {
			target := s.Database(t)
			s.Exec(t, target, made)
			s.Exec(t, target, damage)
			require.Equal(t, name == "" || name == "other order", same(target))
		})
	}
}

package rowcheck

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Beginner is a connection, a pool or a transaction.
type Beginner interface {
	Begin(ctx context.Context) (pgx.Tx, error)
}

// Postgres is a table, or a view, of a PostgreSQL database.
type Postgres struct {
	Conn         Beginner
	Relation     pgx.Identifier
	Columns, Key []string
	Append       bool // it is appended to: what is unique there is reported
}

var _ Table = Postgres{}

// Layout implements [Table].
func (t Postgres) Layout() Layout { return Layout{t.Columns, t.Key} }

// pinned is what the text of a value depends on beside the value.
const pinned = `SET LOCAL extra_float_digits = 1; SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, YMD'; SET LOCAL IntervalStyle = 'postgres';
	SET LOCAL bytea_output = 'hex'; SET LOCAL lc_monetary = 'C'; SET LOCAL xmloption = 'content'`

// within runs use in a transaction, or below a savepoint of one, that leaves nothing behind.
func (t Postgres) within(ctx context.Context, use func(pgx.Tx) error) (err error) {
	tx, err := t.Conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tx.Rollback(ctx)) }()
	if _, err := tx.Exec(ctx, pinned); err != nil {
		return err
	}
	return use(tx)
}

// texts is the query of bucket, key and whole row.
func (t Postgres) texts() string {
	quoted := func(names []string) string {
		var all []string
		for _, name := range names {
			all = append(all, pgx.Identifier{name}.Sanitize())
		}
		return "ROW(" + strings.Join(all, ", ") + ")::text COLLATE \"C\""
	}
	key := quoted(t.Layout().key())
	return fmt.Sprintf("SELECT (hashtextextended(%s, 0) & %d)::int AS b, %s AS k, %s AS r FROM %s", key, buckets-1, key, quoted(t.Columns), t.Relation.Sanitize())
}

// Digest implements [Table].
func (t Postgres) Digest(ctx context.Context) (*Digest, error) {
	var out Digest
	return &out, t.within(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, "SELECT b, count(*), sum(hashtextextended(r, 0)::numeric)::text, bit_xor(hashtextextended(r, 1)) FROM ("+t.texts()+") t GROUP BY b")
		if err != nil {
			return err
		}
		var at int
		var b Bucket
		_, err = pgx.ForEachRow(rows, []any{&at, &b.Rows, &b.Sum, &b.Xor}, func() error {
			out[at] = b
			return nil
		})
		return err
	})
}

// Rows implements [Table].
func (t Postgres) Rows(ctx context.Context, of []int, each func(key, row string) error) error {
	return t.within(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, "SELECT k, r FROM ("+t.texts()+") t WHERE b = ANY ($1)", of)
		if err != nil {
			return err
		}
		var key, row string
		_, err = pgx.ForEachRow(rows, []any{&key, &row}, func() error { return each(key, row) })
		return err
	})
}

// Hiding implements [Table]: unique indexes, also those of constraints.
func (t Postgres) Hiding(ctx context.Context) (out []string, err error) {
	if !t.Append {
		return nil, nil
	}
	return out, t.within(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `SELECT i.relname FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
			WHERE x.indrelid = $1::regclass AND (x.indisunique OR x.indisexclusion) ORDER BY 1`, t.Relation.Sanitize())
		if err != nil {
			return err
		}
		out, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
}

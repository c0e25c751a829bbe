package killtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"rapidbyte.io/node/cmd/rapidbyte-node/internal/rowcheck"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore/postgres"
)

// serverDestination is a database.
type serverDestination struct {
	ends     *ends
	scenario scenario
}

// read waits for what a killed process has left at the server: a COMMIT that was sent
// takes effect after the kill.
func (d serverDestination) read(ctx context.Context, withRows bool) (found, error) {
	out := nothing()
	if err := d.ends.alone(ctx); err != nil {
		return out, err
	}
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	return out, pgx.BeginTxFunc(ctx, d.ends.target, options, func(tx pgx.Tx) error {
		var books bool
		if err := tx.QueryRow(ctx, "SELECT to_regclass('_rapidbyte.receipt') IS NOT NULL").Scan(&books); err != nil {
			return err
		}
		if books {
			if err := readServerBooks(ctx, tx, &out); err != nil {
				return err
			}
		}
		if !withRows {
			return nil
		}
		for _, st := range d.scenario.streams {
			var there bool
			if err := tx.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", "public."+st.name).Scan(&there); err != nil {
				return err
			}
			if !there {
				continue
			}
			rows, err := tx.Query(ctx, "SELECT id, name, qty, price, flag FROM public."+st.name)
			if err == nil {
				out.rows[st.name], err = pgx.CollectRows(rows, pgx.RowToStructByPos[row])
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (d serverDestination) table(st stream, _ found) rowcheck.Table {
	return rowcheck.Postgres{Conn: d.ends.target, Relation: pgx.Identifier{"public", st.name}, Columns: columns, Key: columns[:1], Append: st.mode == appends}
}

func readServerBooks(ctx context.Context, tx pgx.Tx, out *found) error {
	err := tx.QueryRow(ctx, "SELECT epoch FROM _rapidbyte.owner").Scan(&out.epoch)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	rows, err := tx.Query(ctx, "SELECT name, load_no, finished FROM _rapidbyte.load")
	if err != nil {
		return err
	}
	var name string
	var m mark
	if _, err := pgx.ForEachRow(rows, []any{&name, &m.number, &m.finished}, func() error {
		out.loads[name] = m
		return nil
	}); err != nil {
		return err
	}
	if rows, err = tx.Query(ctx, "SELECT part, load, load_no, commit_no, final, rows_applied FROM _rapidbyte.receipt"); err != nil {
		return err
	}
	var r messages.Receipt
	_, err = pgx.ForEachRow(rows, []any{&r.Part, &r.Load, &r.Version.Load, &r.Version.Commit, &r.Final, &r.Rows.Applied}, func() error {
		out.receipts[r.Part] = r
		return nil
	})
	return err
}

// tidy finds tables that are no targets, and sessions.
func (d serverDestination) tidy(ctx context.Context) error {
	rows, err := d.ends.target.Query(ctx, "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'")
	if err != nil {
		return err
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	left := slices.DeleteFunc(tables, func(name string) bool {
		return slices.ContainsFunc(d.scenario.streams, func(st stream) bool { return st.name == name })
	})
	if len(left) > 0 {
		return fmt.Errorf("left behind: %s", strings.Join(left, ", "))
	}
	return d.ends.alone(ctx)
}

// sharedStore is a state store beside the targets. It is opened once it is there: to open
// one that is not would make it.
type sharedStore struct {
	ends *ends
	open *postgres.Store
}

func (s *sharedStore) read(ctx context.Context) (out stored, err error) {
	if s.open == nil {
		var there bool
		err := s.ends.target.QueryRow(ctx, "SELECT to_regclass('_rapidbyte_state.store') IS NOT NULL").Scan(&there)
		if err != nil || !there {
			return out, err
		}
		if s.open, err = postgres.Open(ctx, postgres.Config{URL: s.ends.server.URL(s.ends.to)}); err != nil {
			return out, err
		}
	}
	return readStore(ctx, s.open)
}

func (s *sharedStore) close() error {
	if s.open == nil {
		return nil
	}
	return s.open.Close()
}

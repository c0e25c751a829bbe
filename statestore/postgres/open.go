package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rapidbyte.io/node/statestore"
)

// Open opens the store in the database at c.URL; where there is none, it creates it, and
// one of an older version it migrates. The error is ErrDamaged when it cannot be trusted,
// ErrForeign when it is one of a newer version. Who has which pipeline is Acquire's
// business: any number of processes may open a store.
func Open(ctx context.Context, c Config) (*Store, error) {
	c = c.withDefaults()
	t, err := newTarget(c.URL)
	var s *Store
	if err == nil {
		s, err = open(ctx, t, c)
	}
	if err != nil {
		if t != nil {
			err = t.explain(caused(ctx, err))
		}
		return nil, statestore.Wrap(statestore.Error{Op: "open state store", Path: pathOf(t), Err: err})
	}
	return s, nil
}

func open(ctx context.Context, t *target, c Config) (*Store, error) {
	if c.TTL < TTLMin {
		return nil, fmt.Errorf("%w: a lease of %s, at least %s are needed", statestore.ErrInvalid, c.TTL, TTLMin)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	s := &Store{target: t, config: c, here: newOwner(c.Name)}
	s.me = s.here.text()
	within, cancel := context.WithTimeout(ctx, migrateMax)
	defer cancel()
	err := s.attach(within)
	if errors.Is(err, statestore.ErrDamaged) && c.Rebuild {
		if s.aside, err = s.setAside(within); err == nil {
			err = s.attach(within)
		}
	}
	if err != nil {
		return nil, err
	}
	if s.pool, err = t.open(stateConns); err != nil {
		return nil, err
	}
	pool, err := t.open(1)
	if err != nil {
		s.pool.Close()
		return nil, err
	}
	s.leases = newLeases(pool, s.me, c.TTL)
	return s, nil
}

// attach brings the store to our version and learns its identity.
func (s *Store) attach(ctx context.Context) error {
	r, err := s.identity(ctx)
	if errors.Is(err, errOlder) {
		if err := s.migrate(ctx, Version, true); err != nil {
			return err
		}
		r, err = s.identity(ctx)
	}
	s.id = r.Identity
	return err
}

// errOlder means that there is no store, or one of an older version.
var errOlder = errors.New("the store must be migrated first")

// identity reads which store it is. It waits for nobody.
func (t *target) identity(ctx context.Context) (r storeRecord, err error) {
	conn, err := t.connect(ctx)
	if err != nil {
		return r, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // it has only read
	return r, pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		r, err = which(ctx, tx)
		return err
	})
}

// which reads which store there is.
func which(ctx context.Context, tx pgx.Tx) (r storeRecord, err error) {
	version, err := look(ctx, tx)
	switch {
	case err != nil:
		return r, err
	case version > Version:
		return r, checkVersion(version)
	case version < Version:
		return r, errOlder
	}
	var rows []cell
	b := &pgx.Batch{}
	store(b, &rows)
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return r, err
	}
	if r, err = openStore(rows); err != nil {
		return r, err
	}
	if _, err := uuid.Parse(r.Identity); err != nil {
		return r, damaged("identity %q: %v", r.Identity, err)
	}
	return r, nil
}

// Path returns what messages call the database at a URL: host:port/database.
func Path(url string) string {
	t, err := newTarget(url)
	if err != nil {
		return ""
	}
	return t.path
}

// Probe looks whether the store at a URL can be opened and used, and changes nothing.
func Probe(ctx context.Context, url string) error {
	t, err := newTarget(url)
	if err == nil {
		within, cancel := context.WithTimeout(ctx, callMax)
		defer cancel()
		err = t.explain(caused(ctx, t.probe(within)))
	}
	if err != nil {
		return statestore.Wrap(statestore.Error{Op: "look at the state store", Path: pathOf(t), Err: err})
	}
	return nil
}

// rightsSQL says what is missing for a store that must be made, and for one that is there.
const (
	createSQL = `SELECT pg_is_in_recovery(), CASE WHEN to_regnamespace('_rapidbyte_state') IS NULL
			THEN has_database_privilege(current_database(), 'CREATE') ELSE has_schema_privilege('_rapidbyte_state', 'USAGE') AND has_schema_privilege('_rapidbyte_state', 'CREATE') END`
	useSQL = `SELECT pg_is_in_recovery(), bool_and(has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
			AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE'))
		FROM pg_catalog.pg_class c WHERE c.relnamespace = '_rapidbyte_state'::regnamespace AND c.relkind = 'r'`
)

func (t *target) probe(ctx context.Context) error {
	sql, what := useSQL, "table"
	if _, err := t.identity(ctx); errors.Is(err, errOlder) {
		sql, what = createSQL, "database"
	} else if err != nil {
		return err
	}
	conn, err := t.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // it has only read
	var standby, allowed bool
	if err := conn.QueryRow(ctx, sql).Scan(&standby, &allowed); err != nil {
		return err
	}
	switch {
	case standby:
		return errors.New("the server is a standby and " + readOnly)
	case !allowed:
		return errors.New("the role lacks rights; " + t.grants(what))
	}
	return nil
}

// connect returns a connection of its own.
func (t *target) connect(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, t.pool.ConnConfig.Copy())
	if err != nil {
		return nil, err
	}
	if err := t.pool.AfterConnect(ctx, conn); err != nil {
		return nil, errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
	}
	return conn, nil
}

// unowned refuses what would take pipelines from their owners, as far as the leases can
// still be read.
func (s *Store) unowned(ctx context.Context, tx pgx.Tx) error {
	var held *heldError
	_ = pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { // a table that is gone says nothing; a connection that is, says so at the next statement
		rows, err := tx.Query(ctx, "SELECT owner, expires FROM _rapidbyte_state.lease WHERE owner <> '' AND expires > clock_timestamp()")
		if err != nil {
			return err
		}
		var l lease
		_, err = pgx.ForEachRow(rows, []any{&l.owner, &l.until}, func() error {
			if !parseOwner(l.owner).gone(s.here) {
				held = &heldError{lease: l}
			}
			return nil
		})
		return err
	})
	if held != nil {
		return held
	}
	return nil
}

// setAside gives a schema that cannot be trusted a name that is free and returns it; empty
// if another program has done so meanwhile.
func (s *Store) setAside(ctx context.Context) (aside string, err error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // whatever it says, what counts is committed
	return aside, pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1), set_config('synchronous_commit', 'on', true)", int64(migrateLock)); err != nil {
			return err
		}
		if _, err := which(ctx, tx); !errors.Is(err, statestore.ErrDamaged) {
			return nil // whatever it is, attach looks again
		}
		if err := s.unowned(ctx, tx); err != nil {
			return err
		}
		for n, taken := 1, true; taken; n++ {
			aside = fmt.Sprintf("%s_damaged_%d", schema, n)
			if err := tx.QueryRow(ctx, "SELECT to_regnamespace($1) IS NOT NULL", aside).Scan(&taken); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, "ALTER SCHEMA _rapidbyte_state RENAME TO "+pgx.Identifier{aside}.Sanitize())
		return err
	})
}

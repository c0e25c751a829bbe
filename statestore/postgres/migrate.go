package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
)

const (
	schema = "_rapidbyte_state"
	// Version is the layout that this program knows.
	Version = 2

	migrateLock = 0x7262_7374_6174_6501 // of pg_advisory_xact_lock, nobody else's
	migrateMax  = time.Minute
)

// migration leads to a version and back from it.
type migration struct {
	tables   []kind // that it adds
	up, down string
	leave    func(ctx context.Context, tx pgx.Tx) error // before down
}

// migrations lead from one version to the next: migrations[0] to version 1. Values are
// texts that are given back byte for byte; their columns have no other meaning to the
// server. Half of a page is left free where values are replaced all the time, so that a
// new value needs no entry in an index.
var migrations = []migration{
	{
		tables: []kind{kindStore, kindPipeline, "lease", kindReceipt, kindLoad, kindRun, "aside"},
		up: `
CREATE TABLE _rapidbyte_state.store (one boolean PRIMARY KEY DEFAULT true CHECK (one), version integer NOT NULL, value text NOT NULL, sum bigint NOT NULL);
CREATE TABLE _rapidbyte_state.pipeline (id bytea PRIMARY KEY, value text NOT NULL, sum bigint NOT NULL) WITH (fillfactor = 50);
CREATE TABLE _rapidbyte_state.lease (pipeline bytea PRIMARY KEY, epoch numeric(20) NOT NULL, owner text NOT NULL, expires timestamptz NOT NULL) WITH (fillfactor = 50);
CREATE TABLE _rapidbyte_state.receipt (pipeline bytea, id bytea, value text NOT NULL, sum bigint NOT NULL, PRIMARY KEY (pipeline, id)) WITH (fillfactor = 50);
CREATE TABLE _rapidbyte_state.load (pipeline bytea, id bytea, value text NOT NULL, sum bigint NOT NULL, PRIMARY KEY (pipeline, id));
CREATE TABLE _rapidbyte_state.run (pipeline bytea, id bytea, value text NOT NULL, sum bigint NOT NULL, PRIMARY KEY (pipeline, id));
CREATE TABLE _rapidbyte_state.aside (at timestamptz NOT NULL, kind text NOT NULL, pipeline bytea NOT NULL, id bytea NOT NULL, value text NOT NULL, sum bigint NOT NULL);`,
	},
	{
		tables: []kind{kindOrder, kindHistory},
		up: `
CREATE TABLE _rapidbyte_state.orders (pipeline bytea, id bytea, value text NOT NULL, sum bigint NOT NULL, PRIMARY KEY (pipeline, id));
CREATE TABLE _rapidbyte_state.history (pipeline bytea, part bytea, id bytea, load bytea NOT NULL, number numeric(20) NOT NULL, commit numeric(20) NOT NULL,
	epoch numeric(20) NOT NULL, attempt numeric(20) NOT NULL, value text NOT NULL, sum bigint NOT NULL, PRIMARY KEY (pipeline, part, id)) WITH (fillfactor = 50);`,
		down: `
DROP TABLE _rapidbyte_state.orders;
DROP TABLE _rapidbyte_state.history;`,
		leave: dropOrders,
	},
}

// Migrate brings the store at a URL to a version: up, or back to one that an older
// program knows. Each step is one transaction, and waits for those of other programs. It
// creates a store where there is none. Going back from version 2 drops the lists of
// checkpoints; it is refused while an order waits to be done.
func Migrate(ctx context.Context, url string, version int) error {
	t, err := newTarget(url)
	if err == nil && (version < 1 || version > Version) {
		err = fmt.Errorf("%w: there is no version %d, but 1 to %d", statestore.ErrInvalid, version, Version)
	}
	if err != nil {
		return statestore.Wrap(statestore.Error{Op: "migrate state store", Path: pathOf(t), Err: err})
	}
	ctx, cancel := context.WithTimeout(ctx, migrateMax)
	defer cancel()
	if err := t.migrate(ctx, version, false); err != nil {
		return statestore.Wrap(statestore.Error{Op: "migrate state store", Path: t.path, Err: t.explain(caused(ctx, err))})
	}
	return nil
}

func pathOf(t *target) string {
	if t == nil {
		return ""
	}
	return t.path
}

// migrate does one step after the other. An open store never goes back.
func (t *target) migrate(ctx context.Context, version int, open bool) error {
	conn, err := t.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()     // whatever it says, what counts is committed
	if _, err := conn.Exec(ctx, "SET lock_timeout = 0"); err != nil { // ctx is the bound of the wait for others
		return err
	}
	for done := false; !done; {
		if err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			done, err = step(ctx, tx, version, open)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// step is one migration by one version, if there is one to do.
func step(ctx context.Context, tx pgx.Tx, version int, open bool) (done bool, err error) {
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1), set_config('synchronous_commit', 'on', true)", int64(migrateLock)); err != nil {
		return false, err
	}
	has, err := look(ctx, tx)
	if err != nil {
		return false, err
	}
	switch {
	case has == 0:
		return version == 1, create(ctx, tx)
	case has > Version:
		return false, checkVersion(has)
	case has == version || open && has > version:
		return true, nil
	}
	// Whoever is about to save has read the version already: he goes first.
	if _, err := tx.Exec(ctx, "LOCK TABLE _rapidbyte_state.store, _rapidbyte_state.pipeline IN ACCESS EXCLUSIVE MODE"); err != nil {
		return false, err
	}
	next, sql := has+1, migrations[min(has, Version-1)].up
	if has > version {
		m := migrations[has-1]
		next, sql = has-1, m.down
		if err := m.leave(ctx, tx); err != nil {
			return false, err
		}
	}
	if _, err := tx.Exec(ctx, sql); err != nil {
		return false, err
	}
	_, err = tx.Exec(ctx, "UPDATE _rapidbyte_state.store SET version = $1", next)
	return next == version, err
}

// create makes a store of version 1.
func create(ctx context.Context, tx pgx.Tx) error {
	var exists bool
	if err := tx.QueryRow(ctx, "SELECT to_regnamespace('_rapidbyte_state') IS NOT NULL").Scan(&exists); err != nil {
		return err
	}
	if !exists { // IF NOT EXISTS asks for a right that nobody needs who finds it
		if _, err := tx.Exec(ctx, "CREATE SCHEMA _rapidbyte_state"); err != nil {
			return err
		}
	}
	if _, err := tx.Exec(ctx, migrations[0].up); err != nil {
		return err
	}
	_, row, err := stores.seal("", storeRecord{Identity: uuid.NewString(), Created: utc(time.Now())})
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, "INSERT INTO _rapidbyte_state.store (version, value, sum) VALUES (1, $1, $2)", row.value, row.sum)
	return err
}

// look returns the version of the store in the database, 0 if there is none. It changes
// nothing and needs no right but to read.
func look(ctx context.Context, tx pgx.Tx) (version int, err error) {
	rows, err := tx.Query(ctx, `SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = '_rapidbyte_state' AND c.relkind IN ('r', 'p')`)
	if err != nil {
		return 0, err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(names) == 0 {
		return 0, err
	}
	has := map[kind]bool{}
	for _, name := range names {
		has[kind(name)] = true
	}
	if !has[kindStore] {
		return 0, damaged("the schema %s has tables, but the table store is gone", schema)
	}
	err = tx.QueryRow(ctx, "SELECT version FROM _rapidbyte_state.store").Scan(&version)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, damaged("the table store is empty")
	}
	if err != nil || version > Version {
		return version, err
	}
	if version < 1 {
		return 0, damaged("the table store names version %d", version)
	}
	for _, m := range migrations[:version] {
		for _, table := range m.tables {
			if !has[table] {
				return 0, damaged("the table %s is gone", table)
			}
		}
	}
	return version, nil
}

// checkVersion refuses a layout that this program does not know.
func checkVersion(version int) error {
	switch {
	case version > Version:
		return fmt.Errorf("%w: the store in the schema %s has version %d, this program knows %d: use the newer program, or let that one bring the store back to version %d",
			statestore.ErrForeign, schema, version, Version, Version)
	case version < Version:
		return fmt.Errorf("%w: the store in the schema %s was brought back to version %d: use the older program, or start this one again, which brings it to %d",
			statestore.ErrForeign, schema, version, Version)
	}
	return nil
}

// dropOrders takes the orders out of the digests. One that waits to be done is never
// dropped in silence.
func dropOrders(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, "SELECT id, value, sum FROM _rapidbyte_state.pipeline WHERE id IN (SELECT pipeline FROM _rapidbyte_state.orders)")
	if err != nil {
		return err
	}
	found, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (c cell, err error) {
		return c, r.Scan(&c.row, &c.value, &c.sum)
	})
	if err != nil {
		return err
	}
	for _, c := range found {
		p, err := nameOf(c)
		if err != nil {
			return err
		}
		if err := dropOrdersOf(ctx, tx, p); err != nil {
			return fmt.Errorf("pipeline %s: %w", p, err)
		}
	}
	return nil
}

func dropOrdersOf(ctx context.Context, tx pgx.Tx, p messages.PipelineID) error {
	var i image
	b := &pgx.Batch{}
	i.queue(b, p)
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	d, err := i.open(p)
	if err != nil {
		return err
	}
	if open := d.state().Orders; len(open) > 0 {
		return fmt.Errorf("%w: %d orders wait to be done: run the pipeline, or revoke them", statestore.ErrInvalid, len(open))
	}
	for _, o := range d.orders {
		a, c, err := orders.seal(string(p), o)
		if err != nil {
			return err
		}
		d.record.Digest.remove(a, c.value)
	}
	_, row, err := pipelines.seal(string(p), d.record)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, "UPDATE _rapidbyte_state.pipeline SET value = $2, sum = $3 WHERE id = $1", row.row, row.value, row.sum)
	return err
}

package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// originsSQL finds the relations from which the rows of others come: partitions,
// inheritors, what a view selects from.
const originsSQL = `
WITH RECURSIVE tree(root, oid) AS (
	SELECT o, o FROM unnest($1::oid[]) AS o
	UNION
	SELECT tree.root, below.oid FROM tree, LATERAL (
		SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE i.inhparent = tree.oid
		UNION ALL
		SELECT d.refobjid FROM pg_catalog.pg_class v JOIN pg_catalog.pg_rewrite r ON r.ev_class = v.oid
			JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid
				AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
		WHERE v.oid = tree.oid AND v.relkind = 'v') AS below(oid))`

// notStrictSQL finds relations whose writers hold no lock here that would show them.
const notStrictSQL = originsSQL + `
SELECT tree.root, CASE WHEN pg_is_in_recovery() THEN 'the server is a hot standby'
	WHEN c.relkind = 'f' THEN 'a foreign table' ELSE 'a materialised view' END
FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid
WHERE pg_is_in_recovery() OR c.relkind IN ('f', 'm') LIMIT 1`

// requireStrict refuses cursor_mode strict where nobody can tell who may still add rows.
func (p *scanPlanner) requireStrict(ctx context.Context, streams []*described) error {
	oids := make([]uint32, len(streams))
	for i, d := range streams {
		oids[i] = d.rel.oid
	}
	var root uint32
	var what string
	switch err := p.conn.QueryRow(ctx, notStrictSQL, oids).Scan(&root, &what); {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return err
	}
	d := streams[slices.Index(oids, root)]
	e := streamError("plan the stream", connectors.KindConfig, messages.CodeDocValue, d.spec.Stream,
		fmt.Errorf("cursor_mode strict waits for open transactions, and %s shows none", what))
	e.Place.Field, e.Next = "cursor_mode", "Use cursor_mode lookback with write_mode upsert, or raw, which misses rows that commit late."
	return e
}

// writersSQL lists transactions that may have written to a table, or to what its rows
// come from, and have not ended.
const writersSQL = originsSQL + `
SELECT DISTINCT l.virtualtransaction, coalesce(l.pid, 0)
FROM pg_catalog.pg_locks l JOIN tree ON tree.oid = l.relation
WHERE l.locktype = 'relation' AND l.granted AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
	AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
	AND l.pid IS DISTINCT FROM pg_backend_pid()`

// writer is a transaction that may still add rows below an upper bound.
type openWriter struct {
	transaction string
	pid         int32 // 0: it is prepared
}

func (p *scanPlanner) writers(ctx context.Context, oids []uint32) ([]openWriter, error) {
	rows, err := p.conn.Query(ctx, writersSQL, oids)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (w openWriter, err error) {
		err = row.Scan(&w.transaction, &w.pid)
		return w, err
	})
}

// waitForWriters waits until all transactions have ended that have written to the streams
// by now. Whoever begins to write later is not waited for.
func (p *scanPlanner) waitForWriters(ctx context.Context, streams []*described) error {
	oids := make([]uint32, len(streams))
	for i, d := range streams {
		oids[i] = d.rel.oid
	}
	noted, err := p.writers(ctx, oids)
	if err != nil || len(noted) == 0 {
		return err
	}
	limit := p.source.dial.lockTimeout
	end := time.Now().Add(limit)
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		now, err := p.writers(ctx, oids)
		if err != nil {
			return err
		}
		noted = remaining(noted, now)
		switch {
		case len(noted) == 0:
			return nil
		case limit > 0 && time.Now().After(end):
			return p.stillWriting(ctx, noted, limit)
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// remaining returns which of the noted writers may still have open transactions. One that
// was prepared meanwhile goes on under another name: it may be any of those.
func remaining(noted, now []openWriter) []openWriter {
	left := slices.DeleteFunc(slices.Clone(noted), func(w openWriter) bool { return !slices.Contains(now, w) })
	if !slices.ContainsFunc(noted, func(w openWriter) bool { return w.pid != 0 && !slices.Contains(now, w) }) {
		return left
	}
	for _, w := range now {
		if w.pid == 0 && !slices.Contains(left, w) {
			left = append(left, w)
		}
	}
	return left
}

// stillWriting names who was waited for in vain.
func (p *scanPlanner) stillWriting(ctx context.Context, noted []openWriter, limit time.Duration) error {
	var texts []string
	for _, w := range noted {
		text := "prepared transaction " + w.transaction
		if w.pid != 0 {
			text = fmt.Sprintf("pid %d", w.pid)
			var application, state string
			err := p.conn.QueryRow(ctx, "SELECT coalesce(application_name, ''), coalesce(state, 'unknown') FROM pg_catalog.pg_stat_activity WHERE pid = $1", w.pid).Scan(&application, &state)
			if err == nil {
				text += fmt.Sprintf(" (application %q, %s)", application, state)
			} else if !errors.Is(err, pgx.ErrNoRows) {
				return err
			}
		}
		texts = append(texts, text)
	}
	e := sourceError("wait for open transactions", connectors.KindTransient, messages.CodeSource,
		fmt.Errorf("after %s these still hold rows that may belong to this read: %s", limit, strings.Join(texts, ", ")))
	e.Next = "End that transaction, or use cursor_mode lookback."
	return e
}

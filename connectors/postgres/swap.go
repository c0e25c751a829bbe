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
	"rapidbyte.io/node/connectors/postgres/internal/query"
	"rapidbyte.io/node/messages"
)

// swapper makes a staging table visible, inside a transaction of its caller.
type swapper struct {
	goal
	tx     pgx.Tx
	conn   *pgx.Conn
	stage  *relation
	target *relation // nil: the name is free
	method Swap

	depends dependants // of the target
	pieces  []piece    // of the target that the staging table got under other names
}

// swap makes the staging table visible, inside the caller's transaction (READ COMMITTED),
// after the fence check. It is build and exchange in one.
func (g goal) swap(ctx context.Context, tx pgx.Tx, stage string) error {
	s, err := g.build(ctx, tx, stage)
	if err != nil {
		return err
	}
	return s.exchange(ctx)
}

// build does what takes long, and locks nothing that others use: indexes and constraints
// of the staging table.
func (g goal) build(ctx context.Context, tx pgx.Tx, stage string) (*swapper, error) {
	s := &swapper{goal: g, tx: tx, conn: tx.Conn()}
	if err := s.ready(ctx, stage); err != nil {
		return nil, g.swapError(ctx, err)
	}
	return s, nil
}

// exchange puts the staging table, or its rows, in the place of the target. From its
// first lock to the end of the transaction others wait.
func (s *swapper) exchange(ctx context.Context) error {
	var err error
	switch {
	case s.target == nil:
		err = s.exec(ctx, "ALTER TABLE "+s.stage.qname().sql()+" RENAME TO "+query.Ident(s.stream.Target))
	case s.method == SwapRename:
		err = s.rename(ctx)
	default:
		err = s.merge(ctx)
	}
	return s.swapError(ctx, err)
}

// swapError names the stream that an error of the server is about.
func (g goal) swapError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	err = classify(ctx, connectors.StageDestination, fmt.Sprintf("swap the table %s in", g.target()), err)
	if e, ok := errors.AsType[*connectors.Error](err); ok {
		e.Place = e.Place.Or(messages.Place{Stream: g.stream.Stream})
		if strings.HasPrefix(stateOf(err), "23") {
			e.Code = messages.CodeRowRefused
			e.Next = "Mend the rows at the source, or the constraint of the table, then run again."
		}
	}
	return err
}

func (s *swapper) exec(ctx context.Context, sql string) error {
	return execOne(ctx, s.conn, sql)
}

// ready reads what is there, decides and builds.
func (s *swapper) ready(ctx context.Context, stage string) error {
	if err := s.read(ctx, stage); err != nil {
		return err
	}
	if s.stage == nil {
		return s.fail(connectors.KindConfig, messages.CodeDestDamaged, "", fmt.Errorf("the staging table %s is gone", qname{s.cfg.Schema, stage}))
	}
	if err := s.decide(ctx); err != nil {
		return err
	}
	switch {
	case s.target == nil:
		if err := s.buildKey(ctx); err != nil {
			return err
		}
	case s.method == SwapRename:
		if err := s.buildPieces(ctx); err != nil {
			return err
		}
	default:
		if err := s.buildMergeKey(ctx); err != nil {
			return err
		}
	}
	// Whoever reads the table first must not find a planner that knows nothing.
	return s.exec(ctx, "ANALYZE "+s.stage.qname().sql())
}

func (s *swapper) read(ctx context.Context, stage string) error {
	names := []qname{s.goal.target(), {s.cfg.Schema, stage}}
	found, err := readRelations(ctx, s.conn, names)
	s.target, s.stage = found[names[0]], found[names[1]]
	return err
}

// decide chooses the method for the target as it is now.
func (s *swapper) decide(ctx context.Context) error {
	if s.target == nil {
		return nil
	}
	if s.target.kind != kindTable && s.target.kind != kindPartitioned {
		return s.fail(connectors.KindConfig, messages.CodeSchemaName, "", errors.New("something that is not a table took its name"))
	}
	d, err := readDependants(ctx, s.conn, s.target)
	if err != nil {
		return err
	}
	changed, err := s.compare()
	if err != nil {
		return err
	}
	d = append(d, changed...)
	method, refusal := s.swapMethod(s.conn.Config().User, s.target, d)
	if refusal != nil {
		return refusal
	}
	s.method, s.depends = method, d
	return nil
}

// compare finds columns that the target got, or that changed, since the staging table was
// made.
func (s *swapper) compare() (dependants, error) {
	var out dependants
	for _, a := range s.target.columns {
		b, ok := s.stage.column(a.Name)
		switch {
		case !ok:
			out = append(out, dependant{dependsOther, "column " + a.Name + ", which is new"})
		case b.Type.SQL != a.Type.SQL:
			e := s.fail(connectors.KindSchema, messages.CodeSchemaType, a.Name,
				fmt.Errorf("column %s was %s when the load was begun and is %s now", a.Name, b.Type.SQL, a.Type.SQL))
			e.Next = "Restore the type, or load again with `--full-refresh`."
			return nil, e
		case b.NotNull != a.NotNull, b.generated != a.generated, b.identity != a.identity, b.hasDefault != a.hasDefault, b.collation != a.collation:
			out = append(out, dependant{dependsOther, "column " + a.Name + ", which has changed"})
		}
	}
	return out, nil
}

// buildKey gives a new table the key of its stream, where it has one that can be indexed.
func (s *swapper) buildKey(ctx context.Context) error {
	slots, bad := s.slots(s.stage)
	if len(bad) > 0 {
		return bad[0]
	}
	book, err := s.readTypeBook(ctx, s.conn, slots)
	if err != nil {
		return err
	}
	for _, k := range s.stream.Key {
		i := slices.IndexFunc(slots, func(x slot) bool { return x.name == k })
		if i < 0 || !book.sortable(slots[i].want, 0) || len(s.stream.Key) > keyMax {
			return nil
		}
	}
	if len(s.stream.Key) == 0 {
		return nil
	}
	// The server would name the constraint after the staging table.
	const suffix = "_pkey"
	name := s.stream.Target
	name = strings.ToValidUTF8(name[:min(len(name), identifierMax-len(suffix))], "") + suffix
	var taken bool
	if err := s.tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1 AND c.relname = $2)`, s.cfg.Schema, name).Scan(&taken); err != nil {
		return err
	}
	constraint := ""
	if !taken {
		constraint = "CONSTRAINT " + query.Ident(name) + " "
	}
	return s.exec(ctx, fmt.Sprintf("ALTER TABLE %s ADD %sPRIMARY KEY (%s)", s.stage.qname().sql(), constraint, idents(s.stream.Key)))
}

// lockAttempt is how long one try waits for a lock: whoever comes behind it waits too.
const lockAttempt = 250 * time.Millisecond

// lock takes a lock of the target, in short tries, so that readers who queue behind it
// get through in between. After the lock timeout it says who is in the way.
func (s *swapper) lock(ctx context.Context, mode string) error {
	var before string
	if err := s.tx.QueryRow(ctx, "SELECT current_setting('lock_timeout')").Scan(&before); err != nil {
		return err
	}
	limit := s.cfg.lockTimeout()
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := pgx.BeginFunc(ctx, s.tx, func(try pgx.Tx) error {
			if _, err := try.Exec(ctx, "SELECT set_config('lock_timeout', $1, true)", fmt.Sprintf("%dms", min(lockAttempt, max(limit, time.Millisecond)).Milliseconds())); err != nil {
				return err
			}
			only := ""
			if s.target.kind == kindTable {
				only = "ONLY "
			}
			_, err := try.Exec(ctx, "LOCK TABLE "+only+s.target.qname().sql()+" IN "+mode+" MODE")
			return err
		})
		if err == nil {
			_, err = s.tx.Exec(ctx, "SELECT set_config('lock_timeout', $1, true)", before)
			return err
		}
		if stateOf(err) != lockNotAvailable {
			return err
		}
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-timeout.C:
			wait.Stop()
			return s.blocked(ctx)
		case <-ctx.Done():
			wait.Stop()
			return context.Cause(ctx)
		}
	}
}

// blocked says who holds locks of the target that a swap conflicts with.
func (s *swapper) blocked(ctx context.Context) error {
	rows, err := s.tx.Query(ctx, `SELECT DISTINCT coalesce(format('pid %s of role %s (application %s, %s, query since %s)', l.pid, a.usename, quote_literal(a.application_name), a.state,
			to_char(a.query_start, 'HH24:MI:SS')), 'a prepared transaction')
		FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
		WHERE l.locktype = 'relation' AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
			AND l.relation = $1 AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid() ORDER BY 1 LIMIT 8`, s.target.oid)
	if err != nil {
		return err
	}
	held, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	who := "somebody who has gone since"
	if len(held) > 0 {
		who = strings.Join(held, ", ")
	}
	e := s.fail(connectors.KindTransient, messages.CodeDestBusy, "", fmt.Errorf("the table is held by %s", who))
	e.Op = fmt.Sprintf("swap the table %s in", s.goal.target())
	e.Next = "End that session, or wait until its transaction ends, then run again."
	return e
}

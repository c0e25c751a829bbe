package postgres

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/query"
	"rapidbyte.io/node/messages"
)

// Destination implements connectors.Destination.
type Destination struct {
	cfg    DestinationConfig
	policy connectors.WritePolicy
	dial   *dialer
}

// NewDestination returns the destination of cfg. It does no I/O.
func NewDestination(cfg DestinationConfig, policy connectors.WritePolicy) (*Destination, error) {
	if cfg.Schema == "" {
		cfg.Schema = "public"
	}
	if cfg.LoadMethod == "" {
		cfg.LoadMethod = LoadCopy
	}
	if cfg.Swap == "" {
		cfg.Swap = SwapAuto
	}
	if p := cfg.Problems(); len(p) > 0 {
		return nil, configError("configure the postgres destination", p)
	}
	dial, err := newDialer(cfg.Connection, connectors.StageDestination)
	if err != nil {
		return nil, err
	}
	return &Destination{cfg: cfg, policy: policy, dial: dial}, nil
}

// configError joins what is wrong with a configuration.
func configError(op string, problems []connectors.Problem) error {
	texts := make([]string, len(problems))
	for i, p := range problems {
		texts[i] = p.Path + ": " + p.Message
	}
	return &connectors.Error{
		Op: op, Kind: connectors.KindConfig, Commit: connectors.CommitNone, Code: messages.CodeDocValue,
		Place: messages.Place{Field: problems[0].Path}, Err: errors.New(strings.Join(texts, "; ")),
	}
}

func destError(op string, kind connectors.Kind, code messages.Code, err error) *connectors.Error {
	return &connectors.Error{Op: op, Kind: kind, Code: code, Place: messages.Place{Stage: connectors.StageDestination}, Err: err}
}

func (d *Destination) classify(ctx context.Context, op string, err error) error {
	return classify(ctx, connectors.StageDestination, op, err)
}

// goal returns what one stream of a load wants of its table.
func (d *Destination) goal(p messages.PipelineID, mode connectors.WriteMode, sp connectors.StreamPlan, load uint64) goal {
	return goal{cfg: d.cfg, policy: d.policy, pipeline: p, mode: mode, stream: sp, load: load}
}

// inspect gives do a connection that changes nothing.
func (d *Destination) inspect(ctx context.Context, op string, do func(*pgx.Conn) error) error {
	conn, err := d.dial.named("rb:check").control(ctx)
	if err != nil {
		return d.classify(ctx, op, err)
	}
	defer closeConn(conn)
	err = d.dial.tend(conn, func() error {
		return pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(pgx.Tx) error { return do(conn) })
	})
	return d.classify(ctx, op, err)
}

// closeConn ends a control connection without waiting for a peer that is gone.
func closeConn(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = conn.Close(ctx) // nothing of it is used any more
}

// Check looks for everything that would make Begin, a writer or Finish fail.
func (d *Destination) Check(ctx context.Context, loads []connectors.Load) ([]connectors.Finding, error) {
	var out []connectors.Finding
	err := d.inspect(ctx, "check the destination", func(conn *pgx.Conn) error {
		if _, err := hasBook(ctx, conn); err != nil {
			return err
		}
		for _, l := range loads {
			for _, sp := range l.Streams {
				found, err := d.goal("", l.Mode, sp, l.ID.Number).check(ctx, conn)
				if err != nil {
					return err
				}
				for _, f := range found {
					if !slices.ContainsFunc(out, func(o connectors.Finding) bool { return o.Message == f.Message && o.Where == f.Where }) {
						out = append(out, f)
					}
				}
			}
		}
		return nil
	})
	if f, ok := finding(err); ok {
		return append(out, f), nil
	}
	return out, err
}

// finding turns a refusal into a line of a report.
func finding(err error) (connectors.Finding, bool) {
	e, ok := errors.AsType[*connectors.Error](err)
	if !ok || e.Kind == connectors.KindInternal {
		return connectors.Finding{}, false
	}
	f := connectors.FailureOf(err, e.Place)
	message := f.What
	if f.Why != "" {
		message += ": " + f.Why
	}
	return connectors.Finding{Severity: connectors.SeverityError, Code: f.Code, Message: message, Where: f.Where, Remedy: f.Next}, true
}

// Changes lists the statements with which Begin would bring the targets to shape, each
// with the lock that it takes.
func (d *Destination) Changes(ctx context.Context, loads []connectors.Load) ([]string, error) {
	var out []string
	err := d.inspect(ctx, "plan the changes", func(conn *pgx.Conn) error {
		for _, l := range loads {
			for _, sp := range l.Streams {
				p, err := d.goal("", l.Mode, sp, l.ID.Number).plan(ctx, conn)
				if err != nil {
					return err
				}
				for _, s := range p.statements {
					out = append(out, s.SQL+"; -- "+s.Lock)
				}
			}
		}
		return nil
	})
	return out, err
}

// Evolves reports that columns can be added to the target of a load that goes on.
func (d *Destination) Evolves(mode connectors.WriteMode) bool {
	return mode == connectors.ModeAppend || mode == connectors.ModeUpsert
}

// Open takes the pipeline over: register the epoch, end sessions of older ones, read
// what is recovered.
func (d *Destination) Open(ctx context.Context, r connectors.SessionRequest) (connectors.Session, error) {
	if r.Epoch == 0 || uint64(r.Epoch) > math.MaxInt64 {
		return nil, destError("open the destination", connectors.KindInternal, messages.CodeInternal, fmt.Errorf("epoch %d cannot be stored", r.Epoch))
	}
	s := newSession(d, r)
	if err := s.takeOver(ctx, r); err != nil {
		return nil, errors.Join(d.classify(ctx, "open the destination", err), s.Close(ctx))
	}
	return s, nil
}

// Survey returns what Open would find.
func (d *Destination) Survey(ctx context.Context, p messages.PipelineID) (connectors.Surveyed, error) {
	const op = "look at the receipts"
	var out connectors.Surveyed
	conn, err := d.dial.named("rb:survey").control(ctx)
	if err != nil {
		return out, d.classify(ctx, op, err)
	}
	defer closeConn(conn)
	one := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err = d.dial.tend(conn, func() error {
		return pgx.BeginTxFunc(ctx, conn, one, func(pgx.Tx) error {
			if has, err := hasBook(ctx, conn); err != nil || !has {
				return err
			}
			id := pipelineUUID(p)
			o, _, err := readOwner(ctx, conn, id, "")
			if err != nil {
				return err
			}
			out.Epoch, out.Store = o.epoch, o.store
			out.Recovered, err = readRecovered(ctx, conn, id)
			return err
		})
	})
	return out, d.classify(ctx, op, err)
}

// Teardown removes what the engine keeps of a pipeline: bookkeeping and staging. The
// targets stay.
func (d *Destination) Teardown(ctx context.Context, p messages.PipelineID, dryRun bool) ([]string, error) {
	conn, err := d.dial.named("rb:teardown").control(ctx)
	if err != nil {
		return nil, d.classify(ctx, "tear down", err)
	}
	defer closeConn(conn)
	var out []string
	err = d.dial.tend(conn, func() error {
		return pgx.BeginFunc(ctx, conn, func(pgx.Tx) error {
			out, err = d.teardown(ctx, conn, p, dryRun)
			return err
		})
	})
	return out, d.classify(ctx, "tear down", err)
}

func (d *Destination) teardown(ctx context.Context, conn *pgx.Conn, p messages.PipelineID, dryRun bool) ([]string, error) {
	if has, err := hasBook(ctx, conn); err != nil || !has {
		return nil, err
	}
	id := pipelineUUID(p)
	if err := quiet(ctx, conn, p); err != nil {
		return nil, err
	}
	loads, err := readLoads(ctx, conn, id)
	if err != nil {
		return nil, err
	}
	var out, statements []string
	for _, l := range loads {
		for _, st := range l.streams {
			if st.Stage != "" && !l.status.Finished {
				out = append(out, "staging table "+d.cfg.Schema+"."+st.Stage)
				statements = append(statements, "DROP TABLE IF EXISTS "+query.Qualified(d.cfg.Schema, st.Stage))
			}
		}
	}
	for _, table := range []string{"owner", "load", "receipt", "dlq"} {
		var n int64
		if err := conn.QueryRow(ctx, "SELECT count(*) FROM _rapidbyte."+table+" WHERE pipeline_id = $1", id).Scan(&n); err != nil {
			return nil, err
		}
		if n > 0 {
			out = append(out, fmt.Sprintf("%d rows of %s.%s", n, bookkeeping, table))
			statements = append(statements, "DELETE FROM _rapidbyte."+table+" WHERE pipeline_id = '"+id.String()+"'")
		}
	}
	if dryRun {
		return out, nil
	}
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return out, err
		}
	}
	return out, nil
}

// quietWithin is how long sessions may take to end that were given up a moment ago.
const quietWithin = time.Second

// quiet refuses while the pipeline has sessions.
func quiet(ctx context.Context, conn *pgx.Conn, p messages.PipelineID) error {
	const sql = "SELECT coalesce(array_agg(pid), '{}') FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE $1"
	for end := time.Now().Add(quietWithin); ; {
		var alive []int32
		if err := conn.QueryRow(ctx, sql, strings.TrimSuffix(applicationName(p, 1), "1")+"%").Scan(&alive); err != nil || len(alive) == 0 {
			return err
		}
		if time.Now().After(end) {
			return destError("tear down", connectors.KindConfig, messages.CodeDestBusy, fmt.Errorf("sessions of the pipeline are alive: pid %v", alive))
		}
		// What a transaction sees of the activity does not change until it is asked to.
		if _, err := conn.Exec(ctx, "SELECT pg_stat_clear_snapshot()"); err != nil {
			return err
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// stateOf returns the SQLSTATE of err, "" when no server said it.
func stateOf(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

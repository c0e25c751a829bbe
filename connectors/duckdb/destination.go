package duckdb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/internal/duckarrow"
	"rapidbyte.io/node/messages"
)

// Destination implements connectors.Destination.
type Destination struct{ cfg DestinationConfig }

// NewDestination returns the destination of cfg. It does no I/O.
func NewDestination(cfg DestinationConfig) (*Destination, error) {
	if p := cfg.Problems(); len(p) > 0 {
		return nil, configError("configure the duckdb destination", p)
	}
	if cfg.Schema == "" {
		cfg.Schema = schemaDefault
	}
	return &Destination{cfg: cfg}, nil
}

// Check opens the file read-only, if it exists, and looks for what would make
// Begin fail.
func (d *Destination) Check(ctx context.Context, loads []connectors.Load) ([]connectors.Finding, error) {
	var out []connectors.Finding
	err := d.inspect(ctx, func(conn *duckarrow.Conn) error {
		for _, l := range loads {
			for _, sp := range l.Streams {
				_, err := d.planned(ctx, conn, l.Mode, sp)
				if f, ok := finding(err); ok {
					out = append(out, f)
				} else if err != nil {
					return err
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

// Changes lists the statements with which Begin would bring the targets to shape.
func (d *Destination) Changes(ctx context.Context, loads []connectors.Load) ([]string, error) {
	var out []string
	err := d.inspect(ctx, func(conn *duckarrow.Conn) error {
		for _, l := range loads {
			for _, sp := range l.Streams {
				sql, err := d.planned(ctx, conn, l.Mode, sp)
				if err != nil {
					return err
				}
				out = append(out, sql...)
			}
		}
		return nil
	})
	return out, err
}

// planned returns what Begin would do for one stream. conn is nil when there is
// no file yet.
func (d *Destination) planned(ctx context.Context, conn *duckarrow.Conn, mode connectors.WriteMode, sp connectors.StreamPlan) ([]string, error) {
	s, err := newShape(d.cfg.Path, d.cfg.Schema, mode, sp)
	if err != nil {
		return nil, err
	}
	if conn == nil {
		return []string{s.create(s.target, mode == connectors.ModeUpsert)}, nil
	}
	t, err := readTable(ctx, conn, s.schema, s.target)
	if err != nil {
		return nil, classify(ctx, "read the catalogue", d.cfg.Path, err)
	}
	if mode == connectors.ModeReplace {
		return s.replaces(t)
	}
	sql, err := s.changes(ctx, conn, t)
	return sql, classify(ctx, "read the catalogue", d.cfg.Path, err)
}

// inspect gives do a connection that changes nothing, or nil if there is no file.
func (d *Destination) inspect(ctx context.Context, do func(*duckarrow.Conn) error) error {
	path := resolve(d.cfg.Path)
	if err := checkFolder(path); err != nil {
		return err
	}
	if opened.writing(path) { // this process has it: look through its handle
		f, err := opened.acquire(ctx, d.cfg.Path, d.cfg.MaxMemory)
		if err != nil {
			return err
		}
		defer opened.release(f)
		return d.connected(ctx, f.db, do)
	}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return do(nil)
	}
	db, err := openPatiently(ctx, path, readOnly(d.cfg.MaxMemory))
	if err != nil {
		return classify(ctx, "open the database", d.cfg.Path, err)
	}
	defer db.Close()
	return d.connected(ctx, db, do)
}

func (d *Destination) connected(ctx context.Context, db *duckarrow.DB, do func(*duckarrow.Conn) error) error {
	conn, err := db.Connect()
	if err != nil {
		return classify(ctx, "connect", d.cfg.Path, err)
	}
	defer conn.Close()
	return do(conn)
}

// finding turns a typed refusal into a line of a report.
func finding(err error) (connectors.Finding, bool) {
	e, ok := errors.AsType[*connectors.Error](err)
	if !ok || e.Kind == connectors.KindInternal {
		return connectors.Finding{}, false
	}
	return connectors.Finding{
		Severity: connectors.SeverityError, Code: e.Code, Message: e.Error(), Where: e.Place, Remedy: e.Next,
	}, true
}

// Open takes the pipeline over. Sessions of a lower epoch in this process are
// ended; another process cannot have the file open.
func (d *Destination) Open(ctx context.Context, r connectors.SessionRequest) (connectors.Session, error) {
	path := resolve(d.cfg.Path)
	if err := checkFolder(path); err != nil {
		return nil, err
	}
	if err := makePath(filepath.Dir(path), syncFolder); err != nil {
		return nil, destError("create the folder of the database", connectors.KindConfig, messages.CodeDestDenied, path, err)
	}
	f, err := opened.acquire(ctx, d.cfg.Path, d.cfg.MaxMemory)
	if err != nil {
		return nil, err
	}
	s := &Session{file: f, cfg: d.cfg, pipeline: r.Pipeline, epoch: r.Epoch}
	if s.conn, err = f.connect(ctx); err == nil {
		err = s.takeOver(ctx, r)
	}
	if err != nil {
		err = classify(ctx, "open the destination", d.cfg.Path, err)
		return nil, errors.Join(err, s.Close(ctx))
	}
	return s, nil
}

// Survey opens the file read-only, if it exists, and returns what Open would find.
func (d *Destination) Survey(ctx context.Context, p messages.PipelineID) (out connectors.Surveyed, err error) {
	if _, err := os.Stat(resolve(d.cfg.Path)); errors.Is(err, os.ErrNotExist) {
		return out, nil
	}
	err = d.inspect(ctx, func(conn *duckarrow.Conn) error {
		if conn == nil {
			return nil
		}
		return transaction(ctx, conn, func() error {
			if has, err := hasBook(ctx, conn); err != nil || !has {
				return damaged(ctx, d.cfg.Path, err)
			}
			o, _, err := readOwner(ctx, conn, p)
			if err != nil {
				return damaged(ctx, d.cfg.Path, err)
			}
			out.Epoch, out.Store = o.epoch, o.store
			out.Recovered, err = readRecovered(ctx, conn, p)
			return damaged(ctx, d.cfg.Path, err)
		})
	})
	return out, classify(ctx, "look at the receipts", d.cfg.Path, err)
}

// Teardown removes what the engine keeps of a pipeline: bookkeeping and staging.
// The targets stay. It refuses while this process has a session of the file.
func (d *Destination) Teardown(ctx context.Context, p messages.PipelineID, dryRun bool) ([]string, error) {
	if opened.writing(d.cfg.Path) {
		return nil, destError("tear down", connectors.KindConfig, messages.CodeDestBusy, d.cfg.Path, errors.New("the file is in use by this process"))
	}
	if _, err := os.Stat(resolve(d.cfg.Path)); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	f, err := opened.acquire(ctx, d.cfg.Path, d.cfg.MaxMemory)
	if err != nil {
		return nil, err
	}
	defer opened.release(f)
	conn, err := f.connect(ctx)
	if err != nil {
		return nil, classify(ctx, "tear down", d.cfg.Path, err)
	}
	defer conn.Close()
	out, err := d.teardown(ctx, conn, p, dryRun)
	return out, classify(ctx, "tear down", d.cfg.Path, err)
}

func (d *Destination) teardown(ctx context.Context, conn *duckarrow.Conn, p messages.PipelineID, dryRun bool) ([]string, error) {
	if has, err := hasBook(ctx, conn); err != nil || !has {
		return nil, err
	}
	loads, err := readLoads(ctx, conn, p, "")
	if err != nil {
		return nil, err
	}
	var out, drops []string
	for _, l := range loads {
		for _, st := range l.streams {
			if st.Stage != "" && !l.status.Finished {
				out = append(out, "staging table "+d.cfg.Schema+"."+st.Stage)
				drops = append(drops, "DROP TABLE IF EXISTS "+duckarrow.Quote(d.cfg.Schema)+"."+duckarrow.Quote(st.Stage))
			}
		}
	}
	return out, transaction(ctx, conn, func() error {
		for _, name := range []string{"owner", "load", "receipt", "dlq"} {
			rows, err := conn.Rows(ctx, "SELECT count(*) FROM _rapidbyte."+name+" WHERE pipeline = ?", string(p))
			if err != nil {
				return err
			}
			if n, _ := rows[0][0].(int64); n > 0 {
				out = append(out, fmt.Sprintf("%d rows of %s.%s", n, bookkeeping, name))
			}
			if dryRun {
				continue
			}
			if _, err := conn.Do(ctx, "DELETE FROM _rapidbyte."+name+" WHERE pipeline = ?", string(p)); err != nil {
				return err
			}
		}
		for _, sql := range drops {
			if dryRun {
				break
			}
			if _, err := conn.Exec(ctx, sql); err != nil {
				return err
			}
		}
		return nil
	})
}

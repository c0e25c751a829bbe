package duckarrow

import (
	"context"
	"errors"
	"time"

	"github.com/duckdb/duckdb-go/v2"
	"github.com/duckdb/duckdb-go/v2/mapping"
)

// DB is an open database.
type DB struct {
	db     mapping.Database
	closed bool
}

// Memory opens an empty database in memory. Options are DuckDB's settings.
func Memory(options map[string]string) (*DB, error) {
	return open("", options)
}

// Open opens a database file; it is created unless access_mode says read_only.
// All DBs of one file in this process share one instance and need the same
// options.
func Open(path string, options map[string]string) (*DB, error) {
	if path == "" {
		return nil, errors.New("no path")
	}
	return open(path, options)
}

func open(path string, options map[string]string) (*DB, error) {
	var config mapping.Config
	if mapping.CreateConfig(&config) == mapping.StateError {
		return nil, errors.New("duckdb: no memory for a configuration")
	}
	defer mapping.DestroyConfig(&config)
	for k, v := range options {
		if mapping.SetConfig(config, k, v) == mapping.StateError {
			return nil, errors.New("duckdb: the setting " + k + " does not take " + v)
		}
	}
	var text string
	d := &DB{}
	var state mapping.State
	if path == "" {
		state = mapping.OpenExt("", &d.db, config, &text)
	} else {
		state = mapping.GetOrCreateFromCache(duckdb.GetInstanceCache(), path, &d.db, config, &text)
	}
	if state == mapping.StateError {
		mapping.Close(&d.db)
		return nil, newError(text)
	}
	return d, nil
}

// Close closes the database when its last DB is closed. Idempotent.
func (d *DB) Close() {
	if d.closed {
		return
	}
	d.closed = true
	mapping.Close(&d.db)
}

// Connect opens a connection.
func (d *DB) Connect() (*Conn, error) {
	if d.closed {
		return nil, errors.New("duckdb: the database is closed")
	}
	c := &Conn{}
	if mapping.Connect(d.db, &c.conn) == mapping.StateError {
		return nil, errors.New("duckdb: cannot connect")
	}
	return c, nil
}

// Conn is a connection with at most one open transaction.
type Conn struct {
	conn   mapping.Connection
	closed bool
}

// Close rolls an open transaction back and disconnects. Idempotent.
func (c *Conn) Close() {
	if c.closed {
		return
	}
	c.closed = true
	mapping.Disconnect(&c.conn)
}

// Interrupt ends what the connection is running, if anything. Any goroutine may
// call it while the connection is open.
func (c *Conn) Interrupt() { mapping.Interrupt(c.conn) }

// Exec runs one or more statements without parameters and returns the rows
// changed by the last one.
func (c *Conn) Exec(ctx context.Context, query string) (int64, error) {
	var changed int64
	err := c.each(ctx, query, func(s *Stmt) error {
		n, err := s.Exec(ctx)
		changed = n
		return err
	})
	return changed, err
}

// each prepares the statements of query one after the other: a later one may
// refer to what an earlier one makes.
func (c *Conn) each(ctx context.Context, query string, do func(*Stmt) error) error {
	var stmts mapping.ExtractedStatements
	count := mapping.ExtractStatements(c.conn, query, &stmts)
	defer mapping.DestroyExtracted(&stmts)
	if count == 0 {
		if text := mapping.ExtractStatementsError(stmts); text != "" {
			return newError(text)
		}
		return nil
	}
	for i := range count {
		s, err := c.prepare(ctx, stmts, i)
		if err != nil {
			return err
		}
		err = do(s)
		s.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// running lets ctx interrupt do. An interrupt that arrives before DuckDB begins
// is lost, therefore it is repeated until do returns.
func (c *Conn) running(ctx context.Context, do func() error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if ctx.Done() == nil {
		return do()
	}
	done, ended := make(chan struct{}), make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		t := time.NewTicker(5 * time.Millisecond)
		defer t.Stop()
		for {
			c.Interrupt()
			select {
			case <-done:
				return
			case <-t.C:
			}
		}
	})
	err := do()
	close(done)
	if !stop() {
		<-ended
		if err != nil {
			return context.Cause(ctx)
		}
	}
	return err
}

package duckdb

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/internal/duckarrow"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/failpoint"
)

// Session implements connectors.Session.
type Session struct {
	file     *file
	cfg      DestinationConfig
	pipeline messages.PipelineID
	epoch    messages.Epoch

	conn      *duckarrow.Conn // used under control of the file
	recovered connectors.Recovered

	mu      sync.Mutex
	closed  bool
	writers []*Writer // opened through this session
}

// takeOver registers the epoch, ends older sessions and reads what is there.
func (s *Session) takeOver(ctx context.Context, r connectors.SessionRequest) error {
	if r.Epoch == 0 || uint64(r.Epoch) > math.MaxInt64 {
		return fmt.Errorf("epoch %d cannot be stored", r.Epoch)
	}
	if err := s.file.lock(ctx); err != nil {
		return err
	}
	defer s.file.unlock()
	if has, err := hasBook(ctx, s.conn); err != nil {
		return destError("open the destination", connectors.KindConfig, messages.CodeDestDamaged, s.cfg.Path, err)
	} else if !has {
		if err := transaction(ctx, s.conn, func() error {
			_, err := s.conn.Exec(ctx, bookTables)
			return err
		}); err != nil {
			return err
		}
	}
	if err := transaction(ctx, s.conn, func() error { return s.register(ctx, r) }); err != nil {
		return err
	}
	s.file.epochs[s.pipeline] = s.epoch
	s.file.fence(&connectors.FencedError{Registered: messages.Token{Epoch: s.epoch}}, func(k writerKey, w *Writer) bool {
		return k.pipeline == s.pipeline && w.token.Epoch < s.epoch
	})
	return s.readBack(ctx)
}

// register writes the epoch, or refuses.
func (s *Session) register(ctx context.Context, r connectors.SessionRequest) error {
	o, ok, err := readOwner(ctx, s.conn, r.Pipeline)
	if err != nil {
		return err
	}
	if !ok {
		_, err := s.conn.Do(ctx, "INSERT INTO _rapidbyte.owner VALUES (?, ?, ?)", string(r.Pipeline), int64(r.Epoch), r.Store)
		return err
	}
	if o.store != r.Store && !r.Adopt {
		return destError("open the destination", connectors.KindConfig, messages.CodeDestForeign, s.cfg.Path,
			fmt.Errorf("pipeline %s was run from the state store %q, this is %q", r.Pipeline, o.store, r.Store))
	}
	if o.epoch > r.Epoch || o.epoch == r.Epoch && !r.Join {
		return &connectors.FencedError{Registered: messages.Token{Epoch: o.epoch}}
	}
	if o.epoch == r.Epoch && o.store == r.Store {
		return nil
	}
	_, err = s.conn.Do(ctx, "UPDATE _rapidbyte.owner SET epoch = ?, store = ? WHERE pipeline = ?", int64(r.Epoch), r.Store, string(r.Pipeline))
	return err
}

func (s *Session) readBack(ctx context.Context) (err error) {
	s.recovered, err = readRecovered(ctx, s.conn, s.pipeline)
	return s.damaged(ctx, err)
}

func (s *Session) damaged(ctx context.Context, err error) error { return damaged(ctx, s.cfg.Path, err) }

// damaged names an error that is not DuckDB's: rows that we did not write.
func damaged(ctx context.Context, path string, err error) error {
	if _, ok := errors.AsType[*duckarrow.Error](err); err == nil || ok || ctx.Err() != nil {
		return err
	}
	return destError("read the receipts", connectors.KindConfig, messages.CodeDestDamaged, path, err)
}

// Recovered returns what Open found.
func (s *Session) Recovered() connectors.Recovered { return s.recovered }

// changing runs do as one transaction, if the epoch still is ours.
func (s *Session) changing(ctx context.Context, op string, do func() error) error {
	if err := s.file.lock(ctx); err != nil {
		return err
	}
	defer s.file.unlock()
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return destError(op, connectors.KindInternal, messages.CodeInternal, s.cfg.Path, errors.New("the session is closed"))
	}
	err := s.fenced()
	if err == nil {
		err = transaction(ctx, s.conn, func() error {
			o, ok, err := readOwner(ctx, s.conn, s.pipeline)
			switch {
			case err != nil:
				return err
			case !ok:
				return destError(op, connectors.KindConfig, messages.CodeDestDamaged, s.cfg.Path, errors.New("the pipeline's row in _rapidbyte.owner is gone"))
			case o.epoch != s.epoch:
				return &connectors.FencedError{Registered: messages.Token{Epoch: o.epoch}}
			}
			return do()
		})
	}
	return classify(ctx, op, s.cfg.Path, err)
}

// fenced reports a higher epoch in this process. The caller has control.
func (s *Session) fenced() error {
	if e := s.file.epochs[s.pipeline]; e > s.epoch {
		return &connectors.FencedError{Registered: messages.Token{Epoch: e}}
	}
	return nil
}

// Begin makes l the current load of its name.
func (s *Session) Begin(ctx context.Context, l connectors.Load) error {
	shapes := make([]*shape, len(l.Streams))
	for i, sp := range l.Streams {
		sh, err := newShape(s.cfg.Path, s.cfg.Schema, l.Mode, sp)
		if err != nil {
			return err
		}
		shapes[i] = sh
	}
	return s.changing(ctx, "begin load "+l.ID.Name, func() error {
		known, err := readLoads(ctx, s.conn, s.pipeline, l.ID.Name)
		if err != nil {
			return s.damaged(ctx, err)
		}
		if len(known) > 0 {
			old := known[0]
			if old.status.ID.Number == l.ID.Number && !old.status.Finished {
				return s.intact(ctx, old)
			}
			if old.status.ID.Number == l.ID.Number {
				return nil
			}
			if old.status.ID.Number > l.ID.Number {
				return destError("begin load "+l.ID.Name, connectors.KindInternal, messages.CodeInternal, s.cfg.Path,
					fmt.Errorf("load %d is older than load %d, which was begun", l.ID.Number, old.status.ID.Number))
			}
			if l.Adds && old.status.Mode != connectors.ModeReplace {
				if err := s.intact(ctx, old); err != nil {
					return err
				}
			}
			if err := s.forget(ctx, old); err != nil {
				return err
			}
		}
		if _, err := s.conn.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+duckarrow.Quote(s.cfg.Schema)); err != nil {
			return err
		}
		stored, err := s.prepare(ctx, l, shapes)
		if err != nil {
			return err
		}
		return s.record(ctx, l, stored)
	})
}

// intact finds tables of a begun load that rows were committed to and that are gone. DuckDB
// gives a table no name but its name: one that was made again looks like the same.
func (s *Session) intact(ctx context.Context, l storedLoad) error {
	receipts, parts, err := readReceipts(ctx, s.conn, s.pipeline, "")
	if err != nil {
		return s.damaged(ctx, err)
	}
	for _, st := range l.streams {
		name := cmp.Or(st.Stage, st.Target)
		t, err := readTable(ctx, s.conn, s.cfg.Schema, name)
		if err != nil {
			return err
		}
		for i, r := range receipts {
			if t != nil || r.LoadID() != l.status.ID || r.Version.Commit == 0 || !slices.Contains(parts[i].Streams, st.Stream) {
				continue
			}
			e := destError("continue the load", connectors.KindConfig, messages.CodeStateAhead, s.cfg.Path,
				fmt.Errorf("the destination has task %s at %s, in table %s.%s, and there is no such table any more: it was dropped or renamed", r.Part, r.Reached(), s.cfg.Schema, name))
			e.Place.Stream, e.Place.Part, e.Place.Position = st.Stream, r.Part, r.Position.String()
			return e
		}
	}
	return nil
}

// forget removes an older load: its writers, staging and receipts.
func (s *Session) forget(ctx context.Context, old storedLoad) error {
	s.file.fence(&connectors.FencedError{Registered: messages.Token{Epoch: s.epoch}}, func(k writerKey, w *Writer) bool {
		return k.pipeline == s.pipeline && w.receipt.Load == old.status.ID.Name
	})
	for _, st := range old.streams {
		if st.Stage == "" {
			continue
		}
		if _, err := s.conn.Exec(ctx, "DROP TABLE IF EXISTS "+duckarrow.Quote(s.cfg.Schema)+"."+duckarrow.Quote(st.Stage)); err != nil {
			return err
		}
	}
	for _, name := range []string{"receipt WHERE load", "load WHERE name"} {
		if _, err := s.conn.Do(ctx, "DELETE FROM _rapidbyte."+name+" = ? AND pipeline = ?", old.status.ID.Name, string(s.pipeline)); err != nil {
			return err
		}
	}
	return nil
}

// prepare makes the targets or the staging of l.
func (s *Session) prepare(ctx context.Context, l connectors.Load, shapes []*shape) ([]storedStream, error) {
	var out []storedStream
	for _, sh := range shapes {
		raw, err := encodeSchema(sh.stream.Schema)
		if err != nil {
			return nil, err
		}
		st := storedStream{Stream: sh.stream.Stream, Target: sh.target, Key: sh.stream.Key, Schema: raw}
		t, err := readTable(ctx, s.conn, s.cfg.Schema, sh.target)
		if err != nil {
			return nil, err
		}
		var sql []string
		if l.Mode == connectors.ModeReplace {
			if _, err := sh.replaces(t); err != nil {
				return nil, err
			}
			st.Stage = stageName(s.pipeline, st.Stream, l.ID.Number)
			sql = []string{"DROP TABLE IF EXISTS " + sh.qualified(st.Stage), sh.create(st.Stage, false)}
		} else if sql, err = sh.changes(ctx, s.conn, t); err != nil {
			return nil, err
		}
		for _, stmt := range sql {
			if _, err := s.conn.Exec(ctx, stmt); err != nil {
				return nil, s.shapeError(ctx, sh, err)
			}
		}
		out = append(out, st)
	}
	return out, nil
}

// shapeError names the stream whose table could not be made.
func (s *Session) shapeError(ctx context.Context, sh *shape, err error) error {
	err = classify(ctx, fmt.Sprintf("prepare the table %q", sh.target), s.cfg.Path, err)
	if e, ok := errors.AsType[*connectors.Error](err); ok {
		e.Place.Stream = sh.stream.Stream
	}
	return err
}

// record writes the load and a receipt at commit 0 for each part.
func (s *Session) record(ctx context.Context, l connectors.Load, stored []storedStream) error {
	streams, err := json.Marshal(stored)
	if err != nil {
		return err
	}
	status, err := json.Marshal(l.Status())
	if err != nil {
		return err
	}
	if _, err := s.conn.Do(ctx, "INSERT INTO _rapidbyte.load VALUES (?, ?, ?, false, ?, ?)",
		string(s.pipeline), l.ID.Name, int64(l.ID.Number), string(status), string(streams)); err != nil { //nolint:gosec // counts passes
		return err
	}
	insert, err := s.conn.Prepare(ctx, `INSERT INTO _rapidbyte.receipt VALUES (?, ?, ?, ?, 0, 0, 0, '{}', false, ?, 0, 0, 0, 0, now())`)
	if err != nil {
		return err
	}
	defer insert.Close()
	if _, err := s.conn.Do(ctx, "DELETE FROM _rapidbyte.receipt WHERE pipeline = ? AND load = ?", string(s.pipeline), l.ID.Name); err != nil {
		return err
	}
	for _, p := range l.Parts {
		planned, err := json.Marshal(p)
		if err != nil {
			return err
		}
		if _, err := s.conn.Do(ctx, "DELETE FROM _rapidbyte.receipt WHERE pipeline = ? AND part = ?", string(s.pipeline), string(p.ID)); err != nil {
			return err
		}
		if _, err := insert.Exec(ctx, string(s.pipeline), string(p.ID), l.ID.Name, int64(l.ID.Number), string(planned)); err != nil { //nolint:gosec // counts passes
			return err
		}
	}
	return nil
}

// replaces checks that a table may take the place of t, and says how.
func (s *shape) replaces(t *table) ([]string, error) {
	create := s.create(s.target, false)
	if t == nil {
		return []string{create}, nil
	}
	if t.view {
		return nil, s.fail(connectors.KindConfig, messages.CodeSchemaName, "", errors.New("a view of that name exists"))
	}
	if t.name != s.target {
		return nil, s.fail(connectors.KindSchema, messages.CodeSchemaName, "",
			fmt.Errorf("the table %q exists, and DuckDB ignores case in names", t.name))
	}
	return []string{"DROP TABLE " + s.qualified(s.target), create}, nil
}

// OpenWriter fences every other writer of the part and returns the receipt.
func (s *Session) OpenWriter(ctx context.Context, p connectors.Part, t messages.Token) (connectors.Writer, messages.Receipt, error) {
	op := "open a writer of " + string(p.ID)
	w := &Writer{session: s, token: t}
	err := s.changing(ctx, op, func() error {
		receipts, _, err := readReceipts(ctx, s.conn, s.pipeline, p.ID)
		if err != nil {
			return s.damaged(ctx, err)
		}
		if len(receipts) != 1 {
			return destError(op, connectors.KindInternal, messages.CodeInternal, s.cfg.Path, fmt.Errorf("the part has %d receipts, want 1: it was not begun", len(receipts)))
		}
		w.receipt = receipts[0]
		if w.receipt.LoadID() != p.Load || w.receipt.Token.Compare(t) > 0 || t.Epoch != s.epoch {
			return &connectors.FencedError{Registered: younger(w.receipt.Token, messages.Token{Epoch: s.epoch})}
		}
		loads, err := readLoads(ctx, s.conn, s.pipeline, w.receipt.Load)
		if err != nil {
			return s.damaged(ctx, err)
		}
		if len(loads) != 1 {
			return destError(op, connectors.KindConfig, messages.CodeDestDamaged, s.cfg.Path, errors.New("the part's load is not in _rapidbyte.load"))
		}
		w.load = loads[0]
		s.file.fence(&connectors.FencedError{Registered: t}, func(k writerKey, _ *Writer) bool {
			return k == writerKey{s.pipeline, p.ID}
		})
		_, err = s.conn.Do(ctx, "UPDATE _rapidbyte.receipt SET epoch = ?, attempt = ? WHERE pipeline = ? AND part = ?",
			int64(t.Epoch), int64(t.Attempt), string(s.pipeline), string(p.ID)) //nolint:gosec // counters
		w.receipt.Token = t
		return err
	})
	if err != nil {
		return nil, messages.Receipt{}, err
	}
	if err := w.open(ctx, p); err != nil {
		return nil, messages.Receipt{}, classify(ctx, op, s.cfg.Path, err)
	}
	return w, w.receipt, nil
}

// Finish swaps the staging of a replace in and marks the load, in one transaction.
func (s *Session) Finish(ctx context.Context, id messages.LoadID) error {
	op := "finish load " + id.Name
	swapped := false
	err := s.changing(ctx, op, func() error {
		loads, err := readLoads(ctx, s.conn, s.pipeline, id.Name)
		if err != nil {
			return s.damaged(ctx, err)
		}
		if len(loads) != 1 || loads[0].status.ID != id {
			return destError(op, connectors.KindInternal, messages.CodeInternal, s.cfg.Path, fmt.Errorf("load %d was not begun", id.Number))
		}
		l := loads[0]
		if l.status.Finished {
			return nil
		}
		rows, err := s.conn.Rows(ctx, "SELECT count(*) FROM _rapidbyte.receipt WHERE pipeline = ? AND load = ? AND NOT final", string(s.pipeline), id.Name)
		if err != nil {
			return err
		}
		if open, _ := rows[0][0].(int64); open > 0 {
			return destError(op, connectors.KindInternal, messages.CodeInternal, s.cfg.Path, fmt.Errorf("%d parts are not final", open))
		}
		schema := duckarrow.Quote(s.cfg.Schema) + "."
		for _, st := range l.streams {
			if st.Stage == "" {
				continue
			}
			if _, err := s.conn.Exec(ctx, "DROP TABLE IF EXISTS "+schema+duckarrow.Quote(st.Target)); err != nil {
				return err
			}
			if _, err := s.conn.Exec(ctx, "ALTER TABLE "+schema+duckarrow.Quote(st.Stage)+" RENAME TO "+duckarrow.Quote(st.Target)); err != nil {
				return err
			}
		}
		if swapped = l.status.Mode == connectors.ModeReplace; swapped {
			if err := failpoint.Hit(failpoint.SwapBefore); err != nil {
				return err
			}
		}
		_, err = s.conn.Do(ctx, "UPDATE _rapidbyte.load SET finished = true WHERE pipeline = ? AND name = ?", string(s.pipeline), id.Name)
		return err
	})
	if err != nil || !swapped {
		return err
	}
	return failpoint.Hit(failpoint.SwapAfter)
}

// Close ends the session's writers and gives the file up. Idempotent.
func (s *Session) Close(ctx context.Context) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	writers := s.writers
	s.writers = nil
	s.mu.Unlock()
	ctx = context.WithoutCancel(ctx)
	for _, w := range writers {
		w.end(ctx)
	}
	if err := s.file.lock(ctx); err != nil { // whoever has control is done soon
		return err
	}
	if s.conn != nil {
		s.conn.Close()
	}
	s.file.unlock()
	opened.release(s.file)
	return nil
}

func younger(a, b messages.Token) messages.Token {
	if a.Compare(b) >= 0 {
		return a
	}
	return b
}

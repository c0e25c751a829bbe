package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/query"
	"rapidbyte.io/node/messages"
)

// beginMost is how many loads are begun in one transaction. Each has the locks of a new
// table and its indexes until then, of which a server has a few thousand for all.
const beginMost = 64

// Begin makes l the current load of its name.
func (s *Session) Begin(ctx context.Context, l connectors.Load) error {
	return s.begin(ctx, []connectors.Load{l})
}

// BeginAll implements connectors.Beginner: so many loads at a time, with what the catalogue
// has on all of them read at once.
func (s *Session) BeginAll(ctx context.Context, loads []connectors.Load) error {
	for some := range slices.Chunk(loads, beginMost) {
		if err := s.together(ctx, some); err != nil {
			return err
		}
	}
	return nil
}

// together begins loads in one transaction, or in several where one does not do.
func (s *Session) together(ctx context.Context, loads []connectors.Load) error {
	err := s.begin(ctx, loads)
	if err == nil || len(loads) == 1 {
		return err
	}
	var steps [][]connectors.Load
	if a, ok := errors.AsType[*apart](err); ok {
		i := slices.IndexFunc(loads, func(l connectors.Load) bool { return l.ID.Name == a.load })
		steps = [][]connectors.Load{loads[:i], loads[i : i+1], loads[i+1:]}
	} else if state := stateOf(err); state != "" && state != lockNotAvailable { // it may have been too much for one transaction
		steps = slices.Collect(slices.Chunk(loads, 1))
	} else {
		return err
	}
	for _, step := range steps {
		if len(step) == 0 {
			continue
		}
		if err := s.together(ctx, step); err != nil {
			return err
		}
	}
	return nil
}

// apart says that a load is begun by itself. It locks a table that others use against
// everybody: such a lock is held no longer than it must, and never while another one is
// waited for.
type apart struct{ load string }

// Error implements error.
func (a *apart) Error() string { return "load " + a.load + " is begun by itself" }

// begin begins loads in one transaction.
func (s *Session) begin(ctx context.Context, loads []connectors.Load) error {
	for _, l := range loads {
		switch l.Mode {
		case connectors.ModeAppend, connectors.ModeUpsert, connectors.ModeReplace:
		default:
			return aboutLoad(l, destError("begin load "+l.ID.Name, connectors.KindConfig, messages.CodeDocValue, fmt.Errorf("write_mode %q is unknown", l.Mode)))
		}
	}
	op := "begin load " + loads[0].ID.Name
	if len(loads) > 1 {
		op = fmt.Sprintf("begin %d loads", len(loads))
	}
	var forgotten []string
	var made []*beginning
	err := s.changing(ctx, s.book, op, func(tx pgx.Tx) (err error) {
		made, forgotten, err = s.beginIn(ctx, tx, loads)
		return err
	})
	if err != nil {
		return err
	}
	for _, name := range forgotten {
		s.dead.forget(name)
	}
	s.remember(loads, made)
	return nil
}

// aboutLoad names the load that an error is about, when others were begun with it.
func aboutLoad(l connectors.Load, err error) error {
	if e, ok := errors.AsType[*connectors.Error](err); ok && e.Place.Stream == "" {
		e.Place.Stream = messages.StreamID(l.ID.Name)
	}
	return err
}

// beginning is a load on its way to be begun.
type beginning struct {
	load   connectors.Load
	goals  []goal   // by stream
	stages []string // by stream; empty: the rows go to the target itself
	lays   []*layout
	marks  []string // of the tables that lays are of
}

// beginIn begins loads inside of a transaction. It returns those that are new, and the names
// of those whose older load is gone.
func (s *Session) beginIn(ctx context.Context, tx pgx.Tx, loads []connectors.Load) (fresh []*beginning, forgotten []string, err error) {
	known, err := s.knownLoads(ctx, tx.Conn(), loads)
	if err != nil {
		return nil, nil, err
	}
	for _, l := range loads {
		old, ok := known[l.ID.Name]
		switch {
		case ok && old.status.ID.Number == l.ID.Number:
			if len(loads) > 1 && old.status.Shape != l.Shape {
				return nil, nil, &apart{l.ID.Name}
			}
			if err := s.evolve(ctx, tx, old, l); err != nil {
				return nil, nil, aboutLoad(l, s.d.classify(ctx, "begin load "+l.ID.Name, err))
			}
			continue
		case ok:
			if err := s.succeed(ctx, tx, old, l); err != nil {
				return nil, nil, aboutLoad(l, s.d.classify(ctx, "begin load "+l.ID.Name, err))
			}
			forgotten = append(forgotten, l.ID.Name)
		}
		fresh = append(fresh, s.beginning(l))
	}
	if len(fresh) == 0 {
		return nil, nil, nil
	}
	stored, err := s.prepare(ctx, tx, fresh, len(loads) == 1)
	if err != nil {
		return nil, nil, err
	}
	return fresh, forgotten, s.record(ctx, tx, fresh, stored)
}

func (s *Session) knownLoads(ctx context.Context, conn *pgx.Conn, loads []connectors.Load) (map[string]storedLoad, error) {
	names := make([]string, len(loads))
	for i, l := range loads {
		names[i] = l.ID.Name
	}
	found, err := readLoads(ctx, conn, s.id, names...)
	if err != nil {
		return nil, err
	}
	out := make(map[string]storedLoad, len(found))
	for _, l := range found {
		out[l.status.ID.Name] = l
	}
	return out, nil
}

// succeed removes what an older load has left, for l.
func (s *Session) succeed(ctx context.Context, tx pgx.Tx, old storedLoad, l connectors.Load) error {
	if old.status.ID.Number > l.ID.Number {
		return destError("begin load "+l.ID.Name, connectors.KindInternal, messages.CodeInternal,
			fmt.Errorf("load %d is older than load %d, which was begun", l.ID.Number, old.status.ID.Number))
	}
	if l.Adds && old.status.Mode != connectors.ModeReplace {
		if err := s.intact(ctx, tx.Conn(), old); err != nil {
			return err
		}
	}
	return s.forget(ctx, tx, old)
}

// forget removes an older load: its writers, staging and receipts, and the dead letters of
// a version that nobody will see.
func (s *Session) forget(ctx context.Context, tx pgx.Tx, old storedLoad) error {
	s.mu.Lock()
	var stale []*Writer
	for _, w := range s.writers {
		if w.load.status.ID.Name == old.status.ID.Name {
			stale = append(stale, w)
		}
	}
	s.mu.Unlock()
	for _, w := range stale {
		w.end(&connectors.FencedError{Registered: messages.Token{Epoch: s.epoch}})
	}
	for _, st := range old.streams {
		if st.Stage == "" {
			continue
		}
		if _, err := tx.Exec(ctx, "DROP TABLE IF EXISTS "+query.Qualified(s.d.cfg.Schema, st.Stage)); err != nil {
			return err
		}
	}
	if old.status.Mode == connectors.ModeReplace && !old.status.Finished { // their rows are read again
		if _, err := tx.Exec(ctx, "DELETE FROM _rapidbyte.dlq WHERE pipeline_id = $1 AND load = $2 AND load_no = $3",
			s.id, old.status.ID.Name, int64(old.status.ID.Number)); err != nil { //nolint:gosec // counts passes
			return err
		}
	}
	if _, err := tx.Exec(ctx, "DELETE FROM _rapidbyte.receipt WHERE pipeline_id = $1 AND load = $2", s.id, old.status.ID.Name); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, "DELETE FROM _rapidbyte.load WHERE pipeline_id = $1 AND name = $2", s.id, old.status.ID.Name)
	return err
}

// evolve brings a begun load to the shape that its streams have now: columns are added,
// by policy. A load that has its shape is left alone.
func (s *Session) evolve(ctx context.Context, tx pgx.Tx, old storedLoad, l connectors.Load) error {
	if err := s.intact(ctx, tx.Conn(), old); err != nil || old.status.Shape == l.Shape {
		return err
	}
	for _, sp := range l.Streams {
		st, ok := old.stream(sp.Stream)
		if !ok || st.Target != sp.Target || old.status.Mode != l.Mode || l.Mode == connectors.ModeUpsert && !slices.Equal(st.Key, sp.Key) {
			e := destError("continue load "+l.ID.Name, connectors.KindConfig, messages.CodeDocConflict, errors.New("the load was begun with another target, key or write_mode"))
			e.Place.Stream = sp.Stream
			e.Next = "Set back what was changed, or start over with `--full-refresh`."
			return e
		}
	}
	stored, err := s.prepareOne(ctx, tx, l)
	if err != nil {
		return err
	}
	for i, st := range stored {
		if was, _ := old.stream(st.Stream); was.OID == st.OID {
			continue
		}
		if r, err := s.committed(ctx, tx.Conn(), old, st.Stream); err != nil {
			return err
		} else if r != nil {
			was, _ := old.stream(st.Stream)
			return lostTarget(st.Stream, *r, qname{s.d.cfg.Schema, l.Streams[i].Target}.String(), was.OID, st.OID)
		}
	}
	streams, err := json.Marshal(stored)
	if err != nil {
		return err
	}
	changed := l.Status()
	changed.Parts = old.status.Parts
	status, err := json.Marshal(changed)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, "UPDATE _rapidbyte.load SET status = $3::text::json, streams = $4::text::json, updated_at = now() WHERE pipeline_id = $1 AND name = $2",
		s.id, l.ID.Name, string(status), string(streams))
	return err
}

func (s *Session) beginning(l connectors.Load) *beginning {
	b := &beginning{load: l}
	for _, sp := range l.Streams {
		b.goals = append(b.goals, s.d.goal(s.pipeline, l.Mode, sp, l.ID.Number))
	}
	return b
}

// prepareOne makes the targets or the staging of l.
func (s *Session) prepareOne(ctx context.Context, tx pgx.Tx, l connectors.Load) ([]storedStream, error) {
	stored, err := s.prepare(ctx, tx, []*beginning{s.beginning(l)}, true)
	if err != nil {
		return nil, err
	}
	return stored[0], nil
}

// prepare makes the targets or the staging of loads, one behind the other: the statements of
// one may be what the next one needs. The catalogue is read for all of them, before and
// behind. alone says that nothing else is begun in this transaction.
func (s *Session) prepare(ctx context.Context, tx pgx.Tx, loads []*beginning, alone bool) ([][]storedStream, error) {
	book, err := bookOID(ctx, tx.Conn())
	if err != nil {
		return nil, err
	}
	if err := lockShapes(ctx, tx); err != nil {
		return nil, err
	}
	var goals []goal
	for _, b := range loads {
		goals = append(goals, b.goals...)
	}
	shelf, err := readShelf(ctx, tx.Conn(), goals)
	if err != nil {
		return nil, err
	}
	for _, b := range loads {
		for _, g := range b.goals {
			g.shelf = shelf
			p, err := g.planIn(ctx, tx)
			if err != nil {
				return nil, err
			}
			if p.locks && !alone {
				return nil, &apart{b.load.ID.Name}
			}
			if err := g.carryOut(ctx, tx, p); err != nil {
				return nil, err
			}
			b.stages = append(b.stages, p.stage)
		}
	}
	if err := layAll(ctx, tx.Conn(), loads); err != nil {
		return nil, err
	}
	out := make([][]storedStream, len(loads))
	for i, b := range loads {
		for j, g := range b.goals {
			schema, err := encodeSchema(g.stream.Schema)
			if err != nil {
				return nil, err
			}
			out[i] = append(out[i], storedStream{
				Stream: g.stream.Stream, Target: g.stream.Target, Key: g.stream.Key, Stage: b.stages[j], OID: b.lays[j].oid, Book: book, Schema: schema,
			})
		}
	}
	return out, nil
}

// layAll reads the layouts of loads that are prepared. Their marks come first: of a table
// that is changed in between, the older one makes the writers read it again.
func layAll(ctx context.Context, conn *pgx.Conn, loads []*beginning) error {
	var names []qname
	for _, b := range loads {
		for j, g := range b.goals {
			names = append(names, g.into(b.stages[j]))
		}
	}
	marks, err := readMarks(ctx, conn, names)
	if err != nil {
		return err
	}
	found, err := readRelations(ctx, conn, names)
	if err != nil {
		return err
	}
	for _, b := range loads {
		for j, g := range b.goals {
			into := g.into(b.stages[j])
			lay, err := g.layoutOf(into, found[into])
			if err != nil {
				return err
			}
			b.lays, b.marks = append(b.lays, lay), append(b.marks, marks[into])
		}
	}
	return nil
}

// record writes the loads and a receipt at commit 0 for each part.
func (s *Session) record(ctx context.Context, tx pgx.Tx, loads []*beginning, stored [][]storedStream) error {
	var names, statuses, streams []string
	var numbers []int64
	var of, parts, plans, identities []string
	var partNumbers []int64
	for i, b := range loads {
		text, err := json.Marshal(stored[i])
		if err != nil {
			return err
		}
		status, err := json.Marshal(b.load.Status())
		if err != nil {
			return err
		}
		number := int64(b.load.ID.Number) //nolint:gosec // counts passes
		names, numbers = append(names, b.load.ID.Name), append(numbers, number)
		statuses, streams = append(statuses, string(status)), append(streams, string(text))
		for _, p := range b.load.Parts {
			planned, err := json.Marshal(p)
			if err != nil {
				return err
			}
			of, partNumbers = append(of, b.load.ID.Name), append(partNumbers, number)
			parts, plans, identities = append(parts, string(p.ID)), append(plans, string(planned)), append(identities, b.load.Identity)
		}
	}
	var batch pgx.Batch
	batch.Queue(`INSERT INTO _rapidbyte.load (pipeline_id, name, load_no, finished, status, streams)
		SELECT $1, l.name, l.number, false, l.status::json, l.streams::json FROM unnest($2::text[], $3::bigint[], $4::text[], $5::text[]) AS l(name, number, status, streams)`,
		s.id, names, numbers, statuses, streams)
	batch.Queue("DELETE FROM _rapidbyte.receipt WHERE pipeline_id = $1 AND part = ANY($2)", s.id, parts)
	batch.Queue("DELETE FROM _rapidbyte.receipt WHERE pipeline_id = $1 AND load = ANY($2)", s.id, names)
	batch.Queue(`INSERT INTO _rapidbyte.receipt (pipeline_id, part, load, load_no, commit_no, epoch, attempt, position, final, plan, source_identity,
			rows_read, rows_arrived, rows_applied, rows_rejected)
		SELECT $1, p.name, p.load, p.number, 0, 0, 0, '{}', false, p.plan::json, p.identity, 0, 0, 0, 0
		FROM unnest($2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[]) AS p(name, load, number, plan, identity)`,
		s.id, parts, of, partNumbers, plans, identities)
	return tx.SendBatch(ctx, &batch).Close()
}

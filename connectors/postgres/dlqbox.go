package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/jackc/pgx/v5"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// deadID names one dead letter; it is the rest of the key of _rapidbyte.dlq, so it
// needs no column of its own.
const deadID = `encode(convert_to(part, 'UTF8'), 'hex') || '-' || load_no || '-' || commit_no || '-' || ordinal`

// deadWhere selects by the parameters of deadArgs.
const deadWhere = ` FROM _rapidbyte.dlq WHERE pipeline_id = $1 AND ($2 = '' OR stream = $2) AND ($3 = '' OR reason_code = $3)
	AND (cardinality($4::text[]) = 0 OR substr(md5(` + deadID + `), 1, 12) = ANY ($4))`

const deadOrder = " ORDER BY created_at, part, load_no, commit_no, ordinal"

func deadArgs(q connectors.DeadLetterQuery) []any {
	ids := q.IDs
	if ids == nil {
		ids = []string{}
	}
	return []any{pipelineUUID(q.Pipeline), string(q.Stream), q.Reason, ids}
}

// withBook runs do in one transaction; there are no dead letters where there is no
// bookkeeping.
func (d *Destination) withBook(ctx context.Context, op string, do func(pgx.Tx) error) error {
	conn, err := d.dial.named("rb:dlq").control(ctx)
	if err != nil {
		return d.classify(ctx, op, err)
	}
	defer closeConn(conn)
	err = d.dial.tend(conn, func() error {
		has, err := hasBook(ctx, conn)
		if err == nil && has {
			err = pgx.BeginFunc(ctx, conn, do)
		}
		return err
	})
	return d.classify(ctx, op, err)
}

// DeadLetters returns what q selects, oldest first.
func (d *Destination) DeadLetters(ctx context.Context, q connectors.DeadLetterQuery) ([]connectors.DeadLetter, error) {
	var out []connectors.DeadLetter
	err := d.withBook(ctx, "read the dead letters", func(tx pgx.Tx) error {
		var err error
		out, err = readDead(ctx, tx, q, "")
		return err
	})
	return out, err
}

func readDead(ctx context.Context, tx pgx.Tx, q connectors.DeadLetterQuery, lock string) ([]connectors.DeadLetter, error) {
	sql := `SELECT substr(md5(` + deadID + `), 1, 12), stream, part, load_no, pos, ordinal, reason_code, sqlstate, message,
		to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), payload` + deadWhere + deadOrder
	if q.Limit > 0 {
		sql += " LIMIT " + strconv.FormatInt(q.Limit, 10)
	}
	rows, err := tx.Query(ctx, sql+lock, deadArgs(q)...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (connectors.DeadLetter, error) {
		var l connectors.DeadLetter
		var load int64
		err := row.Scan(&l.ID, &l.Stream, &l.Part, &load, &l.Position, &l.Ordinal, &l.Reason, &l.SQLState, &l.Message, &l.Created, &l.Row)
		l.Load = uint64(load) //nolint:gosec // never negative
		return l, err
	})
}

// Purge removes what q selects.
func (d *Destination) Purge(ctx context.Context, q connectors.DeadLetterQuery) (int64, error) {
	var n int64
	err := d.withBook(ctx, "purge dead letters", func(tx pgx.Tx) error {
		sql := "DELETE FROM _rapidbyte.dlq WHERE ctid = ANY (ARRAY (SELECT ctid" + deadWhere + deadOrder
		if q.Limit > 0 {
			sql += " LIMIT " + strconv.FormatInt(q.Limit, 10)
		}
		tag, err := tx.Exec(ctx, sql+"))", deadArgs(q)...)
		n = tag.RowsAffected()
		return err
	})
	return n, err
}

// Replay writes what q selects into its targets, one row and the removal of its dead
// letter per transaction.
func (d *Destination) Replay(ctx context.Context, q connectors.DeadLetterQuery) (connectors.Replayed, error) {
	var out connectors.Replayed
	letters, err := d.DeadLetters(ctx, q)
	if err != nil || len(letters) == 0 {
		return out, err
	}
	s := newSession(d, connectors.SessionRequest{Pipeline: q.Pipeline})
	s.dial = d.dial.named("rb:replay")
	defer func() { _ = s.Close(context.WithoutCancel(ctx)) }()
	var loads []storedLoad
	if err := s.control(ctx, func(conn *pgx.Conn) (err error) {
		loads, err = readLoads(ctx, conn, s.id)
		return err
	}); err != nil {
		return out, d.classify(ctx, "read the loads", err)
	}
	for _, l := range letters {
		err := s.replay(ctx, l, loads)
		switch {
		case err == nil:
			out.Written++
		case connectors.KindOf(err) == connectors.KindData:
			out.Left++
			if err := s.note(ctx, q, l, err); err != nil {
				return out, err
			}
		default:
			return out, err
		}
	}
	return out, nil
}

// note keeps the newest reason of a dead letter that failed again.
func (s *Session) note(ctx context.Context, q connectors.DeadLetterQuery, l connectors.DeadLetter, cause error) error {
	f := connectors.FailureOf(cause, messages.Place{})
	q.IDs = []string{l.ID}
	return s.d.withBook(ctx, "note why a dead letter stays", func(tx pgx.Tx) error {
		args := append(deadArgs(q), string(f.Code), stateOf(cause), f.Why)
		_, err := tx.Exec(ctx, "UPDATE _rapidbyte.dlq SET reason_code = $5, sqlstate = $6, message = $7 WHERE ctid = (SELECT ctid"+deadWhere+")", args...)
		return err
	})
}

// replay writes one dead letter and removes it.
func (s *Session) replay(ctx context.Context, l connectors.DeadLetter, loads []storedLoad) error {
	op := "replay dead letter " + l.ID
	rec, err := decodeRow(l.Row)
	if err != nil {
		return destError(op, connectors.KindData, messages.CodeRowBroken, err)
	}
	defer rec.Release()
	var stored *storedStream
	var mode connectors.WriteMode
	for _, load := range loads {
		if st, ok := load.stream(l.Stream); ok {
			stored, mode = &st, load.status.Mode
		}
	}
	if stored == nil {
		return destError(op, connectors.KindConfig, messages.CodeStreamUnknown, fmt.Errorf("no load has the stream %q", l.Stream))
	}
	if mode == connectors.ModeReplace {
		mode = connectors.ModeAppend // into the table that is visible
	}
	g := s.d.goal(s.pipeline, mode, connectors.StreamPlan{Stream: l.Stream, Schema: rec.Schema(), Key: stored.Key, Target: stored.Target}, l.Load)
	g.policy.OnDataError = connectors.DataFail
	w := &Writer{session: s, part: connectors.Part{ID: l.Part}}
	var lay *layout
	if err := s.control(ctx, func(conn *pgx.Conn) (err error) {
		lay, err = g.layout(ctx, conn, "")
		return err
	}); err != nil {
		return s.d.classify(ctx, op, err)
	}
	k, err := newSink(w, g, lay)
	if err != nil {
		return err
	}
	w.sinks = []*sink{k}
	if err := w.open(ctx); err != nil {
		return s.d.classify(ctx, op, err)
	}
	defer func() { _ = w.Close(context.WithoutCancel(ctx)) }()
	return w.guard(ctx, op, func() error { return w.replayRow(ctx, k, rec, l.ID) })
}

func (w *Writer) replayRow(ctx context.Context, k *sink, rec arrow.RecordBatch, id string) error {
	if err := w.transact(ctx); err != nil {
		return err
	}
	if err := k.write(ctx, rec, 0); err != nil {
		return err
	}
	if err := k.finish(ctx); err != nil {
		return err
	}
	results, err := w.conn.Exec(ctx, fmt.Sprintf("DELETE FROM _rapidbyte.dlq WHERE pipeline_id = '%s' AND substr(md5(%s), 1, 12) = '%s'", w.session.id, deadID, strings.ReplaceAll(id, "'", "")))
	if err != nil {
		return err
	}
	if results[0].Tag != "DELETE 1" {
		return destError("replay dead letter "+id, connectors.KindConfig, messages.CodeDestBusy, errors.New("somebody else has removed it"))
	}
	if _, err := w.conn.Exec(ctx, "COMMIT"); err != nil {
		return err
	}
	w.inTx = false
	return nil
}

// decodeRow reads what rowPayload wrote; arrow panics on damaged bytes.
func decodeRow(raw []byte) (rec arrow.RecordBatch, err error) {
	defer func() {
		if p := recover(); p != nil {
			rec, err = nil, fmt.Errorf("the kept row is damaged: %v", p)
		}
	}()
	r, err := ipc.NewReader(bytes.NewReader(raw), ipc.WithAllocator(memory.DefaultAllocator))
	if err != nil {
		return nil, fmt.Errorf("the kept row is damaged: %w", err)
	}
	defer r.Release()
	if !r.Next() || r.RecordBatch().NumRows() != 1 {
		return nil, errors.Join(errors.New("the kept row is damaged"), r.Err())
	}
	rec = r.RecordBatch()
	rec.Retain()
	return rec, nil
}

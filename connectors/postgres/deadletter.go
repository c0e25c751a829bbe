package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/codec"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/failpoint"
	"rapidbyte.io/node/runtime/mutant"
)

// rejected is a row on its way to the dead letters.
type rejected struct {
	stream   messages.StreamID
	ordinal  int64 // since the last commit, from 1
	code     messages.Code
	sqlstate string
	message  string
	payload  []byte // Arrow IPC of the one row
}

// tally counts what arrived and was set aside in the open loads, against the limits.
type tally struct {
	policy connectors.WritePolicy

	mu    sync.Mutex
	parts map[messages.PartID]tallied
	sum   messages.Counts
}

// tallied is what a part has committed.
type tallied struct {
	load string
	rows messages.Counts
}

// set counts a part as its receipt does.
func (t *tally) set(r messages.Receipt) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.put(r.Part, tallied{r.Load, r.Rows})
}

func (t *tally) put(p messages.PartID, now tallied) {
	was := t.parts[p]
	t.sum.Arrived += now.rows.Arrived - was.rows.Arrived
	t.sum.Rejected += now.rows.Rejected - was.rows.Rejected
	if t.parts == nil {
		t.parts = map[messages.PartID]tallied{}
	}
	t.parts[p] = now
}

// forget takes back what a load has counted.
func (t *tally) forget(load string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for p, was := range t.parts {
		if was.load == load {
			t.put(p, tallied{})
			delete(t.parts, p)
		}
	}
}

// within reports whether n more rows set aside stay below the limit of rows: checked
// early, so that a table of bad rows does not take for ever.
func (t *tally) within(n int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.limit(t.sum.Rejected+n, 0)
}

// reserve counts a commit that is about to change was into next, unless it would exceed
// a limit.
func (t *tally) reserve(was, next messages.Receipt) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := next.Rows.Rejected - was.Rows.Rejected; n > 0 {
		if err := t.limit(t.sum.Rejected+n, t.sum.Arrived+next.Rows.Arrived-was.Rows.Arrived); err != nil {
			return err
		}
	}
	t.put(next.Part, tallied{next.Load, next.Rows})
	return nil
}

// limit judges rejected of arrived rows; the ratio only where arrived is known.
func (t *tally) limit(rejected, arrived int64) error {
	var err error
	switch p := t.policy; {
	case p.DeadRowsMax != nil && rejected > *p.DeadRowsMax:
		err = fmt.Errorf("%d rows were set aside, max_dlq_rows is %d", rejected, *p.DeadRowsMax)
	case p.DeadRatioMax != nil && arrived > 0 && float64(rejected) > *p.DeadRatioMax*float64(arrived):
		err = fmt.Errorf("%d of %d rows were set aside, max_dlq_ratio is %g", rejected, arrived, *p.DeadRatioMax)
	default:
		return nil
	}
	return destError("set rows aside", connectors.KindData, messages.CodeRowsTooMany, err)
}

// reject sets a row aside, inside the data's transaction (I7).
func (w *Writer) reject(ctx context.Context, r rejected) error {
	w.rows.Rejected++
	if err := w.session.dead.within(w.rows.Rejected); err != nil {
		e, _ := errors.AsType[*connectors.Error](err)
		e.Place.Stream, e.Place.Part = r.stream, w.part.ID
		e.Err = fmt.Errorf("%w; the last one: %s", e.Err, r.message)
		return e
	}
	if w.session.d.policy.OnDataError != connectors.DataDLQ {
		return nil
	}
	position, err := json.Marshal(w.receipt.Position)
	if err != nil {
		return err
	}
	var b parameters
	b.bytes(w.session.id[:])
	b.text(string(r.stream), string(w.part.ID), w.load.status.ID.Name)
	b.int8(int64(w.receipt.Version.Load), int64(w.receipt.Version.Commit)+1, r.ordinal) //nolint:gosec // counters
	b.text(string(position), string(r.code), r.sqlstate, r.message)
	b.bytes(r.payload)
	b.int8(int64(w.token.Epoch)) //nolint:gosec // a counter
	conn := w.conn
	if mutant.On(mutant.LettersOutside) {
		if conn, err = w.session.take(ctx); err != nil {
			return err
		}
		defer w.session.give(conn)
	}
	_, err = conn.Insert(ctx, `INSERT INTO _rapidbyte.dlq (pipeline_id, stream, part, load, load_no, commit_no, ordinal, pos, reason_code, sqlstate, message, payload, epoch)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`,
		[]uint32{
			pgtype.UUIDOID, pgtype.TextOID, pgtype.TextOID, pgtype.TextOID, pgtype.Int8OID, pgtype.Int8OID, pgtype.Int8OID,
			pgtype.TextOID, pgtype.TextOID, pgtype.TextOID, pgtype.TextOID, pgtype.ByteaOID, pgtype.Int8OID,
		}, 13, b)
	if err != nil {
		return err
	}
	return failpoint.Hit(failpoint.DeadLettered)
}

// parameters are binary parameters in the form of the protocol.
type parameters []byte

func (p *parameters) bytes(v []byte) {
	*p = append(binary.BigEndian.AppendUint32(*p, uint32(len(v))), v...) //nolint:gosec // below 1 GiB
}

func (p *parameters) text(values ...string) {
	for _, v := range values {
		p.bytes([]byte(v))
	}
}

func (p *parameters) int8(values ...int64) {
	for _, v := range values {
		p.bytes(binary.BigEndian.AppendUint64(nil, uint64(v))) //nolint:gosec // its bits
	}
}

// rejectAll sets rows aside that a transform rejected.
func (w *Writer) rejectAll(ctx context.Context, m messages.Rejected) error {
	rows, ok := m.Rows.(messages.ArrowRows)
	if !ok {
		return destError("set rows aside", connectors.KindInternal, messages.CodeInternal, fmt.Errorf("rows are %T", m.Rows))
	}
	if p := w.session.d.policy.OnDataError; p != connectors.DataSkip && p != connectors.DataDLQ {
		e := destError("write "+string(m.Stream), connectors.KindData, messages.CodeRowRefused, fmt.Errorf("a transform rejected %d rows: %s", m.Rows.Len(), m.Reason))
		e.Place.Stream, e.Place.Part = m.Stream, w.part.ID
		return e
	}
	if err := w.transact(ctx); err != nil {
		return err
	}
	for i := range m.Rows.Len() {
		payload, err := rowPayload(rows.Record, i)
		if err != nil {
			return err
		}
		w.rows.Arrived++
		if err := w.reject(ctx, rejected{
			stream: m.Stream, ordinal: w.rows.Arrived, code: messages.Code(m.Reason), message: "a transform rejected the row", payload: payload,
		}); err != nil {
			return err
		}
	}
	return nil
}

// deadRow describes row i of a batch whose first row is row at since the last commit.
func (k *sink) deadRow(rec arrow.RecordBatch, i, at int64, cause error) rejected {
	r := k.describe(cause)
	r.ordinal = at + i + 1
	if payload, err := rowPayload(rec, i); err == nil {
		r.payload = payload
	} else {
		r.message += "; the row cannot be kept: " + err.Error()
	}
	return r
}

// deadStaged describes the row of the temporary table that a condition selects.
func (k *sink) deadStaged(ctx context.Context, where string, staged int64, cause error) (rejected, error) {
	r := k.describe(cause)
	i := k.runOf(staged)
	if i < 0 {
		return r, fmt.Errorf("staged row %d belongs to no batch", staged)
	}
	r.ordinal = k.runs[i].row + staged - k.runs[i].staged + 1
	rec, err := k.readStaged(ctx, where)
	if err != nil {
		return r, err
	}
	defer rec.Release()
	r.payload, err = rowPayload(rec, 0)
	return r, err
}

// readStaged reads one staged row back, in the types of the table.
func (k *sink) readStaged(ctx context.Context, where string) (arrow.RecordBatch, error) {
	var fields []arrow.Field
	var types []*codec.Type
	var texts []bool
	var names []string
	for i, t := range k.enc.Wire() {
		c := k.lay.columns[i]
		if c.meta != "" {
			continue
		}
		own := c.typ
		if k.enc.Casts()[i] {
			own = t
		}
		f, asText := codec.Field(codec.Column{Name: c.name, Type: own}, false)
		name := fmt.Sprintf("c%d", i)
		if asText {
			name += "::text"
		}
		fields, types, texts, names = append(fields, f), append(types, own), append(texts, asText), append(names, name)
	}
	dec, err := codec.NewDecoder(arrow.NewSchema(fields, nil), types, texts, memory.DefaultAllocator, connectors.Limits{BatchRows: 1, BatchBytes: 1 << 30, RowBytes: 1 << 30})
	if err != nil {
		return nil, err
	}
	defer dec.Release()
	if _, err := k.w.conn.CopyOut(ctx, "COPY (SELECT "+strings.Join(names, ", ")+" FROM "+k.into()+where+") TO STDOUT (FORMAT binary)", dec.Append); err != nil {
		return nil, err
	}
	if dec.Rows() != 1 {
		return nil, fmt.Errorf("%d staged rows, want 1", dec.Rows())
	}
	return dec.Take(), nil
}

// describe turns the error of a row into the texts of its dead letter.
func (k *sink) describe(cause error) rejected {
	f := connectors.FailureOf(cause, messages.Place{Stream: k.g.stream.Stream, Part: k.w.part.ID, Stage: connectors.StageDestination})
	r := rejected{stream: k.g.stream.Stream, code: f.Code, sqlstate: stateOf(cause), message: f.Why}
	if e, ok := errors.AsType[*pgconn.PgError](cause); ok && r.message == "" {
		r.message = e.Message
	}
	if f.Where.Field != "" {
		r.message = "column " + f.Where.Field + ": " + r.message
	}
	return r
}

// rowPayload encodes row i of rec as an Arrow IPC stream.
func rowPayload(rec arrow.RecordBatch, i int64) ([]byte, error) {
	one := rec.NewSlice(i, i+1)
	defer one.Release()
	var b bytes.Buffer
	w := ipc.NewWriter(&b, ipc.WithSchema(one.Schema()))
	if err := w.Write(one); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	err := w.Close()
	return b.Bytes(), err
}

package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/jackc/pgx/v5/pgconn"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/codec"
	"rapidbyte.io/node/connectors/postgres/internal/query"
	"rapidbyte.io/node/connectors/postgres/internal/wire"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/failpoint"
)

// sink writes the rows of one stream. Rows go straight into the table where a plain COPY
// or INSERT does it; else they are staged in a temporary table, and one statement per
// commit takes them on.
type sink struct {
	w      *Writer
	g      goal
	lay    *layout
	enc    *codec.Encoder
	stager string // name of the temporary table; empty: rows go straight into the table

	raw    string // format of rows that are taken as they are; empty: none
	whyNot string // of raw
	types  []byte // of the table's columns, as they were found to be right; nil: not looked at yet

	flush  flushPolicy
	buf    []byte // Headroom, then rows that are not sent yet
	copy   *wire.CopyIn
	first  int64 // row of the part, from 0, at which the open COPY began
	sent   int64 // rows in buf and in the open COPY
	staged int64 // rows in the temporary table
	runs   []run // of staged rows, by place: which rows they were
}

const (
	notNullViolation = "23502"
	uniqueViolation  = "23505"
	binaryFormat     = "22P03"
	shortValue       = "08P01" // also of poolers
	brokenText       = "22021"
)

const nextAltered = "If the table was altered while it was loaded, run again. Otherwise please report it."

// run is a stretch of rows that were staged in order.
type run struct {
	staged int64 // how many rows of the temporary table are before the first
	row    int64 // since the last commit, from 0
	number int64 // of the first in the temporary table, from 1; 0: not read yet
}

func newSink(w *Writer, g goal, lay *layout) (*sink, error) {
	k := &sink{w: w, g: g, lay: lay}
	if err := k.encoder(time.Time{}); err != nil {
		return nil, err
	}
	casts := false
	for _, c := range k.enc.Casts() {
		casts = casts || c
	}
	if g.mode == connectors.ModeUpsert || casts {
		k.stager = fmt.Sprintf("_rb_stage_%d", len(w.sinks))
	}
	if raw := w.part.Raw; raw != "" {
		if k.whyNot = g.refusesRaw(raw, lay.rawColumns(g), w.version); k.whyNot == "" {
			k.raw = raw
		}
	}
	k.flush = flushPolicy{pin: g.policy.FlushBytes, config: int64(g.cfg.CopyFlushBytes)}
	return k, nil
}

// encoder makes the encoder; metadata columns are the same for a whole commit.
func (k *sink) encoder(now time.Time) error {
	targets := make([]codec.Target, len(k.lay.columns))
	for i, c := range k.lay.columns {
		targets[i] = codec.Target{Field: c.field, Type: c.typ}
		switch c.meta {
		case connectors.ColumnRun:
			targets[i].Constant = append(binary.BigEndian.AppendUint32(nil, uint32(len(k.w.session.run))), k.w.session.run...) //nolint:gosec // short
		case connectors.ColumnLoadedAt:
			const epoch = 946_684_800 // seconds from 1970 to 2000
			us := now.Add(-epoch * time.Second).UnixMicro()
			targets[i].Constant = binary.BigEndian.AppendUint64([]byte{0, 0, 0, 8}, uint64(us)) //nolint:gosec // its bits
		}
	}
	enc, err := codec.NewEncoder(k.g.stream.Schema, targets)
	if err != nil {
		return k.place(destError("write to "+k.g.stream.Target, connectors.KindSchema, messages.CodeSchemaType, err))
	}
	if k.g.cfg.LoadMethod == LoadInsert {
		enc.OmitFieldCount() // parameters have the form of a row without its count
	}
	k.enc = enc
	return nil
}

func (k *sink) place(e *connectors.Error) *connectors.Error {
	e.Place.Stream, e.Place.Part = k.g.stream.Stream, k.w.part.ID
	return e
}

// start prepares the sink for a new transaction.
func (k *sink) start(now time.Time) error {
	k.buf, k.copy, k.sent, k.staged, k.runs = k.buf[:0], nil, 0, 0, k.runs[:0]
	if k.g.policy.Metadata {
		return k.encoder(now)
	}
	return nil
}

// target finds the sink of a batch.
func (w *Writer) target(stream messages.StreamID, rows messages.Rows) (*sink, error) {
	i := slices.IndexFunc(w.sinks, func(k *sink) bool { return k.g.stream.Stream == stream })
	if i < 0 {
		return nil, destError("write", connectors.KindInternal, messages.CodeInternal, fmt.Errorf("the part has no stream %q", stream))
	}
	k := w.sinks[i]
	switch r := rows.(type) {
	case messages.RawRows:
		if r.Format != k.raw {
			return nil, k.place(destError("write", connectors.KindInternal, messages.CodeInternal, fmt.Errorf("rows in %q were not agreed on, but %q", r.Format, k.raw)))
		}
	case messages.ArrowRows:
		if !r.Record.Schema().Equal(k.g.stream.Schema) {
			return nil, k.place(destError("write", connectors.KindSchema, messages.CodeSchemaType, errors.New("the batch has other columns than planned")))
		}
	}
	return k, nil
}

// put writes rows; at is the first of them since the last commit, from 0.
func (k *sink) put(ctx context.Context, rows messages.Rows, at int64) error {
	switch r := rows.(type) {
	case messages.RawRows:
		return k.writeRaw(ctx, r, at)
	case messages.ArrowRows:
		return k.write(ctx, r.Record, at)
	}
	return nil
}

// into is the table that COPY and INSERT write to.
func (k *sink) into() string {
	if k.stager != "" {
		return query.Ident(k.stager)
	}
	return query.Qualified(k.lay.schema, k.lay.table)
}

// columns lists what COPY and INSERT write, in order.
func (k *sink) columns() string {
	names := make([]string, len(k.lay.columns))
	for i, c := range k.lay.columns {
		names[i] = query.Ident(c.name)
		if k.stager != "" {
			names[i] = fmt.Sprintf("c%d", i)
		}
	}
	return strings.Join(names, ", ")
}

// createTemp makes the temporary table; it is emptied by each COMMIT. Its column n
// numbers the rows as they arrive: their places do not, a short row may go onto an
// earlier page. No key is NULL: such a row equals none, and would be there again each
// time that it is read.
func (k *sink) createTemp() string {
	if k.stager == "" {
		return ""
	}
	columns := []string{"n bigint GENERATED ALWAYS AS IDENTITY (CACHE 1000)"}
	for i, t := range k.enc.Wire() {
		c := k.lay.columns[i]
		column := fmt.Sprintf("c%d %s", i, t.SQL)
		if c.collation != "" && !k.enc.Casts()[i] {
			column += " COLLATE " + c.collation
		}
		if slices.Contains(k.lay.key, c.name) {
			column += " NOT NULL"
		}
		columns = append(columns, column)
	}
	return fmt.Sprintf("DROP TABLE IF EXISTS pg_temp.%[1]s; CREATE TEMPORARY TABLE %[1]s (%[2]s) ON COMMIT DELETE ROWS", query.Ident(k.stager), strings.Join(columns, ", "))
}

// write takes a batch. at is its first row since the last commit, from 0.
func (k *sink) write(ctx context.Context, rec arrow.RecordBatch, at int64) error {
	if k.lenient() || k.g.cfg.LoadMethod == LoadInsert {
		return k.writeGuarded(ctx, rec, at)
	}
	if err := k.begin(ctx, at); err != nil {
		return err
	}
	for from, n := int64(0), rec.NumRows(); from < n; {
		if len(k.buf) == 0 {
			k.buf = k.reset(k.copy == nil)
		}
		before := len(k.buf)
		out, next, err := k.enc.Encode(k.buf, rec, from, n, int(k.flush.bytes())+wire.Headroom)
		k.buf = out
		k.sent += next - from
		k.flush.saw(next-from, int64(len(out)-before))
		if err != nil {
			return k.valueError(err, k.w.receipt.Rows.Arrived+at+next)
		}
		from = next
		if int64(len(k.buf)) >= k.flush.bytes() {
			if err := k.send(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// begin prepares for rows that stand behind each other in one COPY.
func (k *sink) begin(ctx context.Context, at int64) error {
	if k.sent > 0 {
		return nil
	}
	k.first = k.w.receipt.Rows.Arrived + at
	return k.w.closeOthers(ctx, k)
}

// reset returns the buffer with room for the frame, and the header of a new COPY.
func (k *sink) reset(header bool) []byte {
	var room [wire.Headroom]byte
	k.buf = append(k.buf[:0], room[:]...)
	if header {
		k.buf = codec.AppendHeader(k.buf)
	}
	return k.buf
}

// send sends the buffer, and begins the COPY with the first one.
func (k *sink) send(ctx context.Context) error {
	if len(k.buf) == 0 {
		return nil
	}
	if k.copy == nil {
		in, err := k.w.conn.CopyIn(ctx, "COPY "+k.into()+" ("+k.columns()+") FROM STDIN (FORMAT binary)")
		if err != nil {
			return k.rowError(err)
		}
		k.copy = in
	}
	err := k.sendMessage(ctx, k.buf)
	k.buf = k.buf[:0]
	return err
}

// sendMessage sends rows behind their headroom into the open COPY.
func (k *sink) sendMessage(ctx context.Context, b []byte) error {
	if err := k.copy.Send(ctx, b); err != nil {
		return k.rowError(err)
	}
	return failpoint.Hit(failpoint.DestCopyMid)
}

// closeCopy ends the open COPY, if there is one, and counts what arrived: a trigger can
// make a row vanish without an error.
func (k *sink) closeCopy(ctx context.Context) error {
	if k.copy == nil && k.sent == 0 {
		return nil
	}
	k.buf = codec.AppendTrailer(k.buf0())
	if err := k.send(ctx); err != nil {
		return err
	}
	n, err := k.copy.Done(ctx)
	if err != nil {
		return k.rowError(err)
	}
	sent := k.sent
	k.copy, k.sent = nil, 0
	return k.stage(sent, n)
}

// stage counts rows that COPY or INSERT has written, also those of a temporary table.
func (k *sink) stage(sent, n int64) error {
	if err := k.landed(sent, n); err != nil {
		return err
	}
	if k.stager != "" {
		k.staged += n
	}
	return nil
}

// buf0 is the buffer, begun if it is empty.
func (k *sink) buf0() []byte {
	if len(k.buf) == 0 {
		return k.reset(k.copy == nil)
	}
	return k.buf
}

// landed compares what was sent with what the server counted.
func (k *sink) landed(sent, n int64) error {
	if n != sent {
		return k.place(destError("write to "+k.g.stream.Target, connectors.KindConfig, messages.CodeRowsSwallowed,
			fmt.Errorf("%d rows were sent to %s, %d arrived", sent, k.lay.table, n)))
	}
	return nil
}

// closeOthers ends the COPY of another stream: a connection carries one at a time.
func (w *Writer) closeOthers(ctx context.Context, but *sink) error {
	for _, k := range w.sinks {
		if k == but {
			continue
		}
		if err := k.closeCopy(ctx); err != nil {
			return err
		}
	}
	return nil
}

// valueError names the row that Encode could not write. A column that counts finer than
// its target is the wrong column, whatever the row: no policy sets that aside.
func (k *sink) valueError(err error, row int64) error {
	e := k.place(destError("write to "+k.g.stream.Target, connectors.KindData, messages.CodeValueRange, err))
	e.Place.Row = row + 1
	if v, ok := errors.AsType[*codec.ValueError](err); ok {
		e.Place.Field = v.Column
		if v.Finer {
			e.Kind, e.Code = connectors.KindSchema, messages.CodeSchemaType
		}
	}
	return e
}

// rowError places an error of the server: the line of a COPY is a row of the part.
func (k *sink) rowError(err error) error {
	if err == nil || stateOf(err) == "" || stateOf(err) == lockNotAvailable {
		return err
	}
	out := k.w.session.d.classify(context.Background(), "write to "+k.g.stream.Target, err)
	e, ok := errors.AsType[*connectors.Error](out)
	if !ok {
		return out
	}
	if e.Place.Row > 0 {
		e.Place.Row += k.first
	}
	k.unstage(e)
	if s := stateOf(err); s == binaryFormat || s == shortValue && e.Kind == connectors.KindInternal { // what is sent was right when the writer was opened
		e.Kind, e.Code, e.Next = connectors.KindSchema, messages.CodeSchemaType, nextAltered
	}
	if k.raw != "" && stateOf(err) == brokenText { // a decoder would have found it
		e.Code, e.Next = messages.CodeRowBroken, mendText
	}
	if stateOf(err) == uniqueViolation && k.g.mode == connectors.ModeAppend {
		e.Next = "Use write_mode upsert or replace if the rows are to be loaded again, drop the key of the table if copies are wanted, or set `on_data_error: dlq`."
	}
	return k.place(e)
}

// unstage names the table's column where the server names one of the temporary table.
func (k *sink) unstage(e *connectors.Error) {
	digits, staged := strings.CutPrefix(e.Place.Field, "c")
	i, err := strconv.Atoi(digits)
	pg, ok := errors.AsType[*pgconn.PgError](e.Err)
	if !staged || err != nil || i >= len(k.lay.columns) || !ok || k.stager == "" || !strings.Contains(pg.TableName+pg.Where, k.stager) {
		return
	}
	e.Place.Field = k.lay.columns[i].name
	if pg.Code == notNullViolation {
		e.Err = &refusal{err: pg, text: fmt.Sprintf("the key column %s is NULL", e.Place.Field)}
	}
}

// finish brings everything of this commit into the table.
func (k *sink) finish(ctx context.Context) error {
	if err := k.closeCopy(ctx); err != nil {
		return err
	}
	if k.stager == "" || k.staged == 0 {
		return nil
	}
	return k.take(ctx)
}

// explain says how the rows are written.
func (k *sink) explain() string {
	how := "COPY binary into " + k.lay.table
	if k.g.cfg.LoadMethod == LoadInsert {
		how = "multi-row INSERT into " + k.lay.table
	}
	switch {
	case k.g.mode == connectors.ModeUpsert:
		how += " by way of a temporary table and one merging statement per commit"
	case k.stager != "":
		how += " by way of a temporary table: a column has a type without a binary form"
	}
	if k.raw != "" {
		how += ", rows as they come"
	}
	k.flush.guess(k.g.stream.Schema)
	return fmt.Sprintf("stream %s: %s; flush %s", k.g.stream.Stream, how, k.flush.reason())
}

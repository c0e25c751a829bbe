package postgres

import (
	"context"
	"errors"

	"github.com/apache/arrow-go/v18/arrow"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/codec"
	"rapidbyte.io/node/connectors/postgres/internal/wire"
)

const (
	insertRowsMax   = 1000
	insertParamsMax = 65_535 // of the protocol
)

// lenient reports whether a bad row is set aside instead of ending the run.
func (k *sink) lenient() bool {
	return k.g.policy.OnDataError == connectors.DataSkip || k.g.policy.OnDataError == connectors.DataDLQ
}

// writeGuarded writes a batch as a statement of its own, and where bad rows are to be
// set aside under savepoints: a statement that fails is halved until what fails is one
// row, which costs O(log n) statements per bad row.
func (k *sink) writeGuarded(ctx context.Context, rec arrow.RecordBatch, at int64) error {
	if !k.lenient() {
		bad, err := k.load(ctx, rec, 0, rec.NumRows(), at)
		if err == nil && len(bad) > 0 {
			err = k.valueError(bad[0].err, k.w.receipt.Rows.Arrived+at+bad[0].row)
		}
		return err
	}
	return k.halve(ctx, rec, 0, rec.NumRows(), at)
}

// halve writes rows [from, to) of a batch, leaving bad ones out.
func (k *sink) halve(ctx context.Context, rec arrow.RecordBatch, from, to, at int64) error {
	var bad []badRow
	staged, runs := k.staged, len(k.runs)
	err := k.w.savepoint(ctx, func() (err error) {
		bad, err = k.load(ctx, rec, from, to, at)
		return err
	})
	if err != nil {
		k.staged, k.runs = staged, k.runs[:runs] // an earlier statement of several may have succeeded
	}
	switch {
	case err == nil:
		for _, b := range bad {
			cause := k.valueError(b.err, k.w.receipt.Rows.Arrived+at+b.row)
			if connectors.KindOf(cause) != connectors.KindData {
				return cause
			}
			if err := k.w.reject(ctx, k.deadRow(rec, b.row, at, cause)); err != nil {
				return err
			}
		}
		return nil
	case connectors.KindOf(err) != connectors.KindData:
		return err
	case to-from == 1:
		return k.w.reject(ctx, k.deadRow(rec, from, at, err))
	}
	middle := from + (to-from)/2
	if err := k.halve(ctx, rec, from, middle, at); err != nil {
		return err
	}
	return k.halve(ctx, rec, middle, to, at)
}

// savepoint runs do; what it did is undone when it fails. The error is classified.
func (w *Writer) savepoint(ctx context.Context, do func() error) error {
	if _, err := w.conn.Exec(ctx, "SAVEPOINT rb"); err != nil {
		return err
	}
	err := do()
	if err == nil {
		_, err = w.conn.Exec(ctx, "RELEASE rb")
		return err
	}
	if w.conn.Broken() {
		return err
	}
	err = w.session.d.classify(ctx, "write", err)
	if _, back := w.conn.Exec(ctx, "ROLLBACK TO rb; RELEASE rb"); back != nil {
		return errors.Join(err, back)
	}
	return err
}

// badRow is a row that Encode could not write.
type badRow struct {
	row int64 // of the batch
	err error
}

// load writes rows [from, to) of a batch by one COPY, or some INSERTs, and returns those
// that have no form in the target's types.
func (k *sink) load(ctx context.Context, rec arrow.RecordBatch, from, to, at int64) ([]badRow, error) {
	if k.g.cfg.LoadMethod == LoadInsert {
		return k.insert(ctx, rec, from, to, at)
	}
	var bad []badRow
	var good []run
	k.buf, k.copy, k.sent, k.first = k.buf[:0], nil, 0, k.w.receipt.Rows.Arrived+at+from
	for row := from; row < to; {
		out, next, err := k.enc.Encode(k.buf0(), rec, row, to, int(k.flush.bytes())+wire.Headroom)
		k.buf = out
		if next > row {
			good = append(good, run{staged: k.staged + k.sent, row: at + row})
		}
		k.sent += next - row
		row = next
		if err != nil {
			if _, ok := errors.AsType[*codec.ValueError](err); !ok {
				return nil, errors.Join(err, k.abort(ctx))
			}
			bad = append(bad, badRow{next, err})
			row++
			continue
		}
		if int64(len(k.buf)) >= k.flush.bytes() {
			if err := k.send(ctx); err != nil {
				return nil, errors.Join(err, k.abort(ctx))
			}
		}
	}
	if k.sent == 0 {
		k.buf = k.buf[:0]
		return bad, nil
	}
	if err := k.closeCopy(ctx); err != nil {
		return nil, errors.Join(err, k.abort(ctx))
	}
	if k.stager != "" {
		k.runs = append(k.runs, good...)
	}
	return bad, nil
}

// abort ends a COPY that has failed.
func (k *sink) abort(ctx context.Context) error {
	in := k.copy
	k.copy, k.sent, k.buf = nil, 0, k.buf[:0]
	if in == nil || k.w.conn.Broken() {
		return nil
	}
	return in.Abort(ctx, "a row was refused")
}

// insert writes rows [from, to) of a batch by multi-row INSERTs. Parameters are in the
// form of COPY's fields.
func (k *sink) insert(ctx context.Context, rec arrow.RecordBatch, from, to, at int64) ([]badRow, error) {
	var bad []badRow
	most := int64(max(1, min(insertRowsMax, insertParamsMax/len(k.lay.columns))))
	for row := from; row < to; {
		k.buf = k.buf[:0]
		first, n := row, int64(0)
		for row < to && n < most && int64(len(k.buf)) < k.flush.bytes() {
			out, next, err := k.enc.Encode(k.buf, rec, row, min(to, row+most-n), int(k.flush.bytes()))
			k.buf = out
			n += next - row
			row = next
			if err == nil {
				continue
			}
			if _, ok := errors.AsType[*codec.ValueError](err); !ok {
				return nil, err
			}
			bad = append(bad, badRow{next, err})
			row++
			break // a statement holds a stretch of rows without a gap
		}
		if n == 0 {
			continue
		}
		if err := k.insertRows(ctx, n, at+first); err != nil {
			return nil, err
		}
	}
	return bad, nil
}

// insertRows sends one statement with n rows from buf, the first of which is row first
// since the last commit.
func (k *sink) insertRows(ctx context.Context, n, first int64) error {
	columns := len(k.lay.columns)
	tag, err := k.w.conn.Insert(ctx, k.insertStatement(int(n)), k.oids(int(n)), columns*int(n), k.buf)
	if err != nil {
		k.first = k.w.receipt.Rows.Arrived + first
		return k.rowError(err)
	}
	if k.stager != "" {
		k.runs = append(k.runs, run{staged: k.staged, row: first})
	}
	return k.stage(n, affected(tag))
}

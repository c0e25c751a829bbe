package postgres

import (
	"context"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"

	"rapidbyte.io/node/connectors/postgres/internal/query"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/mutant"
)

// followPass reads an incremental stream: rows without a cursor first, if they are asked
// for, then those behind the position in the order of the keys.
type followPass struct {
	*pass
	follow *follow
	at     followPosition // behind all rows that were emitted
	unique bool           // no two rows of the statement that runs share a position
	keys   []followKey    // that order it
	still  bool           // rows are read again: the position does not move
	wanted bool           // a barrier was due, and waits for rows that share no position
}

func (p *followPass) run(ctx context.Context) error {
	f := p.follow
	var err error
	if p.at, err = f.parse(p.reader.request.From.At); err != nil {
		return err
	}
	if p.at.nulls && !f.First { // they are not asked for any more
		p.at = followPosition{begun: true}
	}
	if p.out.Due() {
		if err := p.mark(ctx, messages.BarrierPeriodic); err != nil {
			return err
		}
	}
	if f.First && (p.at.nulls || !p.at.begun && len(p.at.values) == 0) {
		if err := p.nulls(ctx); err != nil {
			return err
		}
	}
	p.keys, p.unique = f.Keys, f.Unique
	if f.UpTo != nil {
		if err := p.again(ctx); err != nil {
			return err
		}
		q := p.query()
		q.After, q.UpTo = p.at.values, f.UpTo
		if mutant.On(mutant.NoTies) {
			q.After = q.After[:min(1, len(q.After))]
		}
		if err := p.copyAll(ctx, q, p.take); err != nil {
			return err
		}
	}
	return p.mark(ctx, messages.BarrierDrain) // the load goes on with another scan
}

func (p *followPass) query() query.Stream {
	q := p.reader.split.stream()
	q.Order = p.follow.keys()
	return q
}

// nulls reads the rows without a cursor.
func (p *followPass) nulls(ctx context.Context) error {
	p.at.nulls = true
	p.keys, p.unique = p.follow.Keys[1:], p.follow.Apart
	q := p.query()
	q.Nulls, q.After = query.NullsOnly, p.at.values
	if err := p.copyAll(ctx, q, p.take); err != nil {
		return err
	}
	p.at, p.wanted = followPosition{begun: true}, false
	if p.out.Due() {
		return p.mark(ctx, messages.BarrierPeriodic)
	}
	return nil
}

// again reads the window of lookback, from behind the position up to it. The position
// stays: a crash in the window begins it again.
func (p *followPass) again(ctx context.Context) error {
	if p.follow.Lookback == "" || len(p.at.values) == 0 {
		return nil
	}
	k := p.follow.Keys[0]
	v, err := p.value(ctx, "SELECT ("+query.Literal(p.at.values[0])+"::"+k.Type+" - interval "+query.Literal(p.follow.Lookback)+")::"+k.Type+"::text")
	if err != nil {
		return err
	}
	from := string(v)
	q := p.query()
	q.From, q.After, q.Again = &from, p.at.values, true
	p.still = true
	err = p.copyAll(ctx, q, p.take)
	p.still = false
	return err
}

// take emits one batch, which it owns, with a barrier where one is due and the position
// is exact.
func (p *followPass) take(ctx context.Context, rec arrow.RecordBatch) error {
	n := rec.NumRows()
	if p.still {
		if err := p.emit(ctx, rec); err != nil || !p.out.Due() {
			return err
		}
		return p.mark(ctx, messages.BarrierPeriodic)
	}
	if p.wanted {
		if i := p.apart(rec); i >= 0 {
			if err := p.cut(ctx, rec, i); err != nil {
				rec.Release()
				return err
			}
			rest := rec.NewSlice(i, n)
			rec.Release()
			rec, n = rest, n-i
		}
	}
	last := p.position(rec, n-1)
	if err := p.emit(ctx, rec); err != nil {
		return err
	}
	p.at = followPosition{nulls: p.at.nulls, values: last}
	if !p.out.Due() {
		return nil
	}
	if !p.unique {
		p.wanted = true // at the first row with another position
		return nil
	}
	return p.mark(ctx, messages.BarrierPeriodic)
}

// cut emits the first n rows of rec, which it borrows, and a barrier behind them.
func (p *followPass) cut(ctx context.Context, rec arrow.RecordBatch, n int64) error {
	if n > 0 {
		last := p.position(rec, n-1)
		if err := p.emit(ctx, rec.NewSlice(0, n)); err != nil {
			return err
		}
		p.at = followPosition{nulls: p.at.nulls, values: last}
	}
	p.wanted = false
	return p.mark(ctx, messages.BarrierPeriodic)
}

// apart returns the first row of rec whose position differs from that of the row before,
// -1 if there is none or if texts do not tell.
func (p *followPass) apart(rec arrow.RecordBatch) int64 {
	if len(p.keys) == 0 || slices.ContainsFunc(p.keys, func(k followKey) bool { return !k.Exact }) {
		return -1
	}
	before := p.at.values
	for i := range rec.NumRows() {
		now := p.position(rec, i)
		if !slices.Equal(now, before) {
			return i
		}
		before = now
	}
	return -1
}

// position returns the texts of the keys in row i.
func (p *followPass) position(rec arrow.RecordBatch, i int64) []string {
	out := make([]string, len(p.keys))
	for k, key := range p.keys {
		out[k] = textAt(rec.Column(key.At), int(i))
	}
	return out
}

func (p *followPass) mark(ctx context.Context, kind messages.BarrierKind) error {
	return p.barrier(ctx, kind, p.follow.cursor(p.at))
}

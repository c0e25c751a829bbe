package killtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"rapidbyte.io/node/cmd/rapidbyte-node/internal/rowcheck"
	"rapidbyte.io/node/connectors"
)

// oracle knows what one target may hold.
type oracle struct {
	mode    connectors.WriteMode
	settled []row // what the target held when the last generation was complete
	coming  []row // what it holds when this one is
	before  tally // of settled
	after   tally // of coming

	load     uint64              // number of the load that made settled
	applied  int64               // what its receipts said then: one that is incremental goes on
	swapped  bool                // a replace: the new version was seen
	versions map[int64][]content // an upsert: every content of a key that the source had, in order
	newest   map[int64]int       // an upsert: index into versions that was seen last
}

// grow announces the rows of the next generation, in the order of the source.
func (o *oracle) grow(rows []row) {
	o.swapped = false
	switch o.mode {
	case connectors.ModeAppend:
		o.coming = slices.Concat(o.settled, rows)
	case connectors.ModeReplace:
		o.coming = rows
	case connectors.ModeUpsert:
		if o.versions == nil {
			o.versions, o.newest = map[int64][]content{}, map[int64]int{}
		}
		last := map[int64]row{}
		for _, r := range o.settled {
			last[r.ID] = r
		}
		for _, r := range rows {
			last[r.ID] = r
			o.versions[r.ID] = append(o.versions[r.ID], r.content())
		}
		o.coming = slices.Collect(maps.Values(last))
	}
	o.after = tallied(o.coming)
}

// settle says that the generation is complete, by this load and its receipts.
func (o *oracle) settle(load uint64, applied int64) {
	o.settled, o.before, o.load, o.applied = o.coming, o.after, load, applied
}

// during judges a target while its generation is not complete. applied is what the
// receipts of load say.
func (o *oracle) during(got []row, load uint64, applied int64) error {
	switch o.mode {
	case connectors.ModeAppend:
		want := int64(len(o.settled)) + applied
		if load == o.load {
			want -= o.applied
		}
		there := tallied(got)
		errs := []error{compare(o.after, there).noneExtra(), compare(o.before, there).noneMissing()}
		switch n := int64(len(got)) - want; {
		case n < 0:
			errs = append(errs, damage{lost: -n, text: fmt.Sprintf("%d rows, the receipts say %d", len(got), want)})
		case n > 0:
			errs = append(errs, damage{doubled: n, text: fmt.Sprintf("%d rows, the receipts say %d", len(got), want)})
		}
		return errors.Join(errs...)
	case connectors.ModeReplace:
		there := tallied(got)
		if maps.Equal(o.after, there) {
			o.swapped = true
			return nil
		}
		if maps.Equal(o.before, there) && !o.swapped {
			return nil
		}
		toNew, toOld := compare(o.after, there).same(), compare(o.before, there).same()
		return fmt.Errorf("%d rows are neither version (the new one was seen before: %t); new: %w; old: %w", len(got), o.swapped, toNew, toOld)
	case connectors.ModeUpsert:
		return o.duringUpsert(got)
	}
	return fmt.Errorf("unknown mode %q", o.mode)
}

func (o *oracle) duringUpsert(got []row) error {
	seen := make(map[int64]bool, len(got))
	for _, r := range got {
		at := slices.Index(o.versions[r.ID], r.content())
		switch {
		case seen[r.ID]:
			return damage{doubled: 1, text: fmt.Sprintf("key %d is there twice", r.ID)}
		case at < 0:
			return damage{changed: 1, text: fmt.Sprintf("the source never had %s", r.text())}
		case at < o.newest[r.ID]:
			return damage{changed: 1, text: fmt.Sprintf("key %d went back from version %d to %d", r.ID, o.newest[r.ID], at)}
		}
		seen[r.ID], o.newest[r.ID] = true, at
	}
	for _, r := range o.settled {
		if !seen[r.ID] {
			return damage{lost: 1, text: fmt.Sprintf("key %d is gone", r.ID)}
		}
	}
	return nil
}

// complete judges a target whose generation is complete.
func (o *oracle) complete(ctx context.Context, got rowcheck.Table) error {
	report, err := rowcheck.Compare(ctx, checked(o.coming), got)
	if err == nil {
		err = report.Err()
	}
	if err == nil {
		return nil
	}
	return damage{
		lost: report.Missing.Count, doubled: report.Doubled.Count, changed: report.Changed.Count + report.Extra.Count, text: err.Error(),
	}
}

// checked are rows as a table that is compared with others.
func checked(rows []row) rowcheck.Rows {
	return rowcheck.Rows{Columns: columns, Key: columns[:1], All: func(yield func([]rowcheck.Cell, error) bool) {
		for _, r := range rows {
			cells := []rowcheck.Cell{rowcheck.Int(r.ID), rowcheck.Text(r.Name), rowcheck.Int(r.Qty), rowcheck.Float(r.Price), rowcheck.Null}
			if r.Flag != nil {
				cells[4] = rowcheck.Bool(*r.Flag)
			}
			if !yield(cells, nil) {
				return
			}
		}
	}}
}

// damage is what a check has found, in numbers.
type damage struct {
	lost, doubled, changed int64 // rows; a version of a replace that is not whole counts as often as rows differ
	text                   string
}

func (d damage) Error() string { return d.text }

// worst is the damage of an error with the most rows; none for one of another kind.
func worst(err error) (out damage) {
	if err == nil {
		return out
	}
	if d, ok := err.(damage); ok { //nolint:errorlint // the tree is walked here
		return d
	}
	var below []error
	switch e := err.(type) { //nolint:errorlint // the tree is walked here
	case interface{ Unwrap() []error }:
		below = e.Unwrap()
	case interface{ Unwrap() error }:
		below = []error{e.Unwrap()}
	}
	for _, e := range below {
		d := worst(e)
		out.lost, out.doubled, out.changed = max(out.lost, d.lost), max(out.doubled, d.doubled), max(out.changed, d.changed)
	}
	return out
}

// content is a whole row, fit to be a key.
type content struct {
	id, qty int64
	name    string
	price   float64
	flag    int8 // -1: NULL
}

func (r row) content() content {
	c := content{id: r.ID, qty: r.Qty, name: r.Name, price: r.Price, flag: -1}
	if r.Flag != nil {
		c.flag = 0
		if *r.Flag {
			c.flag = 1
		}
	}
	return c
}

func (c content) text() string {
	r := row{ID: c.id, Name: c.name, Qty: c.qty, Price: c.price}
	if c.flag >= 0 {
		r.Flag = new(c.flag > 0)
	}
	return r.text()
}

// tally is how often each row is there.
type tally map[content]int

func tallied(rows []row) tally {
	t := make(tally, len(rows))
	for _, r := range rows {
		t[r.content()]++
	}
	return t
}

// difference is what two multisets of rows do not have in common.
type difference struct{ missing, doubled, extra []string }

func compare(want, got tally) (d difference) {
	for c, n := range want {
		if n > got[c] {
			d.missing = append(d.missing, fmt.Sprintf("%d times %s", n-got[c], c.text()))
		}
	}
	for c, n := range got {
		switch wanted := want[c]; {
		case wanted > 0 && n > wanted:
			d.doubled = append(d.doubled, fmt.Sprintf("%d times %s", n-wanted, c.text()))
		case wanted == 0:
			d.extra = append(d.extra, fmt.Sprintf("%d times %s", n, c.text()))
		}
	}
	slices.Sort(d.missing)
	slices.Sort(d.doubled)
	slices.Sort(d.extra)
	return d
}

func (d difference) noneMissing() error {
	return some("missing", d.missing, damage{lost: int64(len(d.missing))})
}

func (d difference) noneExtra() error {
	return some("too many", slices.Concat(d.doubled, d.extra), damage{doubled: int64(len(d.doubled)), changed: int64(len(d.extra))})
}

func (d difference) same() error { return errors.Join(d.noneMissing(), d.noneExtra()) }

func some(what string, rows []string, d damage) error {
	if len(rows) == 0 {
		return nil
	}
	const shown = 5
	d.text = fmt.Sprintf("%d rows %s: %s", len(rows), what, strings.Join(rows[:min(shown, len(rows))], "; "))
	return d
}

// behind says where the state store is ahead of the destination (I1).
func behind(k stored, d found) error {
	var errs []error
	for _, r := range k.state.Receipts {
		if d.loads[r.Load].number > r.Version.Load {
			continue // the next load is begun and has other parts
		}
		there, ok := d.receipts[r.Part]
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("the store has commit %v of part %s, the destination none", r.Version, r.Part))
		case there.Version.Compare(r.Version) < 0:
			errs = append(errs, fmt.Errorf("the store has commit %v of part %s, the destination %v", r.Version, r.Part, there.Version))
		case there.Version == r.Version && r.Final && !there.Final:
			errs = append(errs, fmt.Errorf("part %s is complete in the store alone", r.Part))
		}
	}
	for _, l := range k.state.Finished {
		there := d.loads[l.Name]
		if there.number < l.Number || there.number == l.Number && !there.finished {
			errs = append(errs, fmt.Errorf("the store has finished load %s/%d, the destination is at %d (finished: %t)", l.Name, l.Number, there.number, there.finished))
		}
	}
	if d.epoch > k.state.Epoch {
		errs = append(errs, fmt.Errorf("the destination has epoch %d, the store handed out %d", d.epoch, k.state.Epoch))
	}
	return errors.Join(errs...)
}

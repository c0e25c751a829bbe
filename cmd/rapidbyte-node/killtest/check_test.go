package killtest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"rapidbyte.io/node/connectors"
)

// oracle knows what one target may hold.
type oracle struct {
	mode    connectors.WriteMode
	settled []row // what the target held when the last generation was complete
	coming  []row // what it holds when this one is

	load     uint64             // number of the load that made settled
	applied  int64              // what its receipts said then: one that is incremental goes on
	swapped  bool               // a replace: the new version was seen
	versions map[int64][]string // an upsert: every text of a key that the source had, in order
	newest   map[int64]int      // an upsert: index into versions that was seen last
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
			o.versions, o.newest = map[int64][]string{}, map[int64]int{}
		}
		last := map[int64]row{}
		for _, r := range o.settled {
			last[r.ID] = r
		}
		for _, r := range rows {
			last[r.ID] = r
			o.versions[r.ID] = append(o.versions[r.ID], r.text())
		}
		o.coming = slices.Collect(maps.Values(last))
	}
}

// settle says that the generation is complete, by this load and its receipts.
func (o *oracle) settle(load uint64, applied int64) {
	o.settled, o.load, o.applied = o.coming, load, applied
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
		if int64(len(got)) != want {
			return fmt.Errorf("%d rows, the receipts say %d", len(got), want)
		}
		return errors.Join(compare(o.coming, got).noneExtra(), compare(o.settled, got).noneMissing())
	case connectors.ModeReplace:
		toNew := compare(o.coming, got).same()
		if toNew == nil {
			o.swapped = true
			return nil
		}
		toOld := compare(o.settled, got).same()
		if toOld == nil && !o.swapped {
			return nil
		}
		return fmt.Errorf("%d rows are neither version (the new one was seen before: %t); new: %w; old: %w", len(got), o.swapped, toNew, toOld)
	case connectors.ModeUpsert:
		return o.duringUpsert(got)
	}
	return fmt.Errorf("unknown mode %q", o.mode)
}

func (o *oracle) duringUpsert(got []row) error {
	seen := map[int64]bool{}
	for _, r := range got {
		at := slices.Index(o.versions[r.ID], r.text())
		switch {
		case seen[r.ID]:
			return fmt.Errorf("key %d is there twice", r.ID)
		case at < 0:
			return fmt.Errorf("the source never had %s", r.text())
		case at < o.newest[r.ID]:
			return fmt.Errorf("key %d went back from version %d to %d", r.ID, o.newest[r.ID], at)
		}
		seen[r.ID], o.newest[r.ID] = true, at
	}
	for _, r := range o.settled {
		if !seen[r.ID] {
			return fmt.Errorf("key %d is gone", r.ID)
		}
	}
	return nil
}

// complete judges a target whose generation is complete.
func (o *oracle) complete(got []row) error { return compare(o.coming, got).same() }

// difference is what two multisets of rows do not have in common.
type difference struct{ missing, extra []string }

func compare(want, got []row) difference {
	count := make(map[string]int, len(want))
	for _, r := range want {
		count[r.text()]++
	}
	for _, r := range got {
		count[r.text()]--
	}
	var d difference
	for text, n := range count {
		switch {
		case n > 0:
			d.missing = append(d.missing, fmt.Sprintf("%d times %s", n, text))
		case n < 0:
			d.extra = append(d.extra, fmt.Sprintf("%d times %s", -n, text))
		}
	}
	slices.Sort(d.missing)
	slices.Sort(d.extra)
	return d
}

func (d difference) noneMissing() error { return some("missing", d.missing) }
func (d difference) noneExtra() error   { return some("too many", d.extra) }
func (d difference) same() error        { return errors.Join(d.noneMissing(), d.noneExtra()) }

func some(what string, rows []string) error {
	if len(rows) == 0 {
		return nil
	}
	const shown = 5
	return fmt.Errorf("%d rows %s: %s", len(rows), what, strings.Join(rows[:min(shown, len(rows))], "; "))
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

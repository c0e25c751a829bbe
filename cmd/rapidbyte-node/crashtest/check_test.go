package crashtest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"rapidbyte.io/node/messages"
)

// difference is what two multisets of rows do not have in common.
type difference struct{ missing, extra []string }

func compare(want []row, got []string) (d difference) {
	n := map[string]int{}
	for _, r := range want {
		n[r.text()]++
	}
	for _, g := range got {
		if n[g]--; n[g] < 0 {
			d.extra = append(d.extra, g)
		}
	}
	for text, k := range n {
		for range k {
			d.missing = append(d.missing, text)
		}
	}
	return d
}

func some(what string, rows []string) error {
	if len(rows) == 0 {
		return nil
	}
	slices.Sort(rows)
	return fmt.Errorf("%d rows %s, the first is %q", len(rows), what, rows[0])
}

func (d difference) noneMissing() error { return some("missing", d.missing) }
func (d difference) noneExtra() error   { return some("too many", d.extra) }
func (d difference) same() error        { return errors.Join(d.noneMissing(), d.noneExtra()) }

// base is what a target held before the crashes.
type base struct {
	load    uint64 // number of the load that made it
	counted messages.Counts
}

// witness remembers what was seen of one target during a cell.
type witness struct {
	stream
	base    base
	renewed map[string]bool // a replace: the new version; an upsert: keys that had their new text
}

// during judges a target that need not be complete.
func (w *witness) during(f found) error {
	got := f.rows[w.name]
	switch w.mode {
	case appends:
		n := f.counted(w.name)
		want := int64(len(w.target(w.old))) + n.Applied
		if f.loads[w.name].number == w.base.load {
			want -= w.base.counted.Applied
		}
		if int64(len(got)) != want {
			return fmt.Errorf("%d rows, the receipts say %d", len(got), want)
		}
		return errors.Join(compare(w.target(w.source()), got).noneExtra(), compare(w.target(w.old), got).noneMissing())
	case replaces:
		toNew := compare(w.target(w.fresh), got).same()
		if toNew == nil {
			w.renewed[""] = true
			return nil
		}
		toOld := compare(w.target(w.old), got).same()
		if toOld == nil && !w.renewed[""] {
			return nil
		}
		return fmt.Errorf("%d rows are neither version (the new one was seen before: %t); new: %w; old: %w", len(got), w.renewed[""], toNew, toOld)
	case upserts:
		return w.duringUpsert(got)
	}
	return fmt.Errorf("unknown mode %q", w.mode)
}

func (w *witness) duringUpsert(got []string) error {
	key := func(text string) string { id, _, _ := strings.Cut(text, "|"); return id }
	older, newer, seen := map[string]string{}, map[string]string{}, map[string]bool{}
	for _, r := range w.target(w.old) {
		older[key(r.text())] = r.text()
	}
	for _, r := range w.target(w.fresh) {
		newer[key(r.text())] = r.text()
	}
	for _, g := range got {
		k := key(g)
		switch {
		case seen[k]:
			return fmt.Errorf("key %s is there twice", k)
		case g == newer[k]:
			w.renewed[k] = true
		case g != older[k]:
			return fmt.Errorf("the source never had %s", g)
		case w.renewed[k]:
			return fmt.Errorf("key %s went back", k)
		}
		seen[k] = true
	}
	for k := range older {
		if !seen[k] {
			return fmt.Errorf("key %s is gone", k)
		}
	}
	return nil
}

// complete compares a target of which all is there.
func (w *witness) complete(f found) difference { return compare(w.target(w.source()), f.rows[w.name]) }

// deadLetters is how many of its rows the target refuses.
func (s stream) deadLetters() (n int64) {
	for _, r := range s.source() {
		if s.refused(r) {
			n++
		}
	}
	return n
}

// behind checks that the state store is not ahead of the destination (I1).
func behind(k stored, d found) error {
	var errs []error
	for _, r := range k.state.Receipts {
		at, ok := d.receipts[r.Part]
		if !ok || at.Version.Compare(r.Version) < 0 {
			if l := d.loads[r.Load]; l.number > r.Version.Load {
				continue // a newer load has begun, of which the store has not heard
			}
			errs = append(errs, fmt.Errorf("the store has %v of %s, the destination %v", r.Version, r.Part, at.Version))
		}
	}
	for _, id := range k.state.Finished {
		if l := d.loads[id.Name]; l.number < id.Number || l.number == id.Number && !l.finished {
			errs = append(errs, fmt.Errorf("the store says that load %d of %s is finished, the destination does not", id.Number, id.Name))
		}
	}
	if k.state.Epoch < d.epoch {
		errs = append(errs, fmt.Errorf("the destination has epoch %d, which the store (%d) has not handed out", d.epoch, k.state.Epoch))
	}
	return errors.Join(errs...)
}

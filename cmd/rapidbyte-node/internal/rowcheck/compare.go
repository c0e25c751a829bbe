package rowcheck

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// buckets is how many a table is cut into.
const buckets = 1024

// Layout is which columns of a table are compared, in which order, and which of them
// are its key.
type Layout struct{ Columns, Key []string }

// key is the columns that a row is found by.
func (l Layout) key() []string {
	if len(l.Key) == 0 {
		return l.Columns
	}
	return l.Key
}

// Bucket is the digest of a part of a table.
type Bucket struct {
	Rows int64
	Sum  string // of hashes with seed 0, in decimal digits; "": no row
	Xor  int64  // of hashes with seed 1
}

// Digest is that of a whole table.
type Digest [buckets]Bucket

// Rows is how many there are.
func (d *Digest) Rows() (n int64) {
	for i := range d {
		n += d[i].Rows
	}
	return n
}

// Table is one side of a comparison.
type Table interface {
	Layout() Layout
	Digest(ctx context.Context) (*Digest, error)
	// Rows calls each for every row of some buckets, in any order.
	Rows(ctx context.Context, of []int, each func(key, row string) error) error
	// Hiding lists what keeps rows out of a table that is appended to.
	Hiding(ctx context.Context) ([]string, error)
}

// Difference is a row that is not as it should be.
type Difference struct {
	Key  string // as text of a record
	Want string // "": no such row is wanted
	Got  string // "": there is no such row
}

func (d Difference) String() string {
	switch {
	case d.Got == "":
		return "key " + d.Key + ": " + d.Want
	case d.Want == "":
		return "key " + d.Key + ": " + d.Got
	}
	return "key " + d.Key + ": " + d.Got + " for " + d.Want
}

// Differences are those of one kind.
type Differences struct {
	Count int64
	First []Difference // some of them, ordered by key
}

// shown is how many differences of a kind are kept.
const shown = 100

func (d *Differences) add(found Difference) {
	d.Count++
	at, _ := slices.BinarySearchFunc(d.First, found, func(a, b Difference) int { return strings.Compare(a.Key, b.Key) })
	if at < shown {
		d.First = slices.Insert(d.First, at, found)
		d.First = d.First[:min(len(d.First), shown)]
	}
}

// Report is what a comparison has found.
type Report struct {
	Want, Got                        int64 // rows
	Missing, Extra, Doubled, Changed Differences
	Hiding                           []string // what keeps rows out of a table that is appended to
}

// Same reports whether the tables are equal, and nothing hides that they are not.
func (r Report) Same() bool { return r.Err() == nil }

// Err is nil if the tables are equal.
func (r Report) Err() error {
	var parts []string
	for _, kind := range []struct {
		name string
		d    Differences
	}{{"missing", r.Missing}, {"doubled", r.Doubled}, {"extra", r.Extra}, {"changed", r.Changed}} {
		if kind.d.Count == 0 {
			continue
		}
		const named = 5
		var keys []string
		for _, f := range kind.d.First[:min(named, len(kind.d.First))] {
			keys = append(keys, f.String())
		}
		parts = append(parts, fmt.Sprintf("%d rows %s: %s", kind.d.Count, kind.name, strings.Join(keys, "; ")))
	}
	if len(r.Hiding) > 0 {
		parts = append(parts, "unique in a target of append: "+strings.Join(r.Hiding, ", "))
	}
	if len(parts) == 0 {
		return nil
	}
	return fmt.Errorf("%d rows of %d wanted: %s", r.Got, r.Want, strings.Join(parts, "; "))
}

// fetched is of how many buckets rows are held at once.
const fetched = 64

// Compare finds out whether got is want, and where not.
func Compare(ctx context.Context, want, got Table) (Report, error) {
	var out Report
	w, g := want.Layout(), got.Layout()
	if !slices.Equal(w.key(), g.key()) || len(w.Columns) != len(g.Columns) {
		return out, fmt.Errorf("rowcheck: columns %v by %v are not compared with %v by %v", w.Columns, w.key(), g.Columns, g.key())
	}
	var err error
	if out.Hiding, err = got.Hiding(ctx); err != nil {
		return out, fmt.Errorf("rowcheck: look for unique indexes: %w", err)
	}
	there, err := got.Digest(ctx)
	if err != nil {
		return out, fmt.Errorf("rowcheck: digest of what is there: %w", err)
	}
	right, err := want.Digest(ctx)
	if err != nil {
		return out, fmt.Errorf("rowcheck: digest of what is wanted: %w", err)
	}
	out.Want, out.Got = right.Rows(), there.Rows()
	var differ []int
	for i := range right {
		if right[i] != there[i] {
			differ = append(differ, i)
		}
	}
	for part := range slices.Chunk(differ, fetched) {
		if err := out.look(ctx, want, got, part); err != nil {
			return out, err
		}
	}
	if len(differ) > 0 && out.Same() {
		return out, fmt.Errorf("rowcheck: the digests of buckets %v differ and their rows do not: somebody has written in between", differ)
	}
	return out, nil
}

// pair is how often each row of one key is wanted, and there.
type pair struct{ want, got map[string]int64 }

// look compares the rows of some buckets.
func (r *Report) look(ctx context.Context, want, got Table, of []int) error {
	rows := map[string]*pair{}
	at := func(key string) *pair {
		p := rows[key]
		if p == nil {
			p = &pair{map[string]int64{}, map[string]int64{}}
			rows[key] = p
		}
		return p
	}
	if err := want.Rows(ctx, of, func(key, row string) error { at(key).want[row]++; return nil }); err != nil {
		return fmt.Errorf("rowcheck: rows that are wanted: %w", err)
	}
	if err := got.Rows(ctx, of, func(key, row string) error { at(key).got[row]++; return nil }); err != nil {
		return fmt.Errorf("rowcheck: rows that are there: %w", err)
	}
	for key, p := range rows {
		r.judge(key, p)
	}
	return nil
}

// judge tells apart what is wrong with the rows of one key.
func (r *Report) judge(key string, p *pair) {
	var lost, foreign, again []string // one entry per row
	for _, row := range slices.Sorted(maps.Keys(p.want)) {
		for n := p.want[row] - p.got[row]; n > 0; n-- {
			lost = append(lost, row)
		}
	}
	for _, row := range slices.Sorted(maps.Keys(p.got)) {
		for n := p.got[row] - p.want[row]; n > 0; n-- {
			if p.want[row] > 0 {
				again = append(again, row)
			} else {
				foreign = append(foreign, row)
			}
		}
	}
	changed := min(len(lost), len(foreign))
	for i := range changed {
		r.Changed.add(Difference{Key: key, Want: lost[i], Got: foreign[i]})
	}
	for _, row := range lost[changed:] {
		r.Missing.add(Difference{Key: key, Want: row})
	}
	for _, row := range foreign[changed:] {
		r.Extra.add(Difference{Key: key, Got: row})
	}
	for _, row := range again {
		r.Doubled.add(Difference{Key: key, Got: row})
	}
}

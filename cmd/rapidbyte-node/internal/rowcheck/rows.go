package rowcheck

import (
	"context"
	"fmt"
	"iter"
	"math/big"
	"math/bits"
	"slices"
)

// Rows is a table of rows from anywhere: a file, another database, memory.
type Rows struct {
	Columns, Key []string
	// All yields every row, with its cells in the order of Columns, and may be called
	// again. It may use the slice of cells again for the next row.
	All iter.Seq2[[]Cell, error]
}

var _ Table = Rows{}

// Layout implements [Table].
func (t Rows) Layout() Layout { return Layout{t.Columns, t.Key} }

// Hiding implements [Table]: there is nothing that would refuse a row.
func (t Rows) Hiding(context.Context) ([]string, error) { return nil, nil }

// int128 is a sum of hashes.
type int128 struct{ low, high uint64 }

func (s *int128) add(v int64) {
	var carry uint64
	s.low, carry = bits.Add64(s.low, uint64(v), 0) //nolint:gosec // the bits
	s.high += uint64(v>>63) + carry                //nolint:gosec // all ones below zero
}

func (s *int128) String() string {
	v := new(big.Int).Lsh(big.NewInt(int64(s.high)), 64) //nolint:gosec // with its sign
	return v.Add(v, new(big.Int).SetUint64(s.low)).String()
}

// Digest implements [Table].
func (t Rows) Digest(ctx context.Context) (*Digest, error) {
	var out Digest
	var sums [buckets]int128
	err := t.each(ctx, func(bucket int, _, row []byte) error {
		b := &out[bucket]
		b.Rows++
		b.Xor ^= hash(row, 1)
		sums[bucket].add(hash(row, 0))
		return nil
	})
	for i := range out {
		if out[i].Rows > 0 {
			out[i].Sum = sums[i].String()
		}
	}
	return &out, err
}

// Rows implements [Table].
func (t Rows) Rows(ctx context.Context, of []int, each func(key, row string) error) error {
	return t.each(ctx, func(bucket int, key, row []byte) error {
		if !slices.Contains(of, bucket) {
			return nil
		}
		return each(string(key), string(row))
	})
}

// each calls use for every row, with texts that are valid until it returns.
func (t Rows) each(ctx context.Context, use func(bucket int, key, row []byte) error) error {
	at := make([]int, 0, len(t.Key))
	for _, name := range t.Layout().key() {
		i := slices.Index(t.Columns, name)
		if i < 0 {
			return fmt.Errorf("key column %s is none of %v", name, t.Columns)
		}
		at = append(at, i)
	}
	var key, row []byte
	cells := make([]Cell, len(at))
	for all, err := range t.All {
		if err == nil && len(all) != len(t.Columns) {
			err = fmt.Errorf("a row of %d cells, there are %d columns", len(all), len(t.Columns))
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		for i, c := range at {
			cells[i] = all[c]
		}
		key, row = appendRecord(key[:0], cells), appendRecord(row[:0], all)
		if err := use(int(hash(key, 0)&(buckets-1)), key, row); err != nil {
			return err
		}
	}
	return nil
}

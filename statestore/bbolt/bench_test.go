package bbolt_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
	"rapidbyte.io/node/statestore/bbolt"
)

// BenchmarkSave persists one checkpoint after the other, each durable before the
// next; of a pipeline with so many parts, so many of them new in each step.
func BenchmarkSave(b *testing.B) {
	for _, size := range []struct{ parts, fresh int }{{1, 1}, {1000, 1}, {1000, 16}} {
		b.Run(fmt.Sprintf("parts=%d/new=%d", size.parts, size.fresh), func(b *testing.B) {
			s, e, u := filled(b, size.parts)
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				n++
				step := statestore.Update{Receipts: make([]messages.Receipt, size.fresh)}
				for i := range step.Receipts {
					step.Receipts[i] = u.Receipts[(n*size.fresh+i)%size.parts]
					step.Receipts[i].Version.Commit = uint64(n + 1) //nolint:gosec // positive
				}
				if err := s.Save(context.Background(), "a", e, step); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "checkpoints/s")
		})
	}
}

// BenchmarkBareSync is the floor: write one page, make it durable.
func BenchmarkBareSync(b *testing.B) {
	f, err := os.OpenFile(filepath.Join(b.TempDir(), "page"), os.O_RDWR|os.O_CREATE, 0o600)
	require.NoError(b, err)
	defer func() { require.NoError(b, f.Close()) }()
	page := make([]byte, os.Getpagesize())
	for b.Loop() {
		if _, err := f.WriteAt(page, 0); err != nil {
			b.Fatal(err)
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "syncs/s")
}

// BenchmarkLoad reads the state of a pipeline with 1,000 parts.
func BenchmarkLoad(b *testing.B) {
	s, _, _ := filled(b, 1000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Load(context.Background(), "a"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen opens and proves a store with 1,000 parts.
func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "state.db")
	s, err := bbolt.Open(b.Context(), bbolt.Config{Path: path})
	require.NoError(b, err)
	fill(b, s, 1000)
	require.NoError(b, s.Close())
	b.ReportAllocs()
	for b.Loop() {
		s, err := bbolt.Open(context.Background(), bbolt.Config{Path: path})
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func filled(b *testing.B, parts int) (*bbolt.Store, messages.Epoch, statestore.Update) {
	b.Helper()
	s, err := bbolt.Open(b.Context(), bbolt.Config{Path: filepath.Join(b.TempDir(), "state.db")})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, s.Close()) })
	e, u := fill(b, s, parts)
	return s, e, u
}

func fill(b *testing.B, s *bbolt.Store, parts int) (messages.Epoch, statestore.Update) {
	b.Helper()
	e, err := s.Acquire(b.Context(), "a", statestore.Claim{})
	require.NoError(b, err)
	var u statestore.Update
	for i := range parts {
		u.Receipts = append(u.Receipts, messages.Receipt{
			Part: messages.PartID(fmt.Sprintf("public.orders/%04d", i)), Load: "public.orders",
			Version: messages.Version{Load: 1, Commit: 1}, Token: messages.Token{Epoch: e, Attempt: 1},
			Position: messages.Position{At: messages.Int64Cursor(1 << 40)},
			Rows:     messages.Counts{Read: 1 << 30, Arrived: 1 << 30, Applied: 1 << 30},
		})
	}
	require.NoError(b, s.Save(b.Context(), "a", e, u))
	return e, u
}

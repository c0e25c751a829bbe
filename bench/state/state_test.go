// Package state measures what one checkpoint costs in each state store, beside the least
// that its disk and its server could take for it.
package state

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rapidbyte.io/node/connectors/postgres/pgtest"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
	"rapidbyte.io/node/statestore/bbolt"
	"rapidbyte.io/node/statestore/postgres"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const parts = 1000 // of the pipeline

// contestant does one durable thing after the other.
type contestant struct {
	name  string
	step  func() error
	times []time.Duration
}

// BenchmarkCheckpoint does one step of every contestant in turn, so that what else the
// machine does hits all of them alike, and reports the median of each in microseconds.
// The server has its default durability; all files are below one folder.
func BenchmarkCheckpoint(b *testing.B) {
	server := pgtest.Start(b)
	open := func(s statestore.Store, err error) statestore.Store {
		b.Helper()
		require.NoError(b, err)
		b.Cleanup(func() { require.NoError(b, s.Close()) })
		return s
	}
	var all []*contestant
	for _, receipts := range []int{1, 16, 100} {
		embedded := open(bbolt.Open(b.Context(), bbolt.Config{Path: filepath.Join(b.TempDir(), "state.db")}))
		shared := open(postgres.Open(b.Context(), postgres.Config{URL: server.URL(server.Database(b))}))
		all = append(all,
			&contestant{name: fmt.Sprintf("bbolt-%d", receipts), step: checkpoints(b, embedded, receipts)},
			&contestant{name: fmt.Sprintf("postgres-%d", receipts), step: checkpoints(b, shared, receipts)})
	}
	all = append(all, &contestant{name: "fsync", step: bareSync(b)}, &contestant{name: "commit", step: bareCommit(b, server.URL(server.Database(b)))})
	for b.Loop() {
		for _, c := range all {
			began := time.Now()
			if err := c.step(); err != nil {
				b.Fatal(c.name, err)
			}
			c.times = append(c.times, time.Since(began))
		}
	}
	b.ReportMetric(0, "ns/op") // of all together it says nothing
	for _, c := range all {
		slices.Sort(c.times)
		b.ReportMetric(float64(c.times[len(c.times)/2].Microseconds()), c.name+"-µs")
	}
}

// checkpoints returns a step that saves one checkpoint of so many receipts.
func checkpoints(b *testing.B, s statestore.Store, receipts int) func() error {
	b.Helper()
	e, err := s.Acquire(b.Context(), "a", statestore.Claim{})
	require.NoError(b, err)
	var all statestore.Update
	for i := range parts {
		all.Receipts = append(all.Receipts, messages.Receipt{
			Part: messages.PartID(fmt.Sprintf("public.orders/%04d", i)), Load: "public.orders",
			Version: messages.Version{Load: 1, Commit: 1}, Token: messages.Token{Epoch: e, Attempt: 1},
			Position: messages.Position{At: messages.Int64Cursor(1 << 40)},
			Rows:     messages.Counts{Read: 1 << 30, Arrived: 1 << 30, Applied: 1 << 30},
		})
	}
	require.NoError(b, s.Save(b.Context(), "a", e, all))
	n := 0
	return func() error {
		n++
		u := statestore.Update{Receipts: make([]messages.Receipt, receipts)}
		for i := range u.Receipts {
			u.Receipts[i] = all.Receipts[(n*receipts+i)%parts]
			u.Receipts[i].Version.Commit = uint64(n + 1) //nolint:gosec // positive
		}
		return s.Save(context.Background(), "a", e, u)
	}
}

// bareSync returns a step that writes one page and makes it durable.
func bareSync(b *testing.B) func() error {
	b.Helper()
	f, err := os.OpenFile(filepath.Join(b.TempDir(), "page"), os.O_RDWR|os.O_CREATE, 0o600)
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, f.Close()) })
	page := make([]byte, os.Getpagesize())
	return func() error {
		if _, err := f.WriteAt(page, 0); err != nil {
			return err
		}
		return unix.Fdatasync(int(f.Fd())) //nolint:gosec // a descriptor
	}
}

// bareCommit returns a step that updates one row, in a transaction of its own.
func bareCommit(b *testing.B, url string) func() error {
	b.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, url)
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, conn.Close(ctx)) })
	_, err = conn.Exec(ctx, "CREATE TABLE one (id int PRIMARY KEY, n bigint); INSERT INTO one VALUES (1, 0)")
	require.NoError(b, err)
	return func() error {
		_, err := conn.Exec(ctx, "UPDATE one SET n = n + 1 WHERE id = $1", 1)
		return err
	}
}

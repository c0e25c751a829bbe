//go:build system

package postgres

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// A server whose disk is full refuses the commit and loses nothing: once there is space,
// the same load goes on from its receipt. Mounting needs root.
func TestSystemAFullServerIsWaitedFor(t *testing.T) {
	for _, mode := range []connectors.WriteMode{connectors.ModeAppend, connectors.ModeUpsert, connectors.ModeReplace} {
		t.Run(string(mode), func(t *testing.T) {
			r := newRig(t, connectors.WritePolicy{}, nil)
			space, err := os.MkdirTemp("", "rbfull") //nolint:usetesting // the account of the server must reach it
			require.NoError(t, err)
			require.NoError(t, unix.Mount("tmpfs", space, "tmpfs", 0, "size=24m"), "mounting needs root")
			t.Cleanup(func() {
				require.NoError(t, unix.Unmount(space, 0))
				require.NoError(t, os.Remove(space))
			})
			info, err := os.Stat(r.server.Data())
			require.NoError(t, err)
			owner, _ := info.Sys().(*syscall.Stat_t)
			tables := filepath.Join(space, "tables")
			require.NoError(t, os.Mkdir(tables, 0o700))
			require.NoError(t, os.Chown(tables, int(owner.Uid), int(owner.Gid)))
			require.NoError(t, os.Chmod(space, 0o755)) //nolint:gosec // the server looks into it
			r.server.Exec(t, r.db, "CREATE TABLESPACE small_"+string(mode)+" LOCATION '"+tables+"'")
			t.Cleanup(func() { // behind the tables of the test
				r.sql("DROP SCHEMA public CASCADE; DROP SCHEMA _rapidbyte CASCADE")
				r.server.Exec(t, "postgres", "DROP TABLESPACE small_"+string(mode))
			})
			r.sql("ALTER DATABASE " + r.db + " SET default_tablespace = small_" + string(mode))

			ballast := filepath.Join(space, "ballast")
			require.NoError(t, os.WriteFile(ballast, bytes.Repeat([]byte{1}, 16<<20), 0o600))
			w := r.writer(mode, orders, 1)
			committed, next := int64(0), int64(1)
			text := strings.Repeat("x", 500)
			write := func(w connectors.Writer) error {
				var rows [][]any
				for i := range int64(2000) {
					rows = append(rows, []any{next + i, text})
				}
				if err := w.Write(t.Context(), r.batch(orders, rows...)); err != nil {
					return err
				}
				_, err := w.Commit(t.Context(), barrierAt(messages.BarrierPeriodic, next+1999, 2000))
				if err == nil {
					next += 2000
					committed = next - 1
				}
				return err
			}
			for err = nil; err == nil && next < 100_000; {
				err = write(w)
			}
			requireError(t, err, connectors.KindTransient, messages.CodeDestFull, "No space left on device")
			require.Positive(t, committed)
			require.NoError(t, w.Close(t.Context()))

			part := connectors.Part{ID: "orders", Load: messages.LoadID{Name: "orders", Number: 1}, Streams: []messages.StreamID{"orders"}}
			require.NoError(t, os.Remove(ballast))
			w, receipt, err := r.s.OpenWriter(t.Context(), part, messages.Token{Epoch: r.epoch, Attempt: 2})
			require.NoError(t, err)
			at, err := receipt.Position.At.Int64()
			require.NoError(t, err)
			require.Equal(t, committed, at)
			require.NoError(t, write(w))
			r.commit(w, messages.BarrierEnd, committed+1, 0)
			require.NoError(t, w.Close(t.Context()))
			require.NoError(t, r.s.Finish(t.Context(), part.Load))
			require.Len(t, r.rows("orders"), int(committed))
			require.Equal(t, [][]string{{"t"}}, r.server.Query(t, r.db, "SELECT count(*) = count(DISTINCT id) FROM orders"))
			require.NoError(t, r.s.Close(t.Context()))
		})
	}
}

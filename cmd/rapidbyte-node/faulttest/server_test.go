package faulttest

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors/postgres/pgtest"
	"rapidbyte.io/node/messages"
)

// terminated are the words of a server that ends sessions, or itself.
var terminated = append([]string{
	"terminating connection", "the database system is", "connection refused", "failed to receive message", "No server listens there",
}, lost...)

// Each session of a run is ended by an administrator while rows move: those that carry
// rows, that of the bookkeeping, and that which holds the snapshot.
func TestPGSessionsThatAreEnded(t *testing.T) {
	t.Parallel()
	whole := newRig(t)
	whole.fill("orders", 40_000)
	for _, mode := range modes {
		e := ends{mode: mode, tables: []string{"orders"}}
		for _, end := range []string{"source", "destination"} {
			sessions := 1
			for which := 0; which < sessions; which++ {
				t.Run(fmt.Sprintf("%s/%s/%d", mode, end, which), func(t *testing.T) {
					r := whole.afresh(t)
					server, db, reached, release := r.busy(end)
					s := r.runWith(r.document(e), nil, func() {
						reached()
						const ours = "FROM pg_stat_activity WHERE application_name LIKE 'rb:%' AND datname = current_database()"
						there := server.Query(t, db, "SELECT pid "+ours+" ORDER BY backend_start")
						require.Greater(t, len(there), which)
						server.Exec(t, db, "SELECT pg_terminate_backend("+there[which][0]+")")
						sessions = max(sessions, min(len(there), 3))
						release()
					})
					if which == 0 { // it has no rows to carry, and may not be asked for anything any more
						r.completed(s, e, 1)
					} else {
						r.completed(s, e, 1, terminated...)
					}
				})
			}
			require.GreaterOrEqual(t, sessions, 2)
		}
	}
}

// busy holds the proxy of one end while rows of the larger table pass it.
func (r *rig) busy(end string) (server *pgtest.Server, db string, reached, release func()) {
	r.t.Helper()
	if end == "destination" {
		reached, release = r.frozen(r.to, 2, rowsTo)
		return r.dest, r.dw, reached, release
	}
	reached, release = r.frozen(r.from, 5000, rowsFrom)
	return r.source, r.shop, reached, release
}

// A server that goes down while rows move, and comes back. The snapshot of the source is
// gone then: an append goes on from its receipts under a new one, a replace begins again.
func TestPGServersThatRestart(t *testing.T) {
	t.Parallel()
	source, dest := pgtest.Start(t, "fsync=off"), pgtest.Start(t, "fsync=off") // the machine stays up
	whole := newRigAt(t, source, dest)
	whole.fill("orders", 60_000)
	whole.fill("events", 3000)
	for i, how := range []string{"immediate", "kill -9"} {
		for j, end := range []string{"source", "destination"} {
			for k, mode := range modes {
				if (i+j+k)%2 == 1 {
					continue // every pair of two is there
				}
				t.Run(fmt.Sprintf("%s/%s/%s", how, end, mode), func(t *testing.T) {
					r := whole.afresh(t)
					e := ends{mode: mode, tables: []string{"orders", "events"}, resources: ", max_retries: 20"}
					server, _, reached, release := r.busy(end)
					s := r.runWith(r.document(e), nil, func() {
						reached()
						if how == "immediate" {
							server.Immediate(t)
						} else {
							server.Kill9(t)
						}
						release()
						server.Restart(t)
					})
					require.NotEmpty(t, s.causes())
					r.says(s.causes()[0], terminated...)
					r.completed(s, e, 1, append([]string{"join the snapshot"}, terminated...)...)
				})
			}
		}
	}
}

// A part that never gets through is given up with the first cause and the exit code of its
// side. What is committed stays, and the next run adds the rest.
func TestPGRetriesThatAreExhausted(t *testing.T) {
	t.Parallel()
	whole := newRig(t)
	whole.fill("orders", 6000)
	for _, c := range []struct {
		end  string
		code messages.Code
		exit int
		when func(pgtest.Message) bool
	}{
		{"source", messages.CodeSource, messages.ExitSource, rowsFrom},
		{"destination", messages.CodeDest, messages.ExitDestination, rowsTo},
	} {
		for _, mode := range modes {
			t.Run(c.end+"/"+mode, func(t *testing.T) {
				r := whole.afresh(t)
				e := ends{mode: mode, tables: []string{"orders"}, resources: ", max_retries: 2"}
				p := map[string]*pgtest.Proxy{"source": r.from, "destination": r.to}[c.end]
				first := true
				p.Judge(func(m pgtest.Message) pgtest.Fate {
					switch {
					case !c.when(m):
						return pgtest.Pass
					case first: // some rows get through
						first = false
						return pgtest.Pass
					}
					return pgtest.ResetAt(0)
				})
				s := r.run(r.document(e))
				require.Equal(t, messages.RunFailed, s.State)
				require.Equal(t, c.code, s.Failure.Code)
				require.Equal(t, c.exit, s.Failure.Code.Exit())
				require.Contains(t, s.Failure.Why, "reset by peer")
				require.NotEmpty(t, s.Failure.Next)
				require.Equal(t, messages.StreamID("orders"), s.Failure.Where.Stream)
				require.Equal(t, c.end, s.Failure.Where.Stage)
				require.GreaterOrEqual(t, s.retries(), 2)
				r.told(s, lost...)
				r.deserted()

				p.Judge(nil)
				again := r.run(r.document(e))
				require.Equal(t, s.RunID, again.RunID, "it is the same run that goes on")
				require.Empty(t, again.causes())
				r.completed(again, e, 1)
			})
		}
	}
}

package faulttest

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors/postgres/pgtest"
)

// lost are the words of a connection that was reset.
var lost = []string{"connection reset by peer", "broken pipe", "the server closed the connection", "unexpected EOF"}

var modes = []string{"append", "replace", "upsert"}

// Every COMMIT of a run at the destination is cut, before the server saw it and before
// the client heard of it: those of the take-over, of Begin, of OpenWriter, of rows with
// their receipt and of Finish.
func TestPGCommitsThatAreCut(t *testing.T) {
	t.Parallel()
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			e := ends{mode: mode, tables: []string{"orders"}}
			whole := newRig(t)
			whole.fill("orders", 6000)
			total := 0
			whole.to.Judge(func(m pgtest.Message) pgtest.Fate {
				if !m.FromServer && m.Says("COMMIT") {
					total++
				}
				return pgtest.Pass
			})
			whole.completed(whole.run(whole.document(e)), e, 1)
			require.GreaterOrEqual(t, total, 7)
			first := 1
			if mode != "append" {
				first = 4 // the take-over is the same in every mode
			}
			for n := first; n <= total; n++ {
				for _, committed := range []bool{false, true} {
					t.Run(fmt.Sprintf("%d of %d, committed %t", n, total, committed), func(t *testing.T) {
						r := whole.afresh(t)
						judge, met := once(n, pgtest.ResetAt(0), func(m pgtest.Message) bool { return m.FromServer == committed && m.Says("COMMIT") })
						r.to.Judge(judge)
						s := r.run(r.document(e))
						require.True(t, met())
						r.completed(s, e, 1, lost...)
					})
				}
			}
		})
	}
}

// A connection is reset at a random byte of a random message, in the middle of rows as a
// rule, at either end and in either direction.
func TestPGResetsAnywhere(t *testing.T) {
	t.Parallel()
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			e := ends{mode: mode, tables: []string{"orders", "events"}}
			whole := newRig(t)
			whole.fill("orders", 6000)
			whole.fill("events", 3000)
			for _, end := range []string{"source", "destination"} {
				for _, fromServer := range []bool{false, true} {
					for seed := range uint64(2) {
						t.Run(fmt.Sprintf("%s/from server %t/seed %d", end, fromServer, seed), func(t *testing.T) {
							r := whole.afresh(t)
							r.resetAnywhere(e, end, fromServer, seed)
						})
					}
				}
			}
		})
	}
}

func (r *rig) resetAnywhere(e ends, end string, fromServer bool, seed uint64) {
	r.t.Helper()
	random := rand.New(rand.NewPCG(seed, uint64(len(e.mode+end)))) //nolint:gosec // reproducible on purpose
	p := map[string]*pgtest.Proxy{"source": r.from, "destination": r.to}[end]
	rows := (end == "source") == fromServer // travel that way
	n, at := 1+random.IntN(40), random.Int64N(20)
	if rows {
		n, at = 1+random.IntN(3), random.Int64N(100)
	}
	judge, met := once(n, pgtest.ResetAt(at), func(m pgtest.Message) bool { return m.FromServer == fromServer && (!rows || m.Type == 'd') })
	p.Judge(judge)
	s := r.run(r.document(e))
	require.True(r.t, met())
	r.completed(s, e, 1, lost...)
	if rows {
		require.Positive(r.t, s.retries(), "while rows are on their way the task alone is tried again")
	}
}

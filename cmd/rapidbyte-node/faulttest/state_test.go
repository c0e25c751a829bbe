package faulttest

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors/postgres/pgtest"
)

// stateRig is a rig whose state store is a database behind a proxy of its own.
type stateRig struct {
	*rig
	state *pgtest.Proxy
}

func newStateRig(t *testing.T) stateRig {
	t.Helper()
	s := stateRig{newRig(t), pgtest.NewProxy(t, pgtest.Shared(t).Port())}
	s.fill("orders", 6000)
	return s
}

// ends has a database of its own for the state.
func (s stateRig) ends(t *testing.T, mode string) ends {
	t.Helper()
	url := fmt.Sprintf("postgres://%s@127.0.0.1:%d/%s?sslmode=disable", s.dest.User(), s.state.Port(), s.dest.Database(t))
	return ends{mode: mode, tables: []string{"orders"}, state: url}
}

// Every COMMIT at the state store is cut, from the planning of the source on, before the
// server saw it and before the client heard of it. The destination is the authority, and
// what the store has is found out: no task notices.
func TestPGCommitsOfTheStateThatAreCut(t *testing.T) {
	t.Parallel()
	whole := newStateRig(t)
	for _, committed := range []bool{false, true} {
		started, total := 0, 0
		is := commits(committed)
		var mu sync.Mutex // two proxies count
		whole.state.Judge(func(m pgtest.Message) pgtest.Fate {
			mu.Lock()
			defer mu.Unlock()
			if is(m) {
				total++
			}
			return pgtest.Pass
		})
		whole.from.Judge(func(m pgtest.Message) pgtest.Fate {
			mu.Lock()
			defer mu.Unlock()
			if started == 0 && m.Type == 'Q' {
				started = total
			}
			return pgtest.Pass
		})
		e := whole.ends(t, "append")
		whole.completed(whole.run(whole.document(e)), e, 1)
		require.Greater(t, total, started+2)
		whole.rig = whole.afresh(t)
		for n := started + 1; n <= total; n++ {
			t.Run(fmt.Sprintf("%d of %d, committed %t", n, total, committed), func(t *testing.T) {
				r := whole.afresh(t)
				e := whole.ends(t, "append")
				judge, met := once(n, pgtest.ResetAt(0), commits(committed))
				whole.state.Judge(judge)
				s := r.run(r.document(e))
				require.True(t, met())
				r.completed(s, e, 1)
				require.Zero(t, s.retries(), "rows have nothing to do with it")
			})
		}
		whole.rig = whole.afresh(t)
	}
}

// commits finds COMMIT among the statements of clients, which prepare it, or among the
// answers of the server.
func commits(fromServer bool) func(pgtest.Message) bool {
	if fromServer {
		return func(m pgtest.Message) bool { return m.FromServer && m.Says("COMMIT") }
	}
	type statement struct {
		link int
		name string
	}
	prepared := map[statement]bool{}
	return func(m pgtest.Message) bool {
		if m.FromServer || m.Says("COMMIT") {
			return !m.FromServer
		}
		words := bytes.SplitN(m.Body, []byte{0}, 3)
		switch m.Type {
		case 'P': // name, text
			prepared[statement{m.Link, string(words[0])}] = string(words[1]) == "COMMIT"
		case 'B': // portal, name
			return prepared[statement{m.Link, string(words[1])}]
		}
		return false
	}
}

// A state store that does not answer any more is noticed by the limit of a call, and the
// same is saved again.
func TestPGHalfOpenStateStore(t *testing.T) {
	t.Parallel()
	whole := newStateRig(t)
	e := whole.ends(t, "append")
	judge, met := once(8, pgtest.Silence, commits(true))
	whole.state.Judge(judge)
	s := whole.run(whole.document(e))
	require.True(t, met())
	require.Less(t, s.Elapsed, 30*time.Second)
	whole.completed(s, e, 1)
	require.Zero(t, s.retries())
}

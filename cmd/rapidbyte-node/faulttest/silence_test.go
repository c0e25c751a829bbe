package faulttest

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors/postgres/pgtest"
)

// A connection that is half open says nothing and reports nothing. It is noticed, its
// session ended, and what used it tried again: rows from the source, rows to the
// destination, a COMMIT either way, and what is between tasks.
func TestPGHalfOpenConnections(t *testing.T) {
	t.Parallel()
	const soon = "connect_timeout: 2s" // by which the patience with a silent server goes
	for _, c := range []struct {
		name string
		end  string
		n    int
		when func(pgtest.Message) bool
	}{
		{"rows from the source", "source", 3000, rowsFrom},
		{"a statement to the source", "source", 12, func(m pgtest.Message) bool { return m.Type == 'Q' }},
		{"rows to the destination", "destination", 2, rowsTo},
		{"a commit", "destination", 6, func(m pgtest.Message) bool { return !m.FromServer && m.Says("COMMIT") }},
		{"the reply to a commit", "destination", 6, func(m pgtest.Message) bool { return m.FromServer && m.Says("COMMIT") }},
		{"the take-over", "destination", 2, func(m pgtest.Message) bool { return !m.FromServer && m.Says("COMMIT") }},
	} {
		for name, fate := range map[string]pgtest.Fate{"swallowed": pgtest.Silence, "unacknowledged": pgtest.Deaf} {
			for i, mode := range modes {
				if (i+c.n+len(name))%3 != 0 {
					continue // each has one mode
				}
				t.Run(fmt.Sprintf("%s/%s/%s", c.name, name, mode), func(t *testing.T) {
					t.Parallel()
					r := newRig(t)
					r.fill("orders", 20_000)
					e := ends{mode: mode, tables: []string{"orders"}, source: ", " + soon, dest: ", " + soon}
					judge, met := once(c.n, fate, c.when)
					map[string]*pgtest.Proxy{"source": r.from, "destination": r.to}[c.end].Judge(judge)
					begun := time.Now()
					s := r.run(r.document(e))
					require.True(t, met())
					require.Less(t, time.Since(begun), 30*time.Second)
					r.completed(s, e, 1, "nothing has moved for")
				})
			}
		}
	}
}

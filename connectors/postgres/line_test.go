package postgres

import (
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/pgtest"
	"rapidbyte.io/node/messages"
)

// What ended a control connection is told, whichever statement met it: pgx alone says
// "conn closed".
func TestPGControlConnectionThatIsLostSaysWhy(t *testing.T) {
	p := pgtest.NewProxy(t, pgtest.Shared(t).Port()) // before the rig: it outlives its connections
	r := newRig(t, connectors.WritePolicy{}, nil)
	r.dest = newDestination(t, r.server, r.db, connectors.WritePolicy{NewColumn: connectors.ColumnAdd}, func(cfg *DestinationConfig) {
		cfg.Host, cfg.Port = "127.0.0.1", p.Port()
	})
	number := uint64(1)
	for _, fromServer := range []bool{false, true} {
		for _, text := range []string{"begin", "commit"} {
			if r.s == nil {
				r.next()
			}
			done := false
			p.Judge(func(m pgtest.Message) pgtest.Fate {
				if done || m.FromServer != fromServer || !m.Says(text) {
					return pgtest.Pass
				}
				done = true
				return pgtest.ResetAt(0)
			})
			err := r.s.Begin(t.Context(), loadOf(connectors.ModeAppend, number, orders, "orders"))
			requireError(t, err, connectors.KindTransient, messages.CodeDest, "the connection to the server is lost: read:", "reset by peer")
			require.NotContains(t, err.Error(), "conn closed")
			number++
			require.NoError(t, r.s.Begin(t.Context(), loadOf(connectors.ModeAppend, number, orders, "orders")), "the next call has a new connection")
			number++
		}
	}
}

package postgres

import (
	"testing"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/connectors/postgres/pgtest"
)

// shows are the types that come back as another one on purpose.
var shows = map[string][]string{
	"struct": {`1|{"a":1,"b":"x"}<nil>`, `2|{"a":null,"b":"y"}<nil>`, `3|\N`},
	"map":    {`1|{"a":1}<nil>`, `2|\N`},
}

func TestPGDestinationConformance(t *testing.T) {
	for _, c := range []struct {
		name   string
		policy connectors.WritePolicy
		change func(*DestinationConfig)
	}{
		{"copy", connectors.WritePolicy{NewColumn: connectors.ColumnAdd}, nil},
		{"insert", connectors.WritePolicy{NewColumn: connectors.ColumnAdd}, func(c *DestinationConfig) { c.LoadMethod = LoadInsert }},
		{"dead letters and metadata", connectors.WritePolicy{OnDataError: connectors.DataDLQ, Metadata: true, NewColumn: connectors.ColumnAdd}, nil},
		{"mvcc", connectors.WritePolicy{NewColumn: connectors.ColumnAdd}, func(c *DestinationConfig) { c.Swap = SwapMVCC }},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := pgtest.Shared(t)
			conntest.Destination(t, conntest.DestinationFactory{
				Modes:   []connectors.WriteMode{connectors.ModeAppend, connectors.ModeReplace, connectors.ModeUpsert},
				Refuses: []string{"timestamp_ns", "time64_ns"},
				Shows:   shows,
				New: func(ct conntest.T) conntest.Target {
					db := server.Database(t)
					return conntest.Target{
						Destination: newDestination(ct, server, db, c.policy, c.change),
						Reopen: func(ct conntest.T) connectors.Destination {
							return newDestination(ct, server, db, c.policy, c.change)
						},
						Rows: func(ct conntest.T, target string) []string { return tableRows(ct, server, db, "public", target) },
					}
				},
			})
		})
	}
}

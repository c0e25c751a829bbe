package postgres_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors/postgres/pgtest"
	"rapidbyte.io/node/statestore"
	"rapidbyte.io/node/statestore/postgres"
	"rapidbyte.io/node/statestore/storetest"
)

func TestPGStoreConforms(t *testing.T) {
	server := pgtest.Shared(t)
	storetest.Run(t, func(t *testing.T) func() (statestore.Store, error) {
		url := server.URL(server.Database(t))
		return func() (statestore.Store, error) { return postgres.Open(t.Context(), postgres.Config{URL: url}) }
	})
}

func TestPGHistoryConforms(t *testing.T) {
	server := pgtest.Shared(t)
	storetest.RunClock(t, func(t *testing.T, now func() time.Time) func() (statestore.Store, error) {
		url := server.URL(server.Database(t))
		return func() (statestore.Store, error) {
			s, err := postgres.Open(t.Context(), postgres.Config{URL: url})
			if err == nil {
				s.Clock(now)
			}
			return s, err
		}
	})
}

func open(t *testing.T, c postgres.Config) *postgres.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), c)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

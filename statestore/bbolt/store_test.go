package bbolt_test

import (
	"path/filepath"
	"testing"

	"rapidbyte.io/node/statestore"
	"rapidbyte.io/node/statestore/bbolt"
	"rapidbyte.io/node/statestore/storetest"
)

func TestStoreConforms(t *testing.T) {
	storetest.Run(t, func(t *testing.T) func() (statestore.Store, error) {
		path := filepath.Join(t.TempDir(), "below", "state.db")
		return func() (statestore.Store, error) { return bbolt.Open(t.Context(), bbolt.Config{Path: path}) }
	})
}

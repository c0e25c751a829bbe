package postgres

import (
	"context"
	"time"
)

// Clock tells the store the time of its checkpoints, instead of the server.
func (s *Store) Clock(now func() time.Time) { s.clock = now }

// Setting returns a setting of a session of the store.
func (s *Store) Setting(ctx context.Context, name string) (value string, err error) {
	err = s.pool.QueryRow(ctx, "SELECT current_setting($1)", name).Scan(&value)
	return value, err
}

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

// Sleep does to the leases what d of sleep of the machine does: timers have not noticed.
func (s *Store) Sleep(d time.Duration) {
	s.leases.mu.Lock()
	defer s.leases.mu.Unlock()
	awake := s.leases.clock
	s.leases.clock = func() time.Duration { return awake() + d }
}

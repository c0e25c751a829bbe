package postgres

import "time"

// Clock tells the store the time of its checkpoints, instead of the server.
func (s *Store) Clock(now func() time.Time) { s.clock = now }

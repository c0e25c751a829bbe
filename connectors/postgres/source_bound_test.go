package postgres

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// The greatest cursor is that of the column's own order, not that of its text.
func TestPGUpperBoundFollowsTheOrderOfTheColumn(t *testing.T) {
	o := newOrigin(t, `CREATE TYPE level AS ENUM ('low', 'high', 'extreme');
		CREATE TABLE numbers (n int8 PRIMARY KEY, d numeric, f float8, e level, least timestamptz);
		INSERT INTO numbers VALUES (9, 9, -9, 'low', '2024-01-01'), (10, 10, -10, 'high', '2024-01-02'), (1000, 1000, 1000, 'extreme', '2024-01-03')`, nil)
	for _, cursor := range []string{"n", "d", "f", "e", "least"} {
		t.Run(cursor, func(t *testing.T) {
			spec := following("numbers", cursor)
			spec.TieBreaker = "n"
			require.Len(t, o.all(o.scan(spec))["numbers"], 3)
		})
		clear(o.at)
	}
}

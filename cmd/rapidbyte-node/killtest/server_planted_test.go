package killtest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors/postgres/pgtest"
)

// finishedBetweenServers returns a campaign whose first generation was loaded without a
// kill, and what brings its targets back.
func finishedBetweenServers(t *testing.T, s scenario) (c *campaign, sound func()) {
	t.Helper()
	binary, err := program()
	require.NoError(t, err)
	c = newServerCampaignIn(t, s, 1, binary, t.TempDir(), pgtest.Start(t, "fsync=off"))
	c.provide()
	require.False(t, c.start(nil).killed)
	require.NoError(t, c.judge())
	c.requireTidy()
	exec := func(sql string) { c.ends.server.Exec(t, c.ends.to, sql) }
	exec("CREATE SCHEMA kept")
	for _, st := range s.streams {
		exec("CREATE TABLE kept." + st.name + " AS TABLE public." + st.name)
	}
	return c, func() {
		for _, st := range s.streams {
			exec(fmt.Sprintf("TRUNCATE %s; INSERT INTO %[1]s TABLE kept.%[1]s", st.name))
		}
	}
}

func TestPGKillCheckFindsDamage(t *testing.T) {
	c, sound := finishedBetweenServers(t, scenario{to: "postgres", server: true, streams: []stream{
		{name: "u", mode: upserts, rows: 600},
		{name: "a", mode: appends, rows: 600},
		{name: "r", mode: replaces, rows: 600},
	}})
	c.settle()
	exec := func(sql string) { c.ends.server.Exec(t, c.ends.to, sql) }
	for _, damage := range []struct{ name, sql, targets, want string }{
		{"a row is gone", "DELETE FROM %s WHERE ctid = (SELECT min(ctid) FROM %[1]s)", "aur", "1 rows missing"},
		{"a row is there twice", "INSERT INTO %s SELECT * FROM %[1]s WHERE ctid = (SELECT min(ctid) FROM %[1]s)", "ar", "1 rows doubled"},
		{"a value is another", "UPDATE %s SET qty = qty + 1 WHERE ctid = (SELECT min(ctid) FROM %[1]s)", "aur", "1 rows changed"},
		{"a value is NULL", "UPDATE %s SET flag = NULL WHERE ctid = (SELECT min(ctid) FROM %[1]s WHERE flag)", "aur", "1 rows changed"},
		{"a key is another", "UPDATE %s SET id = -1 WHERE ctid = (SELECT min(ctid) FROM %[1]s)", "aur", "1 rows missing"},
		{"all rows are gone", "TRUNCATE %s", "aur", "rows missing"},
	} {
		for target := range strings.SplitSeq(damage.targets, "") {
			t.Run(damage.name+" in "+target, func(t *testing.T) {
				sound()
				require.NoError(t, c.judge())
				exec(fmt.Sprintf(damage.sql, target))
				require.ErrorContains(t, c.judge(), damage.want)
				d := c.found()
				load := d.loads[target].number
				require.Error(t, c.oracles[target].during(d.rows[target], load, applied(d, target, load)), "the check after a kill finds it too")
			})
		}
	}
	sound()
	t.Run("a unique index hides rows", func(t *testing.T) {
		exec("CREATE TABLE other AS TABLE a; TRUNCATE a; CREATE UNIQUE INDEX hides ON a (id)")
		require.ErrorContains(t, c.judge(), "unique in a target of append")
		require.ErrorContains(t, c.to.tidy(t.Context()), "left behind: other")
	})
}

func TestPGKillCheckFindsSessionsThatAreLeft(t *testing.T) {
	e := newEnds(t, pgtest.Start(t, "fsync=off"))
	require.NoError(t, e.alone(t.Context()))
	for _, db := range []string{e.from, e.to} {
		zombie := connected(t, e.server, db)
		_, err := zombie.Exec(t.Context(), "SET application_name = 'rb:0123abcd:e:7'")
		require.NoError(t, err)
		left, err := e.sessions(t.Context(), 7)
		require.NoError(t, err)
		require.Empty(t, left, "of the owner")
		left, err = e.sessions(t.Context(), 8)
		require.NoError(t, err)
		require.Len(t, left, 1)
		require.NoError(t, zombie.Close(t.Context()))
		require.NoError(t, e.alone(t.Context()))
	}
}

func TestKillCheckKnowsWhatReadersMaySee(t *testing.T) {
	v := &versions{generation: 3, of: map[string]int{"a one": 1, "a two": 2, "a three": 3}}
	for _, c := range []struct {
		digest string
		since  int
		whole  bool
	}{{"three", 3, true}, {"two", 3, true}, {"one", 3, false}, {"one", 2, true}, {"half", 3, false}} {
		_, err := v.version("a", c.digest, c.since)
		require.Equal(t, c.whole, err == nil, "%v", c)
	}
}

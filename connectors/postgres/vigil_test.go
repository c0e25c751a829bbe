package postgres

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/pgtest"
)

// A look at the server, a connection to it and a second look take no longer than this.
func TestSilenceIsNoticedWithinHalfAMinute(t *testing.T) {
	d := dialerOf(t, Connection{Host: "h", User: "u", Database: "d"}, connectors.StageDestination)
	require.Equal(t, defaultConnectTimeout, d.patience())
	require.LessOrEqual(t, 3*d.patience(), 30*time.Second)
	for timeout, want := range map[time.Duration]time.Duration{
		time.Millisecond: patienceLeast, 3 * time.Second: 3 * time.Second, time.Hour: patienceMost,
	} {
		require.Equal(t, want, dialerOf(t, Connection{Host: "h", User: "u", Database: "d", ConnectTimeout: timeout}, connectors.StageSource).patience())
	}
	forever := dialerOf(t, dsnOf("host=h user=u dbname=d connect_timeout=0"), connectors.StageSource)
	require.Zero(t, forever.connectTimeout)
	require.Equal(t, patienceMost, forever.patience())
}

// A server that is at work, or that waits for a lock, says nothing for long and is alive;
// one that waits for its client, while the client waits for it, is not reached any more.
func TestPGSilentServersAreAsked(t *testing.T) {
	s := pgtest.Shared(t)
	db := s.Database(t)
	s.Exec(t, db, "CREATE TABLE t (x int)")
	p := pgtest.NewProxy(t, s.Port())
	c := Connection{Host: "127.0.0.1", Port: p.Port(), User: s.User(), Database: db, ConnectTimeout: patienceLeast, SSLMode: "disable"}
	d := dialerOf(t, c, connectors.StageDestination)

	t.Run("at work", func(t *testing.T) {
		t.Parallel()
		conn, err := d.control(t.Context())
		require.NoError(t, err)
		defer closeConn(conn)
		require.NoError(t, d.tend(conn, func() error {
			_, err := conn.Exec(t.Context(), "SELECT pg_sleep(6)")
			return err
		}))
	})
	t.Run("waiting for a lock", func(t *testing.T) {
		t.Parallel()
		holder, err := pgx.Connect(t.Context(), s.URL(db))
		require.NoError(t, err)
		defer closeConn(holder)
		_, err = holder.Exec(t.Context(), "BEGIN; LOCK TABLE t")
		require.NoError(t, err)
		conn, err := d.data(t.Context())
		require.NoError(t, err)
		v := d.attendData(conn)
		free := time.AfterFunc(3*patienceLeast, func() { closeConn(holder) })
		defer free.Stop()
		_, err = conn.Exec(t.Context(), "SELECT FROM t")
		require.NoError(t, v.stop(err))
		require.NoError(t, conn.Close())
	})
	for name, fate := range map[string]pgtest.Fate{"bytes that go nowhere": pgtest.Silence, "bytes that nobody acknowledges": pgtest.Deaf} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := pgtest.NewProxy(t, s.Port())
			c := c
			c.Port = p.Port()
			d := dialerOf(t, c, connectors.StageDestination).named("rb:" + name)
			conn, err := d.data(t.Context())
			require.NoError(t, err)
			p.Judge(func(m pgtest.Message) pgtest.Fate {
				if m.Link == 1 && m.Says("SELECT 1") {
					return fate
				}
				return pgtest.Pass
			})
			begun := time.Now()
			v := d.attendData(conn)
			_, err = conn.Exec(t.Context(), "SELECT 1")
			err = classify(t.Context(), connectors.StageDestination, "ask", v.stop(err))
			e := coded(t, err)
			require.Equal(t, connectors.KindTransient, e.Kind)
			require.Contains(t, err.Error(), "waits for this side")
			require.Less(t, time.Since(begun), 3*patienceLeast+5*time.Second)
			require.NoError(t, conn.Close())
			require.Eventually(t, func() bool {
				return s.Query(t, db, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'rb:"+name+"'")[0][0] == "0"
			}, 10*time.Second, 10*time.Millisecond, "its session is ended: it would keep its locks")
		})
	}
	t.Run("nobody is there any more", func(t *testing.T) {
		t.Parallel()
		p := pgtest.NewProxy(t, s.Port())
		c := c
		c.Port = p.Port()
		d := dialerOf(t, c, connectors.StageSource)
		conn, err := d.control(t.Context())
		require.NoError(t, err)
		p.Judge(func(pgtest.Message) pgtest.Fate { return pgtest.Silence })
		begun := time.Now()
		err = d.tend(conn, func() error {
			_, err := conn.Exec(t.Context(), "SELECT 1")
			return err
		})
		require.ErrorContains(t, err, "a second connection is not to be had")
		require.Less(t, time.Since(begun), 3*patienceLeast+5*time.Second)
		closeConn(conn)
	})
}

// A look at the receipts waits no longer for a server than anything else does.
func TestPGASurveyOfASilentServerEnds(t *testing.T) {
	s := pgtest.Shared(t)
	db := s.Database(t)
	p := pgtest.NewProxy(t, s.Port())
	d := newDestination(t, s, db, connectors.WritePolicy{}, func(c *DestinationConfig) {
		c.Host, c.Port, c.ConnectTimeout, c.SSLMode = "127.0.0.1", p.Port(), patienceLeast, "disable"
	})
	p.Judge(func(m pgtest.Message) pgtest.Fate {
		if m.Says("begin isolation level repeatable read read only") {
			return pgtest.Silence
		}
		return pgtest.Pass
	})
	ctx, cancel := context.WithTimeout(t.Context(), 3*patienceLeast+15*time.Second)
	defer cancel()
	_, err := d.Survey(ctx, "p")
	require.NoError(t, ctx.Err(), "nobody has noticed")
	e := coded(t, err)
	require.Equal(t, connectors.KindTransient, e.Kind)
	require.Contains(t, err.Error(), "nothing has moved for")
}

// Another server behind the address says nothing about the session that is watched.
func TestPGAnotherServerIsNoWitness(t *testing.T) {
	s := pgtest.Shared(t)
	d := dialerOf(t, Connection{Host: s.Host(), Port: s.Port(), User: s.User(), Database: s.Database(t)}, connectors.StageSource)
	conn, err := d.control(t.Context())
	require.NoError(t, err)
	defer closeConn(conn)
	who := lineOf(conn).who
	require.Positive(t, who.PID)
	for _, c := range []struct {
		change func()
		gone   bool
		waits  bool
	}{
		{func() {}, false, false}, // it is at work: it answers
		{func() { who.Began = "2000-01-01" }, true, false},
		{func() { who.Server = "2000-01-01" }, false, false},
	} {
		c.change()
		v := &vigil{dial: d, who: who}
		gone, state, err := v.inspect(t.Context(), conn)
		require.NoError(t, err)
		require.Equal(t, c.gone, gone)
		require.Equal(t, c.waits, state != "")
	}
	other, err := d.control(t.Context())
	require.NoError(t, err)
	defer closeConn(other)
	require.Eventually(t, func() bool { // it says so a moment after its last answer
		_, state, err := (&vigil{dial: d, who: lineOf(other).who}).inspect(t.Context(), conn)
		return err == nil && strings.Contains(state, "idle ClientRead")
	}, 20*time.Second, 10*time.Millisecond)
}

// The server notices too that its client is gone: no lock outlives that for long.
func TestPGServersLookAfterTheirClients(t *testing.T) {
	s := pgtest.Shared(t)
	d := dialerOf(t, Connection{Host: "127.0.0.1", Port: s.Port(), User: s.User(), Database: s.Database(t)}, connectors.StageDestination)
	conn, err := d.data(t.Context())
	require.NoError(t, err)
	var got []string
	for _, name := range []string{"idle", "interval", "count"} {
		results, err := conn.Exec(t.Context(), "SHOW tcp_keepalives_"+name)
		require.NoError(t, err)
		got = append(got, string(results[0].Rows[0][0]))
	}
	require.NoError(t, conn.Close())
	require.Equal(t, []string{"15", "5", "3"}, got)
}

package wire

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors/postgres/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// waitMax is how long a test waits for what happens elsewhere.
const waitMax = 60 * time.Second

// way is how a test reaches its server.
type way string

const (
	overTCP  way = "tcp"
	overUnix way = "unix"
)

func config(t testing.TB, s *pgtest.Server, db string, over way) *pgconn.Config {
	t.Helper()
	host := "127.0.0.1"
	if over == overUnix {
		host = s.Host()
	}
	cfg, err := pgconn.ParseConfig(fmt.Sprintf("host=%s port=%d user=%s dbname=%s sslmode=disable", host, s.Port(), s.User(), db))
	require.NoError(t, err)
	return cfg
}

func dial(t testing.TB, s *pgtest.Server, db string, over way) *Conn {
	t.Helper()
	c, err := Connect(t.Context(), config(t, s, db, over))
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// fresh is a connection to an empty database of the shared server.
func fresh(t testing.TB) (*pgtest.Server, string, *Conn) {
	t.Helper()
	s := pgtest.Shared(t)
	db := s.Database(t)
	return s, db, dial(t, s, db, overUnix)
}

func exec(t testing.TB, c *Conn, sql string) []Result {
	t.Helper()
	results, err := c.Exec(t.Context(), sql)
	require.NoError(t, err)
	return results
}

// one returns the only value of a query.
func one(t testing.TB, c *Conn, sql string) string {
	t.Helper()
	results := exec(t, c, sql)
	last := results[len(results)-1]
	require.Len(t, last.Rows, 1)
	return string(last.Rows[0][0])
}

// refusedWith requires that err is a refusal of the server with this SQLSTATE.
func refusedWith(t testing.TB, err error, code string) *pgconn.PgError {
	t.Helper()
	var e *pgconn.PgError
	require.ErrorAs(t, err, &e)
	require.Equal(t, code, e.Code, "%v", err)
	return e
}

// busy waits until the server says of process pid what a condition on
// pg_stat_activity wants.
func busy(t testing.TB, s *pgtest.Server, pid uint32, condition string) {
	t.Helper()
	require.Eventually(t, func() bool {
		return len(s.Query(t, "postgres", fmt.Sprintf("SELECT 1 FROM pg_stat_activity WHERE pid = %d AND %s", pid, condition))) == 1
	}, waitMax, 10*time.Millisecond, condition)
}

// gone waits until process pid of the server has ended.
func gone(t testing.TB, s *pgtest.Server, pid uint32) {
	t.Helper()
	require.Eventually(t, func() bool {
		return len(s.Query(t, "postgres", fmt.Sprintf("SELECT 1 FROM pg_stat_activity WHERE pid = %d", pid))) == 0
	}, waitMax, 10*time.Millisecond)
}

// scripted is a connection to a server that does what serve says. serve ends when
// the connection is closed.
func scripted(t testing.TB, serve func(conn net.Conn)) *Conn {
	t.Helper()
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		serve(server)
	}()
	c := newConn(client)
	t.Cleanup(func() {
		_ = c.Close()
		_ = server.Close()
		<-done
	})
	return c
}

// soon is a context that the test fails to wait longer for.
func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), waitMax)
	t.Cleanup(cancel)
	return ctx
}

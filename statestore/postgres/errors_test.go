package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors/postgres/pgtest"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
	"rapidbyte.io/node/statestore/postgres"
)

const canary = "s3cr3t/canary"

// as returns the URL of a database for a role with the canary as its password.
func (p place) as(role string) string {
	u, err := url.Parse(p.URL(p.db))
	if err != nil {
		panic(err)
	}
	u.User = url.UserPassword(role, canary)
	return u.String()
}

func sqlState(t *testing.T, err error) string {
	t.Helper()
	e, ok := errors.AsType[*pgconn.PgError](err)
	require.True(t, ok, "%v", err)
	require.ErrorContains(t, err, "SQLSTATE "+e.Code)
	return e.Code
}

func TestNoErrorShowsThePassword(t *testing.T) {
	for _, text := range []string{
		"postgres://u:" + canary + "@h/db", // the slash ends the host
		"postgres://u:s3cr3t#canary@h/db",  // the rest is a fragment
		"postgres://u:s3cr3t?canary@h/db",
		"postgres://u:s3cr3t%zzcanary@h/db",
		"postgres://u:s3cr3t canary@h:x/db",
		"postgres://u:s3cr3tcanary@h:99999999/db",
		"postgres://u:s3cr3tcanary@h/db?sslmode=s3cr3tcanary",
		"postgres://u:s3cr3tcanary@h/db?sslrootcert=/s3cr3tcanary.crt",
		"postgres://u:s3cr3tcanary@h/db?connect_timeout=s3cr3tcanary",
		"host=h password=s3cr3tcanary", "s3cr3tcanary", "postgres://:s3cr3tcanary@", "",
	} {
		for _, err := range []error{
			func() error { _, err := postgres.Open(t.Context(), postgres.Config{URL: text}); return err }(),
			postgres.Migrate(t.Context(), text, postgres.Version), postgres.Probe(t.Context(), text),
		} {
			require.ErrorIs(t, err, statestore.ErrAddress, text)
			require.Equal(t, messages.CodeDocValue, statestore.CodeOf(err), "it is the user's to correct, and no bug")
			for _, secret := range []string{"s3cr3t", "canary"} {
				require.NotContains(t, err.Error(), secret)
			}
		}
	}
}

func TestPGLoginErrorsSayWhatToDo(t *testing.T) {
	server := pgtest.Start(t, "fsync=off")
	p := place{server, "postgres"}
	server.Exec(t, "postgres", "CREATE ROLE app LOGIN PASSWORD 'another'")
	_, err := postgres.Open(t.Context(), postgres.Config{URL: strings.Replace(p.as("app"), "/postgres", "/nothere", 1)})
	require.Equal(t, "3D000", sqlState(t, err))
	require.ErrorContains(t, err, `CREATE DATABASE "nothere"`)
	require.NotContains(t, err.Error(), "\n")
	server.File(t, "pg_hba.conf", "local all all trust\nhost all "+server.User()+" all trust\nhost all app all scram-sha-256\n")
	server.Exec(t, "postgres", "SELECT pg_reload_conf()")
	until(t, "the server asks for passwords", func() bool {
		_, err = postgres.Open(t.Context(), postgres.Config{URL: p.as("app")})
		return err != nil && sqlState(t, err) == "28P01"
	})
	require.Equal(t, messages.CodeState, statestore.CodeOf(err))
	require.ErrorContains(t, err, fmt.Sprintf("open state store in 127.0.0.1:%d/postgres: ", server.Port()))
	require.ErrorContains(t, err, "correct user and password")
	require.NotContains(t, err.Error(), "s3cr3t")
}

func TestPGMissingRightsAreNamed(t *testing.T) {
	p := newPlace(t)
	role := p.db + "_role"
	p.exec(t, "CREATE ROLE "+role+" LOGIN PASSWORD '"+canary+"'")
	t.Cleanup(func() { p.exec(t, "DROP OWNED BY "+role+"; DROP ROLE "+role) })
	c := postgres.Config{URL: p.as(role)}
	refused := func(err error, grant string) {
		t.Helper()
		require.Equal(t, "42501", sqlState(t, err))
		require.ErrorContains(t, err, grant)
		require.NotContains(t, err.Error(), "s3cr3t")
	}
	_, err := postgres.Open(t.Context(), c)
	refused(err, fmt.Sprintf(`GRANT CREATE ON DATABASE %q TO %q`, p.db, role))
	probed := func(url, grant string) {
		t.Helper()
		err := postgres.Probe(t.Context(), url)
		require.ErrorContains(t, err, grant)
		require.ErrorContains(t, err, "look at the state store in 127.0.0.1:")
		require.NotContains(t, err.Error(), "s3cr3t")
	}
	probed(c.URL, fmt.Sprintf(`GRANT CREATE ON DATABASE %q TO %q`, p.db, role))

	p.exec(t, "CREATE SCHEMA _rapidbyte_state")
	_, err = postgres.Open(t.Context(), c)
	refused(err, fmt.Sprintf(`GRANT USAGE, CREATE ON SCHEMA "_rapidbyte_state" TO %q`, role))
	p.exec(t, "GRANT USAGE, CREATE ON SCHEMA _rapidbyte_state TO "+role)
	require.NoError(t, postgres.Probe(t.Context(), c.URL))
	require.Equal(t, "0", p.one(t, "SELECT count(*) FROM pg_class WHERE relnamespace = '_rapidbyte_state'::regnamespace"), "it changes nothing")
	owner := open(t, c)
	acquire(t, owner, "a")
	require.NoError(t, owner.Close())

	// Another role, with the rights that the message asks for and no more.
	other := p.db + "_other"
	p.exec(t, "CREATE ROLE "+other+" LOGIN PASSWORD '"+canary+"'")
	t.Cleanup(func() { p.exec(t, "DROP OWNED BY "+other+"; DROP ROLE "+other) })
	c.URL = p.as(other)
	_, err = postgres.Open(t.Context(), c)
	refused(err, "GRANT USAGE, CREATE ON SCHEMA")
	p.exec(t, "GRANT USAGE ON SCHEMA _rapidbyte_state TO "+other+"; GRANT SELECT ON ALL TABLES IN SCHEMA _rapidbyte_state TO "+other)
	probed(c.URL, "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES")
	reader := open(t, c)
	_, err = reader.Acquire(t.Context(), "a", statestore.Claim{})
	refused(err, fmt.Sprintf(`GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "_rapidbyte_state" TO %q`, other))
	require.ErrorContains(t, err, "acquire epoch of pipeline a in")
	p.exec(t, "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA _rapidbyte_state TO "+other)
	require.NoError(t, postgres.Probe(t.Context(), c.URL))
	require.EqualValues(t, 2, acquire(t, reader, "a"))
	require.NoError(t, reader.Save(t.Context(), "a", 2, commitOf(messages.Version{Load: 1, Commit: 1}, 2)))
}

// Whatever a role has as its defaults, a commit is on disk when it returns.
func TestPGDefaultsOfTheRoleDoNotMatter(t *testing.T) {
	p := newPlace(t)
	var sql strings.Builder
	for _, s := range []string{
		"synchronous_commit = off", "default_transaction_read_only = on", "default_transaction_isolation = 'repeatable read'", "search_path = ''",
		"statement_timeout = '9s'", "lock_timeout = '9s'", "DateStyle = 'German'", "bytea_output = 'escape'", "TimeZone = 'Asia/Kathmandu'",
	} {
		sql.WriteString("ALTER DATABASE " + p.db + " SET " + s + ";")
	}
	p.exec(t, sql.String())
	s, e := filled(t, p.config(), "a")
	require.NoError(t, s.Save(t.Context(), "a", e, commitOf(messages.Version{Load: 1, Commit: 8}, e)))
	require.Len(t, load(t, s, "a").Receipts, 10)
	rows := p.Query(t, "postgres", "SELECT DISTINCT application_name FROM pg_stat_activity WHERE datname = '"+p.db+"'")
	require.Equal(t, [][]string{{"rb:state"}}, rows)
	for name, want := range map[string]string{
		"synchronous_commit": "on", "statement_timeout": "15s", "lock_timeout": "8s", "tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "2", "tcp_user_timeout": "20000",
	} {
		got, err := s.Setting(t.Context(), name)
		require.NoError(t, err)
		require.Equal(t, want, got, name)
	}
}

func TestPGAReadOnlyServerIsRefusedByName(t *testing.T) {
	server := pgtest.Start(t, "fsync=off")
	p := place{server, "postgres"}
	s, e := filled(t, p.config(), "a")
	require.NoError(t, s.Close())
	server.Stop(t)
	server.File(t, "standby.signal", "")
	server.Restart(t)
	standby := open(t, p.config())
	require.Len(t, load(t, standby, "a").Receipts, 10, "it can be read")
	require.ErrorContains(t, postgres.Probe(t.Context(), p.URL(p.db)), "connect to the primary one")
	err := standby.Save(t.Context(), "a", e, commit(9))
	require.Equal(t, "25006", sqlState(t, err))
	require.ErrorContains(t, err, "connect to the primary one")
	require.Equal(t, messages.CodeState, statestore.CodeOf(err))
}

// silent accepts connections and says nothing.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		var open []net.Conn
		for {
			c, err := l.Accept()
			if err != nil {
				break
			}
			open = append(open, c)
		}
		for _, c := range open {
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { require.NoError(t, l.Close()); <-done })
	return l.Addr().String()
}

func TestAServerThatIsGoneOrSilentIsAnErrorInSeconds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	closed := l.Addr().String()
	require.NoError(t, l.Close())
	for _, host := range []string{closed, silent(t)} {
		begin := time.Now()
		_, err := postgres.Open(t.Context(), postgres.Config{URL: "postgres://u:" + url.QueryEscape(canary) + "@" + host + "/db"})
		require.Error(t, err)
		require.Less(t, time.Since(begin), 15*time.Second)
		require.Equal(t, messages.CodeState, statestore.CodeOf(err), "it may be tried again")
		require.ErrorContains(t, err, "in "+host+"/db: ")
		require.NotContains(t, err.Error(), "s3cr3t")
		require.NotContains(t, err.Error(), "\n")
	}
}

// The same Store goes on when its server is there again.
func TestPGAStoreOutlivesItsServer(t *testing.T) {
	server := pgtest.Start(t)
	p := place{server, "postgres"}
	s, e := filled(t, p.config(), "a")
	server.Stop(t)
	begin := time.Now()
	err := s.Save(t.Context(), "a", e, commitOf(messages.Version{Load: 1, Commit: 9}, e))
	require.Error(t, err)
	require.Less(t, time.Since(begin), 10*time.Second)
	require.Equal(t, messages.CodeState, statestore.CodeOf(err))
	require.ErrorContains(t, err, "save checkpoint of pipeline a, stream orders in 127.0.0.1:")
	server.Restart(t)
	require.NoError(t, s.Save(t.Context(), "a", e, commitOf(messages.Version{Load: 1, Commit: 9}, e)))
	require.EqualValues(t, 9, load(t, s, "a").Receipts[0].Version.Commit)
	require.NoError(t, s.Hold("a", e), "the lease outlived it too")
}

// cutter is a way to the server that can be cut behind the words of the client.
type cutter struct {
	net.Listener
	server string
	cut    chan string // a text; what goes to the server from it on is sent, the answer is not
}

func newCutter(t *testing.T, server string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := &cutter{Listener: l, server: server, cut: make(chan string, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go c.carry(client)
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return c
}

func (c *cutter) carry(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", c.server)
	if err != nil {
		return
	}
	defer server.Close()
	answers := make(chan struct{})
	stop := make(chan struct{})
	go func() {
		defer close(answers)
		buf := make([]byte, 64<<10)
		for {
			n, err := server.Read(buf)
			select {
			case <-stop: // the server has done it and says so to nobody
				_ = client.Close()
				return
			default:
			}
			if err != nil {
				_ = client.Close()
				return
			}
			if _, err := client.Write(buf[:n]); err != nil {
				return
			}
		}
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := client.Read(buf)
		if err != nil {
			break
		}
		select {
		case text := <-c.cut:
			if strings.Contains(string(buf[:n]), text) {
				close(stop)
			} else {
				c.cut <- text
			}
		default:
		}
		if _, err := server.Write(buf[:n]); err != nil {
			break
		}
	}
	_ = server.Close()
	<-answers
}

// The answer to COMMIT is lost: it was done, nobody knows it, and doing it again is right.
func TestPGAnUnknownCommitMayBeSavedAgain(t *testing.T) {
	p := newPlace(t)
	u, err := url.Parse(p.URL(p.db))
	require.NoError(t, err)
	way := newCutter(t, u.Host)
	u.Host = way.Addr().String()
	u.RawQuery = "sslmode=disable"
	s := open(t, postgres.Config{URL: u.String()})
	e := acquire(t, s, "a")
	for round := range 2 { // the second time the statements are known to the server
		update := commitOf(messages.Version{Load: 1, Commit: uint64(5 + round)}, e) //nolint:gosec // small
		way.cut <- fmt.Sprintf(`"commit":%d}`, 5+round)
		err = s.Save(t.Context(), "a", e, update)
		require.Error(t, err)
		require.Equal(t, messages.CodeState, statestore.CodeOf(err))
		until(t, "it was done", func() bool {
			st, err := s.Load(t.Context(), "a")
			return err == nil && len(st.Receipts) == 10 && st.Receipts[0].Version == update.Receipts[0].Version
		})
		want := load(t, s, "a")
		require.NoError(t, s.Save(t.Context(), "a", e, update))
		require.Equal(t, want, load(t, s, "a"))
	}
}

// The answer to a claim is lost: the lease was taken, and nobody renews it. It neither locks
// its own Store out, nor others once that is closed.
func TestPGAnUnknownClaimLocksNobodyOut(t *testing.T) {
	p := newPlace(t)
	u, err := url.Parse(p.URL(p.db))
	require.NoError(t, err)
	way := newCutter(t, u.Host)
	u.Host = way.Addr().String()
	u.RawQuery = "sslmode=disable"
	for round, again := range []bool{true, false} {
		s := open(t, postgres.Config{URL: u.String()})
		id := messages.PipelineID(fmt.Sprintf("a%d", round))
		way.cut <- `"epoch":1,`
		_, err = s.Acquire(t.Context(), id, statestore.Claim{})
		require.Error(t, err)
		require.Equal(t, messages.CodeState, statestore.CodeOf(err))
		until(t, "it was done", func() bool { return load(t, s, id).Epoch == 1 })
		if again {
			e := acquire(t, s, id)
			require.EqualValues(t, 2, e, "no epoch is handed out twice")
			require.NoError(t, s.Hold(id, e))
		}
		require.NoError(t, s.Close())
		require.Equal(t, "0", p.one(t, "SELECT count(*) FROM "+in+"lease WHERE owner <> ''"), "all leases are given back")
	}
}

// A transaction of somebody else that holds the rows costs an error, not eternity.
func TestPGALockOfAnotherEndsInAnError(t *testing.T) {
	p := newPlace(t)
	s, e := filled(t, p.config(), "a")
	conn, err := pgx.Connect(t.Context(), p.URL(p.db))
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(context.WithoutCancel(t.Context()))) }()
	tx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "SELECT id FROM _rapidbyte_state.pipeline FOR UPDATE")
	require.NoError(t, err)
	why := errors.New("the user pressed a key")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 200*time.Millisecond, why)
	defer cancel()
	begin := time.Now()
	require.ErrorIs(t, s.Save(ctx, "a", e, commit(9)), why)
	require.Less(t, time.Since(begin), 5*time.Second)
	err = s.Save(t.Context(), "a", e, commit(9))
	require.Equal(t, "55P03", sqlState(t, err))
	require.ErrorContains(t, err, "end that transaction")
	require.NoError(t, tx.Rollback(t.Context()))
	require.NoError(t, s.Save(t.Context(), "a", e, commit(9)))
	require.NoError(t, s.Hold("a", e), "saves that wait cost no lease")
}

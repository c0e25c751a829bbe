package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/wire"
	"rapidbyte.io/node/connectors/postgres/pgtest"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/failpoint"
)

func coded(t testing.TB, err error) *connectors.Error {
	t.Helper()
	var e *connectors.Error
	require.ErrorAs(t, err, &e)
	_, ok := e.Code.Info()
	require.True(t, ok, "%s is in the catalogue", e.Code)
	return e
}

func TestRefusalsSayWhatToDo(t *testing.T) {
	cases := []struct {
		code, message string
		kind          connectors.Kind
		source, dest  messages.Code
		next          string
	}{
		{"08006", "lost", connectors.KindTransient, messages.CodeSource, messages.CodeDest, "Run again"},
		{"08P01", "insufficient data left in message", connectors.KindInternal, messages.CodeInternal, messages.CodeInternal, ""},
		{"08P01", "pooler: server is away", connectors.KindTransient, messages.CodeSource, messages.CodeDest, "between"},
		{"0A000", "no such thing", connectors.KindConfig, messages.CodeSource, messages.CodeDest, ""},
		{"0A000", "cached plan must not change result type", connectors.KindTransient, messages.CodeSource, messages.CodeDest, "again"},
		{"21000", "twice", connectors.KindData, messages.CodeRowBroken, messages.CodeRowRefused, ""},
		{"22003", "out of range", connectors.KindData, messages.CodeRowBroken, messages.CodeValueRange, ""},
		{"22P03", "incorrect binary data format", connectors.KindInternal, messages.CodeInternal, messages.CodeInternal, ""},
		{"23505", "duplicate", connectors.KindData, messages.CodeRowBroken, messages.CodeRowRefused, ""},
		{"25006", "read-only", connectors.KindConfig, messages.CodeSourceDenied, messages.CodeDestDenied, "primary"},
		{"25P02", "aborted", connectors.KindInternal, messages.CodeInternal, messages.CodeInternal, ""},
		{"25P03", "idle", connectors.KindTransient, messages.CodeSource, messages.CodeDest, ""},
		{"26000", "no statement", connectors.KindConfig, messages.CodeSource, messages.CodeDest, "session mode"},
		{"28P01", "password", connectors.KindConfig, messages.CodeSourceDenied, messages.CodeDestDenied, "password"},
		{"28000", `no pg_hba.conf entry for host "h", user "u", database "d", no encryption`, connectors.KindConfig, messages.CodeSourceDenied, messages.CodeDestDenied, "sslmode: require"},
		{"28000", `no pg_hba.conf entry for host "h", user "u", database "d", SSL encryption`, connectors.KindConfig, messages.CodeSourceDenied, messages.CodeDestDenied, "Add a line"},
		{"28000", `role "u" does not exist`, connectors.KindConfig, messages.CodeSourceDenied, messages.CodeDestDenied, "Create the role"},
		{"3D000", "no database", connectors.KindConfig, messages.CodeSourceMissing, messages.CodeDestMissing, "database"},
		{"3F000", "no schema", connectors.KindConfig, messages.CodeSourceMissing, messages.CodeDestMissing, "schema"},
		{"40001", "serialize", connectors.KindTransient, messages.CodeSource, messages.CodeDest, ""},
		{"40001", "canceling statement due to conflict with recovery", connectors.KindTransient, messages.CodeSource, messages.CodeDest, "hot_standby_feedback"},
		{"40P01", "deadlock", connectors.KindTransient, messages.CodeSource, messages.CodeDest, ""},
		{"42622", "identifier too long", connectors.KindData, messages.CodeRowBroken, messages.CodeValueRange, ""},
		{"42501", "permission denied for table t", connectors.KindConfig, messages.CodeSourceDenied, messages.CodeDestDenied, "ON TABLE t TO"},
		{"42501", "permission denied for schema s", connectors.KindConfig, messages.CodeSourceDenied, messages.CodeDestDenied, "ON SCHEMA s TO"},
		{"42501", "must be owner of table t", connectors.KindConfig, messages.CodeSourceDenied, messages.CodeDestDenied, "owner of the table t"},
		{"42501", "permission denied to do this", connectors.KindConfig, messages.CodeSourceDenied, messages.CodeDestDenied, "message"},
		{"42601", "syntax", connectors.KindConfig, messages.CodeSource, messages.CodeDest, ""},
		{"42703", "no column", connectors.KindSchema, messages.CodeSchemaColumn, messages.CodeSchemaColumn, ""},
		{"42804", "type", connectors.KindSchema, messages.CodeSchemaType, messages.CodeSchemaType, ""},
		{"42P01", "no table", connectors.KindConfig, messages.CodeSourceMissing, messages.CodeDestMissing, "Create the table"},
		{"42P07", "exists", connectors.KindTransient, messages.CodeSource, messages.CodeDest, "again"},
		{"44000", "check option", connectors.KindData, messages.CodeRowBroken, messages.CodeRowRefused, ""},
		{"53100", "disk full", connectors.KindTransient, messages.CodeSource, messages.CodeDestFull, "Free space"},
		{"53200", "out of memory", connectors.KindTransient, messages.CodeSource, messages.CodeDest, "resources"},
		{"53300", "too many", connectors.KindTransient, messages.CodeSource, messages.CodeDest, "max_connections"},
		{"54000", "row is too big", connectors.KindData, messages.CodeRowBroken, messages.CodeValueRange, ""},
		{"55000", "could not import the requested snapshot", connectors.KindScanLost, messages.CodeSource, "", ""},
		{"55P03", "lock timeout", connectors.KindTransient, messages.CodeSource, messages.CodeDestBusy, "lock_timeout"},
		{"57014", "canceling statement due to statement timeout", connectors.KindTransient, messages.CodeSource, messages.CodeDest, "statement_timeout"},
		{"57P01", "terminating", connectors.KindTransient, messages.CodeSource, messages.CodeDest, ""},
		{"57P03", "starting up", connectors.KindTransient, messages.CodeSource, messages.CodeDest, ""},
		{"57P04", "dropped", connectors.KindConfig, messages.CodeSourceMissing, messages.CodeDestMissing, ""},
		{"58030", "i/o", connectors.KindTransient, messages.CodeSource, messages.CodeDest, "files"},
		{"P0001", "raised", connectors.KindData, messages.CodeRowBroken, messages.CodeRowRefused, ""},
		{"XX000", "tuple concurrently updated", connectors.KindTransient, messages.CodeSource, messages.CodeDest, "again"},
		{"XX000", "surprise", connectors.KindConfig, messages.CodeSource, messages.CodeDest, ""},
		{"XX001", "damage", connectors.KindConfig, messages.CodeSource, messages.CodeDest, "backup"},
		{"ZZ999", "unknown", connectors.KindConfig, messages.CodeSource, messages.CodeDest, ""},
		{"", "none", connectors.KindConfig, messages.CodeSource, messages.CodeDest, ""},
	}
	for _, tc := range cases {
		t.Run(tc.code+" "+tc.message, func(t *testing.T) {
			cause := &pgconn.PgError{Severity: "ERROR", Code: tc.code, Message: tc.message}
			for stage, code := range map[string]messages.Code{connectors.StageSource: tc.source, connectors.StageDestination: tc.dest} {
				if code == "" {
					continue
				}
				err := classify(t.Context(), stage, "try", fmt.Errorf("around: %w", cause))
				e := coded(t, err)
				require.Equal(t, tc.kind, e.Kind)
				require.Equal(t, code, e.Code)
				require.Contains(t, e.Next, tc.next)
				require.ErrorIs(t, err, cause)
				require.ErrorContains(t, err, tc.message)
			}
		})
	}
}

func TestRefusalsSayWhere(t *testing.T) {
	e := coded(t, classify(t.Context(), connectors.StageDestination, "copy", &pgconn.PgError{
		Severity: "ERROR", Code: "22P02", Message: "no number", Detail: "why", ConstraintName: "t_pkey", Where: "COPY t, line 17, column y: \"no\"",
	}))
	require.Equal(t, messages.Place{Row: 17, Field: "y"}, e.Place)
	for _, part := range []string{"detail: why", "constraint: t_pkey", "line 17"} {
		require.Contains(t, e.Error(), part)
	}
	e = coded(t, classify(t.Context(), connectors.StageDestination, "copy", &pgconn.PgError{Code: "23502", ColumnName: "z", Where: "COPY t, line 2"}))
	require.Equal(t, messages.Place{Row: 2, Field: "z"}, e.Place)
}

func TestErrorsThatAreClassifiedAlreadyStay(t *testing.T) {
	require.NoError(t, classify(t.Context(), connectors.StageSource, "x", nil))
	typed := &connectors.Error{Op: "o", Kind: connectors.KindGap}
	require.Same(t, typed, classify(t.Context(), connectors.StageSource, "x", typed))
	fenced := fmt.Errorf("open: %w", &connectors.FencedError{})
	require.Equal(t, fenced, classify(t.Context(), connectors.StageSource, "x", fenced))

	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	for _, err := range []error{context.Canceled, fmt.Errorf("wrapped: %w", cause)} {
		err := classify(ctx, connectors.StageSource, "x", err)
		require.ErrorIs(t, err, cause)
		require.Equal(t, connectors.KindInternal, connectors.KindOf(err))
	}
	require.Equal(t, connectors.KindData, connectors.KindOf(classify(ctx, connectors.StageSource, "x", &pgconn.PgError{Code: "23505"})))
}

func TestErrorsOfTheNetwork(t *testing.T) {
	for _, err := range []error{
		&wire.LostError{Op: "read", Err: io.EOF}, &wire.ProtocolError{Type: 'x', Why: "y"}, io.ErrUnexpectedEOF, net.ErrClosed, wire.ErrClosed,
		&net.OpError{Op: "read", Err: errors.New("reset")}, context.DeadlineExceeded, pgconn.ErrConnClosed,
		&failpoint.Error{Point: failpoint.DestBegin, Text: "says of itself that it is transient"},
	} {
		e := coded(t, classify(t.Context(), connectors.StageDestination, "x", err))
		require.Equal(t, connectors.KindTransient, e.Kind, "%v", err)
		require.Equal(t, messages.CodeDest, e.Code)
		require.ErrorIs(t, e, err)
	}
	require.Equal(t, connectors.KindInternal, connectors.KindOf(classify(t.Context(), connectors.StageDestination, "x", wire.ErrBusy)))
}

// connecting is the classified error of a login.
func connecting(t *testing.T, c Connection, stage string) *connectors.Error {
	t.Helper()
	homeless(t)
	d := dialerOf(t, c, stage)
	_, first := d.control(t.Context())
	_, second := d.data(t.Context())
	a, b := coded(t, classify(t.Context(), stage, "connect", first)), coded(t, classify(t.Context(), stage, "connect", second))
	require.Equal(t, a.Code, b.Code)
	require.Equal(t, a.Kind, b.Kind)
	require.Equal(t, a.Next, b.Next)
	require.NotContains(t, a.Error()+b.Error()+a.Next, "hunter2")
	return a
}

func TestPGLoginsThatFail(t *testing.T) {
	s := pgtest.Start(t, "fsync=off")
	s.Exec(t, "postgres", "SET password_encryption = 'scram-sha-256'; CREATE ROLE scram LOGIN PASSWORD 'right'; CREATE ROLE one LOGIN CONNECTION LIMIT 0; CREATE ROLE plain LOGIN; REVOKE CONNECT ON DATABASE postgres FROM public")
	s.Exec(t, "postgres", "CREATE DATABASE open")
	s.Exec(t, "postgres", "GRANT CONNECT ON DATABASE postgres TO scram")
	s.File(t, "pg_hba.conf", "host all postgres 127.0.0.1/32 trust\nhost all scram 127.0.0.1/32 scram-sha-256\nhost all one,plain,ghost 127.0.0.1/32 trust\n")
	s.Exec(t, "postgres", "SELECT pg_reload_conf()")
	base := Connection{Host: "127.0.0.1", Port: s.Port(), User: "scram", Password: connectors.NewSecret("right"), Database: "postgres"}
	require.Eventually(t, func() bool {
		conn, err := dialerOf(t, base, connectors.StageSource).control(t.Context())
		return err == nil && conn.Close(t.Context()) == nil
	}, time.Minute, 10*time.Millisecond)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	closedPort := free.Addr().(*net.TCPAddr).Port
	require.NoError(t, free.Close())
	cases := []struct {
		name   string
		change func(*Connection)
		kind   connectors.Kind
		code   messages.Code
		next   string
	}{
		{"wrong password", func(c *Connection) { c.Password = connectors.NewSecret("hunter2") }, connectors.KindConfig, messages.CodeDestDenied, "Correct `user` and `password`"},
		{"no password", func(c *Connection) { c.Password = connectors.Secret{} }, connectors.KindConfig, messages.CodeDestDenied, "Correct `user` and `password`"},
		{"unknown database", func(c *Connection) { c.Database = "nowhere" }, connectors.KindConfig, messages.CodeDestMissing, "Create the database"},
		{"unknown role", func(c *Connection) { c.User = "ghost" }, connectors.KindConfig, messages.CodeDestDenied, "Create the role"},
		{"not in pg_hba.conf", func(c *Connection) { c.User = "stranger" }, connectors.KindConfig, messages.CodeDestDenied, "pg_hba.conf"},
		{"no right to connect", func(c *Connection) { c.User = "plain" }, connectors.KindConfig, messages.CodeDestDenied, "CONNECT, CREATE ON DATABASE postgres"},
		{"too many connections", func(c *Connection) { c.User, c.Database = "one", "open" }, connectors.KindTransient, messages.CodeDest, "max_connections"},
		{"closed port", func(c *Connection) { c.Port = closedPort }, connectors.KindTransient, messages.CodeDest, "No server listens there"},
		{"no socket", func(c *Connection) { c.Host = t.TempDir() }, connectors.KindTransient, messages.CodeDest, "No server listens there"},
		{"unknown host", func(c *Connection) { c.Host = "nowhere.invalid" }, "", "", ""},
		{"no TLS", func(c *Connection) { c.SSLMode = "require" }, connectors.KindConfig, messages.CodeDestDenied, "The server has no TLS"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			c := base
			tc.change(&c)
			e := connecting(t, c, connectors.StageDestination)
			if tc.kind == "" { // without a name service nobody knows whether it exists
				require.Contains(t, []connectors.Kind{connectors.KindConfig, connectors.KindTransient}, e.Kind)
				return
			}
			require.Equal(t, tc.kind, e.Kind, "%v", e)
			require.Equal(t, tc.code, e.Code, "%v", e)
			require.Contains(t, e.Next, tc.next)
		})
	}
}

func TestPGServerThatDoesNotAnswer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	c := Connection{Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, User: "u", Database: "d", ConnectTimeout: 100 * time.Millisecond}
	e := connecting(t, c, connectors.StageSource)
	require.Equal(t, connectors.KindTransient, e.Kind)
	require.Contains(t, e.Next, "connect_timeout")
}

func TestPGStatementsThatFail(t *testing.T) {
	s := pgtest.Shared(t)
	db := s.Database(t)
	role := "poor_" + db
	s.Exec(t, db, "CREATE TABLE t (x int PRIMARY KEY); CREATE ROLE "+role+" LOGIN")
	t.Cleanup(func() { s.Exec(t, db, "DROP OWNED BY "+role+"; DROP ROLE "+role) })
	run := func(stage, user, sql string) *connectors.Error {
		c := Connection{Host: s.Host(), Port: s.Port(), User: user, Database: db, StatementTimeout: 300 * time.Millisecond, LockTimeout: 100 * time.Millisecond}
		conn, err := dialerOf(t, c, stage).data(t.Context())
		require.NoError(t, err)
		defer func() { require.NoError(t, conn.Close()) }()
		_, err = conn.Exec(t.Context(), sql)
		return coded(t, classify(t.Context(), stage, "try", err))
	}
	e := run(connectors.StageDestination, role, "INSERT INTO t VALUES (1)")
	require.Equal(t, messages.CodeDestDenied, e.Code)
	require.Contains(t, e.Next, "INSERT, UPDATE, DELETE, TRUNCATE ON TABLE t TO")
	e = run(connectors.StageSource, role, "SELECT * FROM t")
	require.Equal(t, messages.CodeSourceDenied, e.Code)
	e = run(connectors.StageSource, s.User(), "INSERT INTO t VALUES (1)")
	require.Contains(t, e.Error(), "25006")
	e = run(connectors.StageDestination, s.User(), "SELECT pg_sleep(3600)")
	require.Contains(t, e.Next, "statement_timeout")
	require.Equal(t, connectors.KindTransient, e.Kind)
	e = run(connectors.StageDestination, s.User(), "INSERT INTO t VALUES (1), (1)")
	require.Equal(t, connectors.KindData, e.Kind)
	require.Contains(t, e.Error(), "Key (x)=(1) already exists")
	require.Contains(t, e.Error(), "t_pkey")
	blocker, err := dialerOf(t, Connection{Host: s.Host(), Port: s.Port(), User: s.User(), Database: db}, connectors.StageDestination).data(t.Context())
	require.NoError(t, err)
	_, err = blocker.Exec(t.Context(), "BEGIN; LOCK TABLE t")
	require.NoError(t, err)
	e = run(connectors.StageDestination, s.User(), "INSERT INTO t VALUES (1)")
	require.Equal(t, messages.CodeDestBusy, e.Code)
	require.NoError(t, blocker.Close())
}

func TestEachTryToConnectIsToldOnce(t *testing.T) {
	require.Equal(t, "connect: failed to connect to `user=u`: a: refused", oneLine("connect: failed to connect to `user=u`:\n\ta: refused\n\ta: refused"))
	require.Equal(t, "failed: a: FATAL: no", oneLine("failed:\n\ta: tls error: server refused TLS connection\n\ta: FATAL: no"))
	require.Equal(t, "failed: a: tls error: server refused TLS connection", oneLine("failed:\n\ta: tls error: server refused TLS connection"))
	require.Equal(t, "failed", oneLine("failed"))
}

package postgres

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/pgtest"
)

// homeless is a home without certificates and passwords.
func homeless(t *testing.T) { t.Helper(); t.Setenv("HOME", t.TempDir()) }

func dsnOf(text string) Connection { return Connection{DSN: connectors.NewSecret(text)} }

func dialerOf(t testing.TB, c Connection, stage string) *dialer {
	t.Helper()
	d, err := newDialer(c, stage)
	require.NoError(t, err)
	return d
}

// TestDSNsMeanWhatTheyMeanToLibpq compares with pgconn, which follows libpq.
func TestDSNsMeanWhatTheyMeanToLibpq(t *testing.T) {
	homeless(t)
	for _, text := range []string{
		"postgres://u:secret@h:5433/db",
		"postgresql://u@h/db?sslmode=disable",
		"postgres://u:p%40%2F%25@[::1]:1/a%20b",
		"postgres://u@h1:1,h2:2,h3/db",
		"postgres://u@h1,h2/db",
		"postgres://u@/db?host=/var/run/sockets&port=7",
		"postgres:///db?user=u&host=a,b&port=1,2&sslmode=require",
		"postgres://u@h/db?ssl=true",
		"host=h port=7 user=u dbname=db password=secret",
		`host = h user='a b' password='it\'s \\ me' database=db`,
		`host=h,i port=1,2 user=u password=a\ b dbname=`,
		"host=h user=u dbname=db sslmode=allow target_session_attrs=read-write",
	} {
		want, err := pgconn.ParseConfig(text)
		require.NoError(t, err, text)
		got, err := dialerOf(t, dsnOf(text), connectors.StageSource).config()
		require.NoError(t, err, text)
		require.Equal(t, want.Host, got.Host, text)
		require.Equal(t, want.Port, got.Port, text)
		require.Equal(t, want.User, got.User, text)
		require.Equal(t, want.Password, got.Password, text)
		require.Equal(t, want.Database, got.Database, text)
		require.Equal(t, want.TLSConfig == nil, got.TLSConfig == nil, text)
		require.Equal(t, want.ValidateConnect == nil, got.ValidateConnect == nil, text)
		require.Len(t, got.Fallbacks, len(want.Fallbacks), text)
		for i, f := range want.Fallbacks {
			require.Equal(t, f.Host, got.Fallbacks[i].Host, text)
			require.Equal(t, f.Port, got.Fallbacks[i].Port, text)
		}
	}
}

func TestDSNsThatAreRefusedStaySecret(t *testing.T) {
	for _, text := range []string{
		"postgres://u:hunter2%zz@h/db", "postgres://u@h/db?hunter2", "postgres://u@h/db?hunter2=1", "postgres://u@h/db?password=hunter2%z",
		"host=h password='hunter2", "host=h password=a hunter2=b", "hunter2", "host", "postgres://u@h/db?password=hunter2&service=x",
		"host=h password=hunter2 requirepeer=x", "host=h password=hunter2 connect_timeout=soon", "postgres://u@h/db?user=hunter2%00",
	} {
		_, err := newDialer(dsnOf(text), connectors.StageSource)
		require.Error(t, err, text)
		require.Equal(t, connectors.KindConfig, connectors.KindOf(err), text)
		require.NotContains(t, fmt.Sprintf("%v %+v", err, err), "hunter2")
	}
	homeless(t)
	for _, text := range []string{
		"host=h user=u password=hunter2 sslmode=wrong", "host=h port=1,2 user=u password=hunter2", "host=h user=u port=x password=hunter2",
		"host=h user=u password=hunter2 sslmode=verify-full", "host=h user=u password=hunter2 sslpassword=hunter2 sslrootcert=/none sslmode=require",
		"host=h user=u password=hunter2 sslpassword='hunter2 x' target_session_attrs=no",
	} {
		_, err := dialerOf(t, dsnOf(text), connectors.StageSource).config()
		require.Error(t, err, text)
		require.Equal(t, connectors.KindConfig, connectors.KindOf(err), text)
		require.NotContains(t, fmt.Sprintf("%v %+v", err, err), "hunter2")
	}
}

func FuzzDSN(f *testing.F) {
	for _, seed := range []string{"postgres://u:p@h:1,[::1]:2/db?sslmode=disable&x=%41", `host='a b' password=\'`, "postgres://@/?&="} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		keys, err := parseDSN(text)
		if err != nil {
			return
		}
		again, err := parseDSN(words(keys))
		require.NoError(t, err)
		require.Equal(t, keys, again)
	})
}

func TestTheDocumentWinsOverDSNAndEnvironment(t *testing.T) {
	homeless(t)
	for _, name := range []string{
		"PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGAPPNAME", "PGCONNECT_TIMEOUT", "PGSSLMODE", "PGSSLKEY", "PGSSLCERT",
		"PGSSLCERTMODE", "PGSSLSNI", "PGSSLROOTCERT", "PGSSLPASSWORD", "PGSSLNEGOTIATION", "PGTARGETSESSIONATTRS", "PGTZ", "PGOPTIONS",
		"PGMINPROTOCOLVERSION", "PGMAXPROTOCOLVERSION", "PGCHANNELBINDING", "PGREQUIREAUTH",
	} {
		t.Setenv(name, "stray")
	}
	cfg, err := dialerOf(t, Connection{Host: "h", User: "u", Database: "d"}, connectors.StageSource).named("rb:x").config()
	require.NoError(t, err)
	require.Equal(t, []any{"h", uint16(5432), "u", "d", "", 10 * time.Second}, []any{cfg.Host, cfg.Port, cfg.User, cfg.Database, cfg.Password, cfg.ConnectTimeout})
	require.Equal(t, map[string]string{"application_name": "rb:x", "client_encoding": "UTF8"}, cfg.RuntimeParams)
	require.NotNil(t, cfg.TLSConfig, "prefer")
	require.Len(t, cfg.Fallbacks, 1)

	c := dsnOf("host=h user=u password=p sslmode=require connect_timeout=3 options='-c search_path=x'")
	c.SSLMode, c.ConnectTimeout = "disable", 10*time.Second // the default
	cfg, err = dialerOf(t, c, connectors.StageDestination).config()
	require.NoError(t, err)
	require.Nil(t, cfg.TLSConfig)
	require.Equal(t, 3*time.Second, cfg.ConnectTimeout)
	require.Equal(t, "-c search_path=x", cfg.RuntimeParams["options"])
	c.ConnectTimeout = 5 * time.Second
	cfg, err = dialerOf(t, c, connectors.StageDestination).config()
	require.NoError(t, err)
	require.Equal(t, 5*time.Second, cfg.ConnectTimeout)

	t.Setenv("PGSERVICE", "stray")
	_, err = dialerOf(t, c, connectors.StageDestination).config()
	require.ErrorContains(t, err, "PGSERVICE")
}

func TestPasswordFilesAreHonoured(t *testing.T) {
	homeless(t)
	path := filepath.Join(os.Getenv("HOME"), ".pgpass")
	require.NoError(t, os.WriteFile(path, []byte("h:5432:d:u:from home\n"), 0o600))
	c := Connection{Host: "h", User: "u", Database: "d"}
	password := func() string {
		cfg, err := dialerOf(t, c, connectors.StageSource).config()
		require.NoError(t, err)
		return cfg.Password
	}
	require.Equal(t, "from home", password())
	other := filepath.Join(t.TempDir(), "passwords")
	require.NoError(t, os.WriteFile(other, []byte("*:*:*:*:from file\n"), 0o600))
	t.Setenv("PGPASSFILE", other)
	require.Equal(t, "from file", password())
	c.Password = connectors.NewSecret("from document")
	require.Equal(t, "from document", password())
}

func TestNamesOfConnections(t *testing.T) {
	require.Equal(t, "rb:a8fd5300:e:7", applicationName("shop", 7))
	require.Equal(t, "a8fd5300", pipelineUUID("shop").String()[:8])
	require.Less(t, len(applicationName("shop", math.MaxUint64)), 64)
	require.Equal(t, "h:7/d", dialerOf(t, Connection{Host: "h", Port: 7, User: "u", Database: "d"}, "").server())
	require.Equal(t, "a:1,b:2/u", dialerOf(t, dsnOf("postgres://u:secret@a:1,b:2"), "").server())
	for version, want := range map[string]int{"15.4 (Debian 15.4-1)": 15, "18beta1": 18, "9.6.1": 9, "": 0, "16": 16} {
		require.Equal(t, want, serverMajor(version), version)
	}
	require.Equal(t, "1", milliseconds(time.Microsecond))
}

func TestPGSessionsDoNotDependOnTheRole(t *testing.T) {
	s := pgtest.Shared(t)
	db := s.Database(t)
	role := "odd_" + db
	s.Exec(t, "postgres", "CREATE ROLE "+role+" SUPERUSER LOGIN")
	t.Cleanup(func() { s.Exec(t, "postgres", "DROP ROLE "+role) })
	for name, value := range map[string]string{
		"statement_timeout": "1000", "lock_timeout": "1", "idle_in_transaction_session_timeout": "1000", "DateStyle": "German", "IntervalStyle": "iso_8601",
		"TimeZone": "Asia/Kathmandu", "extra_float_digits": "-3", "bytea_output": "escape", "client_encoding": "LATIN1", "lc_monetary": "POSIX",
		"standard_conforming_strings": "off", "synchronous_commit": "off", "default_transaction_isolation": "serializable", "xmloption": "document",
		"default_transaction_deferrable": "on", "default_transaction_read_only": "off", "row_security": "on", "synchronize_seqscans": "on",
		"max_parallel_workers_per_gather": "4", "session_replication_role": "replica", "application_name": "odd",
	} {
		s.Exec(t, "postgres", "ALTER ROLE "+role+" SET "+name+" = '"+value+"'")
	}
	c := Connection{Host: s.Host(), Port: s.Port(), User: role, Database: db, StatementTimeout: 90 * time.Second, LockTimeout: 7 * time.Second}
	common := map[string]string{
		"statement_timeout": "90s", "lock_timeout": "7s", "idle_in_transaction_session_timeout": "0", "DateStyle": "ISO, DMY", "IntervalStyle": "postgres",
		"TimeZone": "UTC", "extra_float_digits": "3", "bytea_output": "hex", "client_encoding": "UTF8", "lc_monetary": "C", "standard_conforming_strings": "on",
		"synchronous_commit": "on", "transaction_isolation": "read committed", "default_transaction_deferrable": "off", "xmloption": "content",
		"session_replication_role": "replica", "application_name": "rb:me",
	}
	special := map[string][2]string{ // source, destination
		"transaction_read_only": {"on", "off"}, "row_security": {"off", "on"},
	}
	ofData := map[string][2]string{"synchronize_seqscans": {"off", "on"}, "max_parallel_workers_per_gather": {"0", "4"}}
	for i, stage := range []string{connectors.StageSource, connectors.StageDestination} {
		d := dialerOf(t, c, stage).named("rb:me")
		control, err := d.control(t.Context())
		require.NoError(t, err)
		data, err := d.data(t.Context())
		require.NoError(t, err)
		show := func(name, inControl, inData string) {
			var got string
			require.NoError(t, control.QueryRow(t.Context(), "SHOW "+name).Scan(&got))
			require.Equal(t, inControl, got, "%s, control: %s", stage, name)
			results, err := data.Exec(t.Context(), "SHOW "+name)
			require.NoError(t, err)
			require.Equal(t, inData, string(results[0].Rows[0][0]), "%s, data: %s", stage, name)
		}
		for name, want := range common {
			show(name, want, want)
		}
		for name, want := range special {
			show(name, want[i], want[i])
		}
		for name, want := range ofData {
			show(name, want[1], want[i])
		}
		require.NoError(t, control.Close(context.Background()))
		require.NoError(t, data.Close())
	}
}

func TestPGRowSecurityIsAnErrorForASource(t *testing.T) {
	s := pgtest.Shared(t)
	db := s.Database(t)
	role := "reader_" + db
	s.Exec(t, db, "CREATE ROLE "+role+" LOGIN; CREATE TABLE t AS SELECT 1 x; GRANT SELECT ON t TO "+role+"; ALTER TABLE t ENABLE ROW LEVEL SECURITY")
	t.Cleanup(func() { s.Exec(t, db, "DROP OWNED BY "+role+"; DROP ROLE "+role) })
	conn, err := dialerOf(t, Connection{Host: "127.0.0.1", Port: s.Port(), User: role, Database: db}, connectors.StageSource).data(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	_, err = conn.CopyOut(t.Context(), "COPY t TO STDOUT", func([]byte) error { return nil })
	e := coded(t, classify(t.Context(), connectors.StageSource, "read", err))
	require.Contains(t, e.Next, "BYPASSRLS")
}

func TestPGFurtherHostsOfADSN(t *testing.T) {
	s := pgtest.Shared(t)
	db := s.Database(t)
	for _, text := range []string{
		fmt.Sprintf("postgres://%s@127.0.0.1:1,127.0.0.1:%d/%s?target_session_attrs=read-write", s.User(), s.Port(), db),
		fmt.Sprintf("host=%s,127.0.0.1 port=1,%d user=%s dbname=%s", s.Host(), s.Port(), s.User(), db),
		fmt.Sprintf("host=%s port=%d user=%s dbname=%s", s.Host(), s.Port(), s.User(), db),
	} {
		conn, err := dialerOf(t, dsnOf(text), connectors.StageDestination).data(t.Context())
		require.NoError(t, err)
		results, err := conn.Exec(t.Context(), "SELECT current_database()")
		require.NoError(t, err)
		require.Equal(t, db, string(results[0].Rows[0][0]))
		require.NoError(t, conn.Close())
	}
}

func TestPGControlStatementsEndWithTheirContext(t *testing.T) {
	s := pgtest.Shared(t)
	d := dialerOf(t, Connection{Host: s.Host(), Port: s.Port(), User: s.User(), Database: s.Database(t)}, connectors.StageDestination)
	conn, err := d.control(t.Context())
	require.NoError(t, err)
	cause := errors.New("nobody waits")
	ctx, cancel := context.WithCancelCause(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := conn.Exec(ctx, "SELECT pg_sleep(3600)")
		failed <- classify(ctx, connectors.StageDestination, "sleep", err)
	}()
	sleeping := fmt.Sprintf("SELECT 1 FROM pg_stat_activity WHERE pid = %d AND wait_event = 'PgSleep'", conn.PgConn().PID())
	require.Eventually(t, func() bool { return len(s.Query(t, "postgres", sleeping)) == 1 }, time.Minute, 10*time.Millisecond)
	cancel(cause)
	require.ErrorIs(t, <-failed, cause)
	require.Empty(t, s.Query(t, "postgres", sleeping))
	require.NoError(t, conn.Close(context.Background()))
}

package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/wire"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/mutant"
)

// What a connection has when the document does not say.
const (
	defaultConnectTimeout = 10 * time.Second
	defaultLockTimeout    = 30 * time.Second
	defaultPort           = 5432
	peerTimeout           = 30 * time.Second // after which a silent peer is a dead one
	cancelPatience        = 2 * time.Second  // for the server to end a statement
)

// dialer makes the connections of one connector. It is a value that never changes;
// files and .pgpass are read at each connection, so that renewed ones are used.
type dialer struct {
	keys        map[string]string // of libpq, without the password
	password    string            // empty: that of .pgpass
	stage       string            // of the connector
	application string
	pooler      *pooler // shared by copies

	connectTimeout, lockTimeout, statementTimeout time.Duration
}

// newDialer looks at the text of c only. Its errors hold no secrets.
func newDialer(c Connection, stage string) (*dialer, error) {
	d := &dialer{
		stage: stage, application: "rapidbyte", password: c.Password.Reveal(), pooler: &pooler{},
		connectTimeout: c.ConnectTimeout, lockTimeout: cmp.Or(c.LockTimeout, defaultLockTimeout), statementTimeout: c.StatementTimeout,
	}
	if c.DSN.IsZero() {
		d.keys = map[string]string{"host": c.Host, "port": strconv.Itoa(cmp.Or(c.Port, defaultPort)), "user": c.User, "dbname": c.Database}
	} else {
		keys, err := parseDSN(c.DSN.Reveal())
		if err != nil {
			return nil, settingsError(err, "Write `dsn` as postgres://user:password@host:5432/database, with %-escapes for what is no letter or digit.")
		}
		d.keys = keys
		d.password = cmp.Or(d.password, keys["password"])
		delete(d.keys, "password")
	}
	for k, v := range map[string]string{"sslmode": c.SSLMode, "sslrootcert": c.SSLRootCert, "sslcert": c.SSLCert, "sslkey": c.SSLKey} {
		if v != "" {
			d.keys[k] = v
		}
	}
	return d, d.timeouts()
}

// timeouts lets the dsn speak where the document has nothing but the default.
func (d *dialer) timeouts() error {
	text, ok := d.keys["connect_timeout"]
	delete(d.keys, "connect_timeout")
	if ok && (d.connectTimeout == 0 || d.connectTimeout == defaultConnectTimeout) {
		seconds, err := strconv.ParseUint(strings.TrimSpace(text), 10, 31)
		if err != nil {
			return settingsError(errors.New("connect_timeout of the dsn is not a number of seconds"), "")
		}
		d.connectTimeout = time.Duration(seconds) * time.Second // 0 waits for ever
		return nil
	}
	d.connectTimeout = cmp.Or(d.connectTimeout, defaultConnectTimeout)
	return nil
}

func settingsError(err error, next string) error {
	return &connectors.Error{Op: "read the connection settings", Kind: connectors.KindConfig, Code: messages.CodeDocValue, Next: next, Err: err}
}

// named returns a copy whose connections have this application_name.
func (d *dialer) named(application string) *dialer {
	e := *d
	e.application = application
	return &e
}

// control returns a connection for catalogue and bookkeeping.
func (d *dialer) control(ctx context.Context) (*pgx.Conn, error) {
	conn, err := d.plain(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := d.limited(ctx)
	defer cancel()
	if err := d.tend(conn, func() error { return d.pooler.check(ctx, conn, d.plain) }); err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}
	return conn, nil
}

// plain returns a connection to whatever answers.
func (d *dialer) plain(ctx context.Context) (*pgx.Conn, error) {
	cfg, err := d.config()
	if err != nil {
		return nil, err
	}
	cfg.DialFunc = d.dialLine
	ask := newAsker(cfg)
	defer ask.over()
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	ctx, cancel := d.limited(ctx)
	defer cancel()
	version := conn.PgConn().ParameterStatus("server_version")
	results, err := conn.PgConn().Exec(ctx, d.session(version, false)+whoSQL).ReadAll()
	if err == nil {
		lineOf(conn).who, err = newBackend(results[len(results)-1].Rows[0])
	}
	if err = lineOf(conn).why(err); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare the session: %w", err), conn.Close(ctx))
	}
	return conn, nil
}

// data returns a connection for rows.
func (d *dialer) data(ctx context.Context) (*wire.Conn, error) {
	cfg, err := d.config()
	if err != nil {
		return nil, err
	}
	ask := newAsker(cfg)
	defer ask.over()
	conn, err := wire.Connect(ctx, &cfg.Config)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	ctx, cancel := d.limited(ctx)
	defer cancel()
	results, err := conn.Exec(ctx, d.session(conn.Parameter("server_version"), true)+whoSQL)
	if err == nil {
		var who wire.Backend
		who, err = newBackend(results[len(results)-1].Rows[0])
		conn.Introduce(who)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare the session: %w", err), conn.Close())
	}
	return conn, nil
}

// limited bounds what belongs to the login.
func (d *dialer) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	if d.connectTimeout == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d.connectTimeout)
}

// server names the server in messages.
func (d *dialer) server() string {
	hosts := strings.Split(d.keys["host"], ",")
	ports := strings.Split(d.keys["port"], ",")
	for i, h := range hosts {
		port := ports[0]
		if i < len(ports) {
			port = ports[i]
		}
		hosts[i] = net.JoinHostPort(cmp.Or(h, "localhost"), cmp.Or(port, strconv.Itoa(defaultPort)))
	}
	return strings.Join(hosts, ",") + "/" + cmp.Or(d.keys["dbname"], d.keys["user"])
}

// config is what pgconn needs to log in. Every key is given, so that no PG* variable
// of the environment takes part, except PGPASSFILE.
func (d *dialer) config() (*pgx.ConnConfig, error) {
	if os.Getenv("PGSERVICE") != "" { // the one that no key can outweigh
		return nil, settingsError(errors.New("the environment variable PGSERVICE is set, which would redirect the connection"), "Unset PGSERVICE for this program.")
	}
	keys := map[string]string{
		"host": "", "port": strconv.Itoa(defaultPort), "user": "", "dbname": "", "password": "", "sslmode": "prefer", "sslpassword": "", "sslsni": "1",
		"sslcertmode": "allow", "sslnegotiation": "", "channel_binding": "prefer", "require_auth": "", "target_session_attrs": "any",
		"min_protocol_version": "3.0", "max_protocol_version": "3.0", "connect_timeout": "0",
	}
	maps.Copy(keys, homeFiles())
	maps.Copy(keys, d.keys)
	options := keys["options"]
	delete(keys, "options")
	if keys["user"] == "" {
		me, err := user.Current()
		if err != nil {
			return nil, settingsError(errors.New("the dsn names no user"), "Name the role in `dsn`.")
		}
		keys["user"] = me.Username
	}
	if mode := keys["sslmode"]; strings.HasPrefix(mode, "verify-") && keys["sslrootcert"] == "" {
		return nil, settingsError(fmt.Errorf("sslmode %s needs the certificates that may sign the server's, and there are none", mode),
			"Set `sslrootcert` to their file, or to `system` for those that this machine trusts.")
	}
	cfg, err := pgx.ParseConfig(words(keys))
	if err != nil {
		if cause := errors.Unwrap(err); cause != nil {
			err = cause
		}
		return nil, settingsError(errors.New(err.Error()), "Check the keys of the connection, and that the files exist and can be read.") // without the text that was parsed
	}
	cfg.Password = cmp.Or(d.password, cfg.Password)
	cfg.ConnectTimeout = d.connectTimeout
	cfg.DialFunc = d.netDialer().DialContext
	cfg.RuntimeParams = map[string]string{"application_name": d.application, "client_encoding": "UTF8"}
	if options != "" {
		cfg.RuntimeParams["options"] = options
	}
	// Who stops waiting stops the statement too: it may hold locks.
	cfg.BuildContextWatcherHandler = func(pg *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: pg, DeadlineDelay: cancelPatience}
	}
	// Statements with parameters are all about the catalogue and the bookkeeping, whose
	// shape does not change: their plans are kept, which halves the cost of a small table.
	cfg.DefaultQueryExecMode = pgx.QueryExecModeCacheStatement
	return cfg, nil
}

// homeFiles are the certificates that libpq looks for.
func homeFiles() map[string]string {
	out := map[string]string{"sslrootcert": "", "sslcert": "", "sslkey": ""}
	home, err := os.UserHomeDir()
	if err != nil {
		return out // then there are none
	}
	for key, name := range map[string]string{"sslrootcert": "root.crt", "sslcert": "postgresql.crt", "sslkey": "postgresql.key"} {
		path := filepath.Join(home, ".postgresql", name)
		if _, err := os.Stat(path); err == nil {
			out[key] = path
		}
	}
	if out["sslcert"] == "" || out["sslkey"] == "" {
		out["sslcert"], out["sslkey"] = "", ""
	}
	return out
}

// netDialer notices a peer that is gone. What is sent to a server that waits for a
// lock remains unacknowledged too, so a destination has more patience than locks.
func (d *dialer) netDialer() *net.Dialer {
	patience := peerTimeout
	if d.stage == connectors.StageDestination {
		patience += d.lockTimeout
	}
	return &net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: peerTimeout / 2, Interval: peerTimeout / 6, Count: 3},
		Control:         userTimeout(patience),
	}
}

// session is the statement that makes a session independent of what the role, the
// database and the server have as defaults. It is sent after the login, because
// poolers refuse parameters in it.
func (d *dialer) session(serverVersion string, data bool) string {
	settings := map[string]string{
		"DateStyle": "ISO", "IntervalStyle": "postgres", "TimeZone": "UTC", "extra_float_digits": "3", "bytea_output": "hex",
		"client_encoding": "UTF8", "lc_monetary": "C", "standard_conforming_strings": "on", "synchronous_commit": "on",
		"xmloption": "content", "default_transaction_isolation": "read committed", "default_transaction_deferrable": "off",
		"statement_timeout": milliseconds(d.statementTimeout), "lock_timeout": milliseconds(d.lockTimeout),
		"idle_in_transaction_session_timeout": "0", "tcp_keepalives_idle": "15", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3",
	}
	if mutant.On(mutant.CommitNotDurable) {
		delete(settings, "synchronous_commit")
	}
	major := serverMajor(serverVersion)
	if !data && major >= 12 {
		settings["plan_cache_mode"] = "force_generic_plan" // planning the catalogue costs more than reading it
	}
	if major >= 14 {
		settings["idle_session_timeout"] = "0"
	}
	if major >= 17 {
		settings["transaction_timeout"] = "0"
	}
	if d.stage == connectors.StageSource {
		settings["default_transaction_read_only"] = "on"
		settings["row_security"] = "off" // an error, never a silent part of the rows
		if data {
			settings["synchronize_seqscans"] = "off"
			settings["max_parallel_workers_per_gather"] = "0"
		}
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		b.WriteString("SET " + name + " = '" + settings[name] + "';")
	}
	return b.String()
}

// milliseconds rounds up: less than one is not none.
func milliseconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Millisecond-1)/time.Millisecond), 10)
}

// serverMajor reads "15.4 (Debian 15.4-1)" or "18beta1"; 0 is unknown.
func serverMajor(version string) int {
	end := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(version)
	}
	n, _ := strconv.Atoi(version[:end]) // unknown
	return n
}

// applicationName is by which connections of an owner of a pipeline are found.
func applicationName(p messages.PipelineID, e messages.Epoch) string {
	id := pipelineUUID(p)
	return fmt.Sprintf("rb:%x:e:%d", id[:4], e)
}

// pipelineUUID is the key of a pipeline in the bookkeeping, whatever its name holds.
func pipelineUUID(p messages.PipelineID) uuid.UUID { return uuid.NewSHA1(uuid.NameSpaceOID, []byte(p)) }

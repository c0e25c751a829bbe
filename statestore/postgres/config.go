package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"

	"rapidbyte.io/node/statestore"
)

// Limits. Nothing waits for ever: what a lock holds back ends on the server, what the
// server holds back ends here.
const (
	// DefaultTTL is how long a lease lasts after its last renewal.
	DefaultTTL = 15 * time.Second
	// TTLMin is the shortest lease.
	TTLMin = time.Second

	callMax        = 20 * time.Second // one call, without the wait for a lease
	connectMax     = 5 * time.Second
	statementMax   = 15 * time.Second
	lockMax        = 8 * time.Second
	idleMax        = 5 * time.Second // a transaction whose process has stopped or is cut off
	cancelPatience = 2 * time.Second // for the server to end a statement
	stateConns     = 3               // and one for leases
)

// Config says where a store is and how to use it.
type Config struct {
	// URL of the database: postgres://user:password@host:5432/database. No error shows it.
	URL string
	// TTL is how long a lease lasts after its last renewal. 0: DefaultTTL.
	TTL time.Duration
	// Wait bounds how long Acquire waits for another owner's lease to run out.
	// 0: TTL and two seconds.
	Wait time.Duration
	// Name of this process in messages; empty: the name of the program.
	Name string
	// Rebuild sets aside what is damaged and begins anew, to be filled from the
	// destinations' receipts: see the package comment. What is sound is left alone. It is
	// the operator's word that this is wanted.
	Rebuild bool
}

func (c Config) withDefaults() Config {
	c.TTL = cmp.Or(c.TTL, DefaultTTL)
	c.Wait = cmp.Or(c.Wait, c.TTL+2*time.Second)
	return c
}

// target is a database to connect to.
type target struct {
	path string // host:port/database, for messages
	pool *pgxpool.Config
}

// session makes a session independent of what role, database and server have as
// defaults. It is sent after the login, because poolers refuse parameters in it.
var session = func() string {
	var b strings.Builder
	for _, s := range [][2]string{
		{"synchronous_commit", "on"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_deferrable", "off"},
		{"client_encoding", "UTF8"},
		{"standard_conforming_strings", "on"},
		{"bytea_output", "hex"},
		{"DateStyle", "ISO"},
		{"TimeZone", "UTC"},
		{"search_path", "pg_catalog"},
		{"row_security", "off"},
		{"statement_timeout", milliseconds(statementMax)},
		{"lock_timeout", milliseconds(lockMax)},
		{"idle_in_transaction_session_timeout", milliseconds(idleMax)},
		// A peer that is gone without a word: also in the middle of what it was sending, where
		// none of the limits above counts.
		{"tcp_user_timeout", milliseconds(callMax)},
		{"tcp_keepalives_idle", "10"},
		{"tcp_keepalives_interval", "5"},
		{"tcp_keepalives_count", "2"},
	} {
		b.WriteString("SET " + s[0] + " = '" + s[1] + "';")
	}
	return b.String()
}()

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// errURL repeats nothing of the text: any part of it may be one of the password.
var errURL = fmt.Errorf("%w: the URL cannot be read; its text is not shown because it may hold a password: "+
	"write it as postgres://user:password@host:5432/database, with %%-escapes for what is no letter or digit", statestore.ErrAddress)

// newTarget looks at the text of a URL only. Its errors hold no secrets.
func newTarget(text string) (*target, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" || u.Host == "" {
		return nil, errURL
	}
	cfg, err := pgxpool.ParseConfig(text)
	if err != nil {
		password, _ := u.User.Password()
		cause := errors.Unwrap(err) // without the text that was parsed
		if cause == nil || password != "" && strings.Contains(cause.Error(), password) {
			return nil, errURL
		}
		return nil, fmt.Errorf("%w: the URL: %w", statestore.ErrAddress, errors.New(cause.Error()))
	}
	c := cfg.ConnConfig
	c.ConnectTimeout = connectMax
	c.DefaultQueryExecMode = pgx.QueryExecModeCacheStatement
	if c.RuntimeParams["application_name"] = "rb:state"; c.RuntimeParams["search_path"] != "" {
		delete(c.RuntimeParams, "search_path")
	}
	c.DialFunc = (&net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: connectMax, Interval: connectMax, Count: 3}}).DialContext
	// Who stops waiting stops the statement too: it may hold locks.
	c.BuildContextWatcherHandler = func(pg *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: pg, DeadlineDelay: cancelPatience}
	}
	cfg.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.PgConn().Exec(ctx, session).ReadAll()
		return err
	}
	cfg.MinConns, cfg.MinIdleConns, cfg.MaxConnIdleTime = 0, 0, time.Minute
	path := net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))) + "/" + cmp.Or(c.Database, c.User)
	return &target{path: path, pool: cfg}, nil
}

// open returns a pool of at most conns connections; it makes them when they are needed.
func (t *target) open(conns int32) (*pgxpool.Pool, error) {
	cfg := t.pool.Copy()
	cfg.MaxConns = conns
	return pgxpool.NewWithConfig(context.Background(), cfg)
}

package sqltransform

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/apache/arrow-go/v18/arrow"

	"rapidbyte.io/node/connectors/internal/duckarrow"
	"rapidbyte.io/node/messages"
)

// databases holds the two embedded databases of a Transform. They differ in one
// setting that DuckDB keeps per database: the planner may drop unused columns
// from a scan, which tells what a query touches; the runner must not, because a
// feed always yields all its columns. Neither may push a filter into a feed,
// which would ignore it.
type databases struct {
	cfg Config

	mu       sync.Mutex
	closed   bool
	planner  *duckarrow.DB
	runner   *duckarrow.DB
	unstable map[string]string // see unstableFunctions; nil until it is read
}

// catalogues numbers the catalogues of all sessions in the process.
var catalogues atomic.Uint64

func (d *databases) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	d.drop()
}

// drop closes the databases; the next session opens new ones.
func (d *databases) drop() {
	for _, db := range []**duckarrow.DB{&d.planner, &d.runner} {
		if *db != nil {
			(*db).Close()
			*db = nil
		}
	}
}

// spoiled drops the databases after an internal error of DuckDB.
func (d *databases) spoiled() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drop()
}

// session opens a connection with a catalogue of its own.
func (d *databases) session(ctx context.Context, planner bool) (*session, error) {
	conn, err := d.connect(ctx, planner)
	if err != nil {
		return nil, err
	}
	s := &session{conn: conn, catalogue: "c" + strconv.FormatUint(catalogues.Add(1), 10)}
	if _, err := conn.Exec(ctx, "ATTACH ':memory:' AS "+s.catalogue+"; USE "+s.catalogue); err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

func (d *databases) connect(ctx context.Context, planner bool) (*duckarrow.Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errors.New("the transform is closed")
	}
	db, disabled := &d.runner, "filter_pushdown,in_clause,unused_columns"
	if planner {
		db, disabled = &d.planner, "filter_pushdown,in_clause"
	}
	if *db == nil {
		opened, err := openMemory(ctx, d.cfg, disabled)
		if err != nil {
			return nil, err
		}
		*db = opened
	}
	return (*db).Connect()
}

// openMemory opens a database that reaches nothing outside of itself.
func openMemory(ctx context.Context, cfg Config, disabled string) (*duckarrow.DB, error) {
	db, err := duckarrow.Memory(map[string]string{
		"threads":                      strconv.Itoa(cfg.Threads),
		"max_memory":                   fmt.Sprintf("%dKiB", int64(cfg.MaxMemory)>>10),
		"autoinstall_known_extensions": "false",
		"autoload_known_extensions":    "false",
		"allow_community_extensions":   "false",
		"preserve_insertion_order":     "true",
	})
	if err != nil {
		return nil, err
	}
	conn, err := db.Connect()
	if err == nil {
		defer conn.Close()
		_, err = conn.Exec(ctx, strings.Join([]string{
			"SET temp_directory = ''",
			"SET GLOBAL TimeZone = 'UTC'",
			"SET GLOBAL explain_output = 'all'",
			"SET disabled_optimizers = " + duckarrow.Literal(disabled),
			"SET enable_external_access = false",
			"SET lock_configuration = true",
		}, "; "))
	}
	if err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
}

// session is a connection that sees one catalogue: the streams it was told.
type session struct {
	conn      *duckarrow.Conn
	catalogue string
	feeds     []*duckarrow.Feed
}

func (s *session) close(ctx context.Context) {
	// The catalogue goes with its connection; an error leaves an empty one behind.
	_, _ = s.conn.Exec(context.WithoutCancel(ctx), "USE memory; DETACH "+s.catalogue)
	s.conn.Close()
	for _, f := range s.feeds {
		f.Close()
	}
	s.feeds = nil
}

// feedName is the view that holds the batch; the stream's names are views of it.
const feedName = "rapidbyte_batch"

// offer makes schema visible under every name of the stream.
func (s *session) offer(ctx context.Context, stream messages.StreamID, schema *arrow.Schema) (*duckarrow.Feed, error) {
	feed, err := s.conn.Feed(feedName, schema)
	if err != nil {
		return nil, err
	}
	s.feeds = append(s.feeds, feed)
	for _, n := range namesOf(stream) {
		if strings.EqualFold(n.String(), duckarrow.Quote(feedName)) {
			continue
		}
		sql := "CREATE OR REPLACE VIEW " + n.String() + " AS FROM " + s.catalogue + ".main." + feedName
		if n.schema != "" {
			sql = "CREATE SCHEMA IF NOT EXISTS " + s.catalogue + "." + duckarrow.Quote(n.schema) + "; CREATE OR REPLACE VIEW " +
				s.catalogue + "." + n.String() + " AS FROM " + s.catalogue + ".main." + feedName
		}
		if _, err := s.conn.Exec(ctx, sql); err != nil && n.required {
			return nil, err
		}
	}
	return feed, nil
}

// name is one way to write a stream in a query.
type name struct {
	schema, table string
	required      bool // the others are conveniences that a reserved schema name may forbid
}

func (n name) String() string {
	if n.schema == "" {
		return duckarrow.Quote(n.table)
	}
	return duckarrow.Quote(n.schema) + "." + duckarrow.Quote(n.table)
}

// namesOf returns the names of a stream: the whole one, and for "schema.table"
// the qualified one and the bare table.
func namesOf(stream messages.StreamID) []name {
	whole := string(stream)
	names := []name{{table: whole, required: true}}
	add := func(at int) {
		if at > 0 && at < len(whole)-1 {
			names = append(names, name{schema: whole[:at], table: whole[at+1:]}, name{table: whole[at+1:]})
		}
	}
	first, last := strings.IndexByte(whole, '.'), strings.LastIndexByte(whole, '.')
	add(first)
	if last != first {
		add(last)
	}
	return names
}

package faulttest

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors/postgres/pgtest"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/config"
	"rapidbyte.io/node/runtime/node"
	"rapidbyte.io/node/runtime/plugin"
)

// hangs is when a run is declared stuck: the slowest takes seconds.
const hangs = 2 * time.Minute

// tick is how often something is looked at that only time brings.
const tick = 10 * time.Millisecond

// rig is two databases and a proxy before each.
type rig struct {
	t            *testing.T
	source, dest *pgtest.Server
	shop, dw     string // databases
	from, to     *pgtest.Proxy
	dir          string
}

// ends are what a rig has been told to put into a document.
type ends struct {
	mode      string // write_mode
	tables    []string
	source    string // further keys of its configuration, each with a comma before
	dest      string
	stream    string // further keys of each stream
	state     string // connection of the state store; empty: a file
	resources string
}

// newRig makes the databases at the shared server.
func newRig(t *testing.T) *rig {
	t.Helper()
	s := pgtest.Shared(t)
	return newRigAt(t, s, s)
}

func newRigAt(t *testing.T, source, dest *pgtest.Server) *rig {
	t.Helper()
	r := &rig{t: t, source: source, dest: dest, dir: t.TempDir()}
	r.from, r.to = pgtest.NewProxy(t, source.Port()), pgtest.NewProxy(t, dest.Port())
	r.shop, r.dw = source.Database(t), dest.Database(t)
	return r
}

// afresh is r for another test, as if nothing had been run before: databases are dear.
func (r *rig) afresh(t *testing.T) *rig {
	t.Helper()
	out := *r
	out.t, out.dir = t, t.TempDir()
	out.from.Judge(nil)
	out.to.Judge(nil)
	out.dest.Exec(t, out.dw, `DO $$ DECLARE name text; BEGIN
		FOR name IN SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' LOOP EXECUTE format('DROP TABLE %I', name); END LOOP;
		DROP SCHEMA IF EXISTS _rapidbyte CASCADE; END $$`)
	return &out
}

// fill makes a table of the source. It has no key: one would hide a row that is there
// twice.
func (r *rig) fill(table string, rows int) {
	r.t.Helper()
	r.source.Exec(r.t, r.shop, fmt.Sprintf(`CREATE TABLE %[1]s (id bigint NOT NULL, v text, at timestamptz);
		INSERT INTO %[1]s SELECT i, md5(i::text) || repeat('x', 60), '2026-01-01'::timestamptz + i * interval '1 second' FROM generate_series(1, %[2]d) i`, table, rows))
}

func (r *rig) document(e ends) string {
	var b strings.Builder
	fmt.Fprintf(&b, `version: "1.0"
pipeline: faults
source:
  use: postgres
  config: {host: 127.0.0.1, port: %d, user: %s, database: %s, sslmode: disable%s}
  streams:
`, r.from.Port(), r.source.User(), r.shop, e.source)
	for _, table := range e.tables {
		fmt.Fprintf(&b, "    - {name: %s%s}\n", table, e.stream)
	}
	fmt.Fprintf(&b, `destination:
  use: postgres
  config: {host: 127.0.0.1, port: %d, user: %s, database: %s, sslmode: disable%s}
  write_mode: %s
`, r.to.Port(), r.dest.User(), r.dw, e.dest, e.mode)
	if e.mode == "upsert" {
		b.WriteString("  primary_key: [id]\n")
	}
	fmt.Fprintf(&b, "state: {connection: %q}\nresources: {checkpoint_interval_rows: 2000, parallelism: 2%s}\n", cmp.Or(e.state, filepath.Join(r.dir, "state.db")), e.resources)
	return b.String()
}

// story is how a run went.
type story struct {
	messages.RunResult
	events []messages.Event
}

// run runs a document to its end.
func (r *rig) run(text string) story {
	r.t.Helper()
	return r.runWith(text, nil, func() {})
}

// runWith runs a document to its end, and meanwhile does something. mem, if not nil, is
// where batches are allocated.
func (r *rig) runWith(text string, mem memory.Allocator, meanwhile func()) (s story) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), hangs)
	defer cancel()
	doc, err := config.Parse("p.yaml", []byte(text), plugin.Builtins(), config.OS())
	require.NoError(r.t, err)
	spec, err := node.Build(ctx, doc, node.BuildOptions{})
	require.NoError(r.t, err)
	spec.Mem = mem
	store, err := node.OpenStore(ctx, doc, false)
	require.NoError(r.t, err)
	var mu sync.Mutex
	n := node.Start(node.Options{Observe: func(e messages.Event) {
		mu.Lock()
		defer mu.Unlock()
		s.events = append(s.events, e)
	}})
	done := make(chan messages.RunResult, 1)
	go func() { done <- n.Run(ctx, spec, store) }()
	meanwhile()
	s.RunResult = <-done
	r.t.Cleanup(func() {
		for _, e := range s.events {
			if r.t.Failed() && e.Kind != messages.EventProgress {
				r.t.Logf("%s %s %s %v %s %v", e.Time.Format("05.000"), e.Kind, e.Part, e.Token, e.Message, e.Failure)
			}
		}
	})
	n.Stop()
	require.NoError(r.t, store.Close())
	require.NoError(r.t, ctx.Err(), "the run hung")
	return s
}

// causes are the texts of all retries: of tasks, of the run before it had any, and of
// Finish, which a warning tells.
func (s story) causes() []string {
	var out []string
	for _, e := range s.events {
		switch {
		case e.Kind == messages.EventTaskRetry || e.Kind == messages.EventRunRetry:
			out = append(out, e.Failure.Error())
		case e.Kind == messages.EventWarning && strings.Contains(e.Message, "trying again"):
			out = append(out, e.Message)
		}
	}
	return out
}

// retries counts those of tasks as the result has them.
func (s story) retries() (n int) {
	for _, st := range s.Streams {
		n += st.Retries
	}
	return n
}

// aftermath are texts of what a lost connection does to this process: never a first cause.
var aftermath = []string{"context canceled", "conn closed", "closed network connection", "the connection is closed", "cannot be used any more", "the writer is closed", "the reader was closed"}

// completed requires that s met a fault, that its cause was told with one of the texts,
// and that every row of tables has arrived times times.
func (r *rig) completed(s story, e ends, times int, says ...string) {
	r.t.Helper()
	require.Nil(r.t, s.Failure, "%v", s.Failure)
	require.Equal(r.t, messages.RunCompleted, s.State)
	r.told(s, says...)
	r.same(e, times)
	r.deserted()
}

// told requires that every retry is told, with its first cause.
func (r *rig) told(s story, says ...string) {
	r.t.Helper()
	causes := s.causes()
	tasks := 0
	for _, e := range s.events {
		if e.Kind == messages.EventTaskRetry {
			tasks++
			require.NotEmpty(r.t, e.Failure.Next)
			require.NotEmpty(r.t, e.Failure.Where.Stage)
			require.NotEmpty(r.t, e.Failure.Where.Part)
		}
	}
	require.Equal(r.t, tasks, s.retries(), "the result counts the retries of tasks")
	if len(says) > 0 {
		require.NotEmpty(r.t, causes, "the fault was met")
	}
	for _, text := range causes {
		for _, a := range aftermath {
			require.NotContains(r.t, text, a)
		}
		if len(says) > 0 {
			r.says(text, says...)
		}
	}
}

// says requires that text holds one of some texts.
func (r *rig) says(text string, some ...string) {
	r.t.Helper()
	for _, s := range some {
		if strings.Contains(text, s) {
			return
		}
	}
	require.Fail(r.t, "it says something else", "%s\nsays none of %q", text, some)
}

// same compares the rows of both ends.
func (r *rig) same(e ends, times int) {
	r.t.Helper()
	for _, table := range e.tables {
		const digest = "SELECT %[2]d * count(*), %[2]d * sum(hashtextextended(t::text, 0)::numeric), %[2]d * sum(hashtextextended(t::text, 1)::numeric) FROM (SELECT id, v, at FROM %[1]s) t"
		require.Equal(r.t, r.source.Query(r.t, r.shop, fmt.Sprintf(digest, table, times)), r.dest.Query(r.t, r.dw, fmt.Sprintf(digest, table, 1)), table)
	}
}

// deserted requires that no session of the run is left.
func (r *rig) deserted() {
	r.t.Helper()
	for _, end := range []struct {
		s  *pgtest.Server
		db string
	}{{r.source, r.shop}, {r.dest, r.dw}} {
		require.Eventually(r.t, func() bool {
			return r.count(end.s, end.db, "FROM pg_stat_activity WHERE application_name LIKE 'rb:%' AND datname = current_database()") == "0"
		}, 10*time.Second, tick, "a session is left")
	}
}

func (r *rig) count(s *pgtest.Server, db, from string) string {
	r.t.Helper()
	return s.Query(r.t, db, "SELECT count(*) "+from)[0][0]
}

// once applies a fate to the n-th message that meets a condition, and then never again.
func once(n int, f pgtest.Fate, when func(pgtest.Message) bool) (judge func(pgtest.Message) pgtest.Fate, met func() bool) {
	seen := 0
	return func(m pgtest.Message) pgtest.Fate {
			if seen >= n || !when(m) {
				return pgtest.Pass
			}
			if seen++; seen < n {
				return pgtest.Pass
			}
			return f
		}, func() bool {
			return seen >= n
		}
}

// frozen holds a proxy at the n-th message that meets a condition: reached waits for that,
// release lets everything go on.
func (r *rig) frozen(p *pgtest.Proxy, n int, when func(pgtest.Message) bool) (reached, release func()) {
	there, thaw := make(chan struct{}), make(chan struct{})
	seen := 0
	p.Judge(func(m pgtest.Message) pgtest.Fate {
		if seen < n && when(m) {
			if seen++; seen == n {
				close(there)
				<-thaw
			}
		}
		return pgtest.Pass
	})
	release = sync.OnceFunc(func() { close(thaw) })
	r.t.Cleanup(release)
	return func() {
		r.t.Helper()
		select {
		case <-there:
		case <-time.After(hangs):
			require.Fail(r.t, "the message never came")
		}
	}, release
}

// rowsTo are messages that hold rows on their way to the destination, rowsFrom those from
// the source.
func rowsTo(m pgtest.Message) bool   { return m.Type == 'd' && !m.FromServer }
func rowsFrom(m pgtest.Message) bool { return m.Type == 'd' && m.FromServer }

package killtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/pgtest"
	"rapidbyte.io/node/messages"
)

// serverScenarios move rows between two databases of one server. The modes take turns,
// so that campaigns of following seeds have them all.
var serverScenarios = []scenario{
	{name: "tables and views appended", to: "postgres", server: true, streams: []stream{
		{name: "a", mode: appends, rows: 2200},
		{name: "b", mode: appends, rows: 600, ranges: true},
		{name: "c", mode: appends, rows: 600, view: true, sql: true},
	}},
	{name: "tables upserted", to: "postgres", server: true, streams: []stream{
		{name: "a", mode: upserts, rows: 1000},
		{name: "b", mode: upserts, rows: 700, sql: true},
		{name: "c", mode: upserts, rows: 700, ranges: true},
	}},
	{name: "tables replaced by renaming", to: "postgres", server: true, swap: "rename", streams: []stream{
		{name: "a", mode: replaces, rows: 1000},
		{name: "b", mode: replaces, rows: 500, view: true},
		{name: "c", mode: replaces, rows: 700},
		{name: "d", mode: replaces, rows: 500},
	}},
	{name: "new rows appended", to: "postgres", server: true, streams: []stream{
		{name: "a", mode: appends, rows: 1300, follow: true},
		{name: "b", mode: appends, rows: 1000, follow: true},
		{name: "c", mode: appends, rows: 700, follow: true, sql: true},
	}},
	{name: "changed rows upserted", to: "postgres", server: true, streams: []stream{
		{name: "a", mode: upserts, rows: 1300, follow: true},
		{name: "b", mode: upserts, rows: 1000, follow: true},
	}},
	{name: "tables replaced for every snapshot", to: "postgres", server: true, swap: "mvcc", streams: []stream{
		{name: "a", mode: replaces, rows: 1000},
		{name: "b", mode: replaces, rows: 500, view: true},
		{name: "c", mode: replaces, rows: 700},
		{name: "d", mode: replaces, rows: 500},
	}},
}

// betweenServers returns the n-th of the scenarios. They take turns, with either state
// store.
func betweenServers(n uint64) scenario {
	kinds := uint64(len(serverScenarios))
	s := serverScenarios[n%kinds]
	s.shared = n/kinds%2 > 0
	return s
}

func (s scenario) mode() connectors.WriteMode { return s.streams[0].mode }

// A campaign has more kills than those of the others, because databases cost time, and
// more than it counts for, because some meet a run in which no row moves.
const (
	killsPerServerCampaign  = 22
	countsPerServerCampaign = 20
)

func TestPGKilledRunsMoveEveryRowExactlyOnce(t *testing.T) {
	wanted := envInt(t, "RB_KILLS", killsWanted) // of each mode
	modes := []connectors.WriteMode{appends, upserts, replaces}
	first, each := 0, (wanted+countsPerServerCampaign-1)/countsPerServerCampaign
	campaigns := each * len(modes)
	if only := envInt(t, "RB_SEED", -1); only >= 0 {
		first, campaigns, wanted = only, 1, countsPerServerCampaign
	}
	server := pgtest.Start(t, "autovacuum=off")
	var mu sync.Mutex
	all := map[connectors.WriteMode]*sights{}
	begin := time.Now()
	t.Run("campaigns", func(t *testing.T) {
		for i := range campaigns {
			seed := uint64(first + i)
			s := betweenServers(seed)
			t.Run(fmt.Sprintf("seed %d %s, state in %s", seed, s.name, s.stateStore()), func(t *testing.T) {
				t.Parallel()
				c := newServerCampaign(t, seed, s, server)
				c.run(killsPerServerCampaign)
				mu.Lock()
				defer mu.Unlock()
				if all[s.mode()] == nil {
					all[s.mode()] = &sights{}
				}
				all[s.mode()].add(c.sights)
			})
		}
	})
	if t.Failed() {
		return
	}
	for mode, s := range all {
		t.Logf("%s: %+v", mode, *s)
		require.GreaterOrEqual(t, s.kills, wanted, mode)
		if wanted >= killsWanted/4 {
			require.GreaterOrEqual(t, s.moving*4, wanted*3, "%s: too few runs were killed while rows moved", mode)
		}
	}
	t.Logf("%v", time.Since(begin).Round(time.Second))
	require.NotContains(t, server.Log(t), "PANIC")
}

func newServerCampaign(t *testing.T, seed uint64, s scenario, server *pgtest.Server) *campaign {
	t.Helper()
	binary, err := program()
	require.NoError(t, err)
	return newServerCampaignIn(t, s, seed, binary, keptFolder(t, replay("TestPGKilled", seed), seed, s), server)
}

func newServerCampaignIn(t *testing.T, s scenario, seed uint64, binary, dir string, server *pgtest.Server) *campaign {
	t.Helper()
	c := &campaign{
		t: t, scenario: s, random: rand.New(rand.NewPCG(seed, 2)), binary: binary, dir: dir, oracles: map[string]*oracle{}, //nolint:gosec // reproducible on purpose
		ends: newEnds(t, server), versions: &versions{of: map[string]int{}},
	}
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "log"), 0o755))
	c.to = serverDestination{c.ends, s}
	if s.shared {
		shared := &sharedStore{ends: c.ends}
		c.store = shared.read
		t.Cleanup(func() { require.NoError(t, shared.close()) })
	}
	for _, st := range s.streams {
		c.oracles[st.name] = &oracle{mode: st.mode}
		require.NoError(t, c.ends.create(t.Context(), st))
	}
	return c
}

// ends are the two databases of a campaign.
type ends struct {
	server         *pgtest.Server
	from, to       string    // their names
	source, target *pgx.Conn // of the test itself
	ghosts         []*pgx.Conn
}

func newEnds(t *testing.T, server *pgtest.Server) *ends {
	t.Helper()
	e := &ends{server: server, from: emptied.take(t, server), to: emptied.take(t, server)}
	t.Cleanup(func() { // when all connections are closed
		if !t.Failed() {
			emptied.give(t, server, e.from)
			emptied.give(t, server, e.to)
		}
	})
	e.source, e.target = connected(t, server, e.from), connected(t, server, e.to)
	t.Cleanup(e.exorcise)
	return e
}

// databases are used again, because CREATE and DROP DATABASE take half a second each while
// others write: a checkpoint. They go with their server.
type databases struct {
	sync.Mutex
	made int
	free map[*pgtest.Server][]string
	used map[string]int
}

var emptied = databases{free: map[*pgtest.Server][]string{}, used: map[string]int{}}

// usesMost bounds what a catalog remembers of tables that are gone.
const usesMost = 10

func (d *databases) take(t *testing.T, server *pgtest.Server) string {
	t.Helper()
	d.Lock()
	defer d.Unlock()
	if free := d.free[server]; len(free) > 0 {
		d.free[server] = free[1:]
		return free[0]
	}
	d.made++
	name := fmt.Sprintf("k%d", d.made)
	server.Exec(t, "postgres", "CREATE DATABASE "+name)
	return name
}

func (d *databases) give(t *testing.T, server *pgtest.Server, name string) {
	t.Helper()
	d.Lock()
	d.used[name]++
	last := d.used[name] == usesMost
	d.Unlock()
	if last {
		server.Exec(t, "postgres", "DROP DATABASE "+name+" WITH (FORCE)")
		return
	}
	server.Exec(t, name, `DO $$ DECLARE name text; BEGIN
		FOR name IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' LOOP
			EXECUTE format('DROP SCHEMA %I CASCADE', name);
		END LOOP;
		CREATE SCHEMA public;
	END $$`)
	d.Lock()
	defer d.Unlock()
	d.free[server] = append(d.free[server], name)
}

func connected(t *testing.T, server *pgtest.Server, db string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), server.URL(db))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close(context.Background())) })
	return conn
}

const tableColumns = "(id bigint NOT NULL, name text NOT NULL, qty bigint NOT NULL, price double precision NOT NULL, flag boolean"

// base is the table of a stream at the source.
func (st stream) base() string {
	if st.view {
		return st.name + "_base"
	}
	return st.name
}

// create makes the table of a stream. One that is read, and committed, by ranges of blocks
// has a row per block, by a wide column that is not read; others have an index for how they
// are read. A key of the source would become one of a target that is appended to, and hide
// rows there: that target is made without.
func (e *ends) create(ctx context.Context, st stream) error {
	key, pad, wide := "", 0, ""
	if st.mode == upserts || st.follow {
		key = ", PRIMARY KEY (id)"
	}
	if !st.view && !st.ranges && !st.follow {
		pad, wide = 600, " WITH (fillfactor = 10)"
	}
	_, err := e.source.Exec(ctx, fmt.Sprintf("CREATE TABLE %s %s, pad text DEFAULT repeat('-', %d)%s)%s", st.base(), tableColumns, pad, key, wide))
	if err == nil && (st.ranges || st.view) {
		_, err = e.source.Exec(ctx, "CREATE INDEX ON "+st.base()+" (id)")
	}
	if err == nil && st.follow {
		_, err = e.source.Exec(ctx, "CREATE INDEX ON "+st.base()+" (qty, id)")
	}
	if err == nil && st.view {
		_, err = e.source.Exec(ctx, "CREATE VIEW "+st.name+" AS SELECT * FROM "+st.base())
	}
	if err == nil && st.mode == appends && key != "" {
		_, err = e.target.Exec(ctx, "CREATE TABLE "+st.name+" "+tableColumns+")")
	}
	return err
}

// fill makes rows those of a stream's table (append and replace of all that is there),
// or adds them to it, over those of the same id.
func (e *ends) fill(ctx context.Context, st stream, rows []row) error {
	return pgx.BeginFunc(ctx, e.source, func(tx pgx.Tx) error {
		names := strings.Join(columns, ", ")
		statements := []string{"CREATE TEMP TABLE fresh ON COMMIT DROP AS SELECT " + names + " FROM " + st.base() + " WITH NO DATA"}
		if st.mode != upserts && !st.follow {
			statements = append(statements, "TRUNCATE "+st.base())
		}
		for _, sql := range statements {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		if _, err := tx.CopyFrom(ctx, pgx.Identifier{"fresh"}, columns, pgx.CopyFromSlice(len(rows), func(i int) ([]any, error) {
			r := rows[i]
			return []any{r.ID, r.Name, r.Qty, r.Price, r.Flag}, nil
		})); err != nil {
			return err
		}
		sql := "INSERT INTO " + st.base() + " (" + names + ") TABLE fresh"
		if st.mode == upserts {
			sql += " ON CONFLICT (id) DO UPDATE SET name = excluded.name, qty = excluded.qty, price = excluded.price, flag = excluded.flag"
		}
		_, err := tx.Exec(ctx, sql)
		return err
	})
}

// table provides the rows of the next generation of a stream of a server.
func (c *campaign) table(st stream) []row {
	c.t.Helper()
	rows := make([]row, 0, st.rows)
	first := int64(c.generation * 1_000_000)
	if st.mode == upserts && c.generation > 1 { // every second of those that were there at first
		for _, id := range c.random.Perm(st.rows)[:st.rows/2] {
			rows = append(rows, someRow(c.random, int64(1_000_000+id)))
		}
	}
	for i := len(rows); i < st.rows; i++ {
		rows = append(rows, someRow(c.random, first+int64(i)))
		if st.mode == appends && !st.follow && i > 0 && c.random.IntN(100) == 0 {
			rows[i] = rows[i-1] // the source may have a row twice
		}
	}
	if st.follow {
		c.clock(st, rows)
	}
	require.NoError(c.t, c.ends.fill(c.t.Context(), st, rows))
	return rows
}

// clock gives rows cursors that grow from generation to generation. Several rows have
// one; of new rows some have the last of the generation before, with greater ids.
func (c *campaign) clock(st stream, rows []row) {
	const alike = 7
	cursor := func(generation, i int) int64 { return int64(generation*1_000_000 + i/alike) }
	for i := range rows {
		rows[i].Qty = cursor(c.generation, i)
		if st.mode == appends && c.generation > 1 && i < alike/2 {
			rows[i].Qty = cursor(c.generation-1, st.rows-1)
		}
	}
}

// document is that of a scenario between the two databases.
func (e *ends) document(s scenario) string {
	var b strings.Builder
	fmt.Fprintf(&b, "version: \"1.0\"\npipeline: %s\nsource:\n  use: postgres\n  config: {dsn: %q}\n  streams:\n", pipeline, e.server.URL(e.from))
	for _, st := range s.streams {
		fmt.Fprintf(&b, "    - {name: %s, write_mode: %s, columns: [%s]", st.name, st.mode, strings.Join(columns, ", "))
		if st.view || st.ranges {
			b.WriteString(", partition_key: id")
		}
		if st.follow {
			b.WriteString(", sync_mode: incremental, cursor_field: qty, tie_breaker_field: id")
		}
		b.WriteString("}\n")
	}
	b.WriteString(s.transforms())
	fmt.Fprintf(&b, "destination:\n  use: postgres\n  config: {dsn: %q", e.server.URL(e.to))
	if s.swap != "" {
		b.WriteString(", swap: " + s.swap)
	}
	b.WriteString("}\n")
	if !slices.ContainsFunc(s.streams, func(st stream) bool { return st.mode != upserts }) {
		b.WriteString("  primary_key: [id]\n") // a transform does not hand on that of the source
	}
	if s.shared {
		fmt.Fprintf(&b, "state: {backend: postgres, connection: %q}\n", e.server.URL(e.to))
	} else {
		b.WriteString("state: {backend: bbolt, connection: state/state.db}\n")
	}
	return b.String() + "resources: {checkpoint_interval_rows: 50, max_batch_bytes: 32kb, parallelism: 2}\n"
}

// takenOver returns what looks, when the first task of a run starts, for sessions that
// a killed run has left: the take-over must have ended them, at both ends.
func (e *ends) takenOver(ctx context.Context) func(messages.Event) error {
	looked := false
	return func(event messages.Event) error {
		if event.Kind != messages.EventTaskStarted || looked {
			return nil
		}
		looked = true
		left, err := e.sessions(ctx, event.Token.Epoch)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("sessions are left behind the take-over by epoch %d: %s", event.Token.Epoch, strings.Join(left, ", "))
		}
		return err
	}
}

// haunt leaves a session at each end as a killed run does whose connections are cut on
// their way: the server does not learn that the client is gone, and it keeps its locks.
func (e *ends) haunt(ctx context.Context, epoch messages.Epoch, s scenario) error {
	id := uuid.NewSHA1(uuid.NameSpaceOID, []byte(pipeline))
	for db, table := range map[string]string{e.from: s.streams[0].base(), e.to: s.streams[0].name} {
		conn, err := pgx.Connect(ctx, e.server.URL(db))
		if err != nil {
			return err
		}
		e.ghosts = append(e.ghosts, conn)
		var there bool
		if err := conn.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", table).Scan(&there); err != nil {
			return err
		}
		sql := fmt.Sprintf("SET application_name = 'rb:%x:e:%d'; BEGIN", id[:4], epoch)
		if there {
			sql += "; LOCK TABLE " + table + " IN ROW EXCLUSIVE MODE"
		}
		if _, err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// exorcise ends the sessions that haunt made and no run has ended.
func (e *ends) exorcise() {
	for _, conn := range e.ghosts {
		_ = conn.Close(context.Background()) // the server may have closed it
	}
	e.ghosts = nil
}

// sessions lists those of the program, of epochs below one.
func (e *ends) sessions(ctx context.Context, below messages.Epoch) ([]string, error) {
	rows, err := e.target.Query(ctx, `SELECT format('%s in %s (%s, %s: %s)', application_name, datname, state, wait_event, left(query, 60)) FROM pg_stat_activity
		WHERE datname = ANY ($1) AND application_name ~ '^rb:[0-9a-f]{8}:e:[0-9]+$' AND substring(application_name from '[0-9]+$')::bigint < $2`,
		[]string{e.from, e.to}, int64(below)) //nolint:gosec // a handful
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// alone, when no process runs, waits until no session of the program is left: the server notices by itself that
// a client is gone.
func (e *ends) alone(ctx context.Context) error {
	const patience = 20 * time.Second
	e.exorcise()
	for end := time.Now().Add(patience); ; time.Sleep(3 * time.Millisecond) {
		left, err := e.sessions(ctx, 1<<62)
		if err != nil || len(left) == 0 {
			return err
		}
		if time.Now().After(end) {
			return errors.New("sessions of a process that is gone: " + strings.Join(left, ", "))
		}
	}
}

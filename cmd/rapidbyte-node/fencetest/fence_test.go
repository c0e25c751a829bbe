package fencetest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors/postgres/pgtest"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/failpoint"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const (
	sourceRows = 6000
	lease      = 3 * time.Second
	atOnce     = 2                // rounds
	patience   = 90 * time.Second // for anything a process does
)

// round is one take-over.
type round struct {
	seed  uint64
	mode  string
	point failpoint.Point
	hit   int
}

func (r round) String() string {
	return fmt.Sprintf("seed %d: %s, stopped at %s, hit %d", r.seed, r.mode, r.point, r.hit)
}

// rounds draws n rounds: the modes and points by turns, the hits at random.
func rounds(first uint64, n int) (out []round) {
	modes := []string{"append", "upsert", "replace"}
	points := []failpoint.Point{failpoint.DestCopyMid, failpoint.DestReceipt, failpoint.DestCommitSent}
	for i := range n {
		seed := first + uint64(i) //nolint:gosec // small
		random := rand.New(rand.NewPCG(seed, 4))
		out = append(out, round{
			seed: seed, mode: modes[i/len(points)%len(modes)], point: points[i%len(points)], hit: 1 + random.IntN(5),
		})
	}
	return out
}

// figures sum up rounds.
type figures struct {
	Date     string  `json:"date"`
	Commit   string  `json:"commit"`
	Seeds    string  `json:"seeds"`
	Rounds   int     `json:"rounds"`
	Rows     int64   `json:"rows"`
	Lost     int64   `json:"lost"`
	Doubled  int64   `json:"doubled"`
	Fenced   int     `json:"fenced"`            // woken processes that ended as they must
	TakeOver float64 `json:"take_over_seconds"` // worst: from the start of the second process to its first task
	Lease    float64 `json:"lease_seconds"`
	Exit     float64 `json:"exit_seconds"` // worst: from waking the first to its end
	Seconds  float64 `json:"seconds"`
}

func TestCrashFenceOfAStoppedOwner(t *testing.T) {
	n, err := strconv.Atoi(or(os.Getenv("RB_ROUNDS"), "5"))
	require.NoError(t, err)
	first, err := strconv.ParseUint(or(os.Getenv("RB_SEED"), "1"), 10, 64)
	require.NoError(t, err)
	server := pgtest.Start(t, "fsync=off", "max_connections=100")
	bed := newBed(t, server)
	begin := time.Now()
	sum := figures{
		Date: begin.UTC().Format(time.DateOnly), Commit: commit(t), Seeds: fmt.Sprintf("%d-%d", first, first+uint64(n)-1), Lease: lease.Seconds(), //nolint:gosec // small
	}
	var mu sync.Mutex
	work := make(chan round)
	var all sync.WaitGroup
	for range atOnce {
		all.Go(func() {
			for r := range work {
				f, err := bed.play(t.Context(), r)
				mu.Lock()
				sum.add(f)
				mu.Unlock()
				if err != nil {
					t.Errorf("%s: %v", r, err)
					continue
				}
				t.Logf("%s: taken over after %.1f s, fenced after %.1f s", r, f.TakeOver, f.Exit)
			}
		})
	}
	for _, r := range rounds(first, n) {
		work <- r
	}
	close(work)
	all.Wait()
	sum.Seconds = time.Since(begin).Seconds()
	t.Logf("%+v", sum)
	require.Equal(t, n, sum.Rounds)
	if name := os.Getenv("RB_RESULTS"); name != "" {
		require.NoError(t, sum.appendTo(name))
	}
}

func (f *figures) add(o figures) {
	f.Rounds += o.Rounds
	f.Rows += o.Rows
	f.Lost += o.Lost
	f.Doubled += o.Doubled
	f.Fenced += o.Fenced
	f.TakeOver, f.Exit = max(f.TakeOver, o.TakeOver), max(f.Exit, o.Exit)
}

func (f *figures) appendTo(name string) error {
	line, err := json.Marshal(f)
	if err != nil {
		return err
	}
	out, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = out.Write(append(line, '\n'))
	return errors.Join(err, out.Close())
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func commit(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "" // no clone
	}
	return strings.TrimSpace(string(out))
}

// bed is what all rounds share.
type bed struct {
	binary           string
	dir              string
	source, to, keep string // URLs: source, target, state store
}

func newBed(t *testing.T, server *pgtest.Server) *bed {
	t.Helper()
	b := &bed{
		binary: filepath.Join(t.TempDir(), "rapidbyte-node"), dir: t.TempDir(),
		source: server.URL(server.Database(t)), to: server.URL(server.Database(t)), keep: server.URL(server.Database(t)),
	}
	out, err := exec.Command("go", "build", "-tags", "failpoints", "-buildvcs=false", "-o", b.binary, "rapidbyte.io/node/cmd/rapidbyte-node").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NoError(t, b.at(t.Context(), b.source, func(c *pgx.Conn) error {
		_, err := c.Exec(t.Context(), `CREATE TABLE items (id bigint NOT NULL, name text NOT NULL, pad text NOT NULL) WITH (fillfactor = 10);
			INSERT INTO items SELECT i, md5(i::text), repeat('-', 300) FROM generate_series(1, `+strconv.Itoa(sourceRows)+`) i; ANALYZE items`)
		return err
	}))
	return b
}

func (b *bed) at(ctx context.Context, url string, do func(*pgx.Conn) error) error {
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	return errors.Join(do(c), c.Close(ctx))
}

func (b *bed) document(r round) string {
	return fmt.Sprintf(`version: "1.0"
pipeline: fence_%d
source: {use: postgres, config: {dsn: %q}, streams: [{name: items}]}
destination: {use: postgres, config: {dsn: %q}, write_mode: %s, primary_key: [id], target: fence_%d}
state: {backend: postgres, connection: %q, lease_ttl: %s}
resources: {checkpoint_interval_rows: 500, max_batch_bytes: 64kb, parallelism: 2}
`, r.seed, b.source, b.to, r.mode, r.seed, b.keep, lease)
}

// play plays one round and reports what it saw, with an error as far as it came.
func (b *bed) play(ctx context.Context, r round) (f figures, err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*patience)
	defer cancel()
	dir := filepath.Join(b.dir, strconv.FormatUint(r.seed, 10))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return f, err
	}
	if err := os.WriteFile(filepath.Join(dir, "p.yaml"), []byte(b.document(r)), 0o600); err != nil {
		return f, err
	}
	held, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		return f, err
	}
	defer held.Close()
	first := b.start(ctx, dir, "RB_FAILPOINTS="+fmt.Sprintf("%s=block@%d", r.point, r.hit), "RB_FAILPOINTS_SOCKET="+held.Addr().String())
	defer first.end()
	letGo, err := first.reached(held)
	if err != nil {
		return f, err
	}
	defer letGo.Close()
	if err := first.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return f, err
	}
	begin := time.Now()
	second := b.start(ctx, dir)
	defer second.end()
	if code, err := second.wait(); err != nil || code != 0 {
		return f, fmt.Errorf("the second process ended with code %d (%w): %s", code, err, second.text())
	}
	f.TakeOver = second.firstTask().Sub(begin).Seconds()
	before, err := b.compare(ctx, r)
	if err != nil {
		return f, err
	}
	if err := first.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		return f, err
	}
	woken := time.Now()
	if err := letGo.Close(); err != nil {
		return f, err
	}
	code, err := first.wait()
	if err != nil {
		return f, fmt.Errorf("the woken process: %w: %s", err, first.text())
	}
	f.Exit = time.Since(woken).Seconds()
	after, err := b.compare(ctx, r)
	if err != nil {
		return f, err
	}
	f.Rounds, f.Rows = 1, after.rows
	f.Lost, f.Doubled = max(before.lost, after.lost), max(before.more, after.more)
	switch {
	case f.Lost+f.Doubled > 0:
		return f, fmt.Errorf("before the first process was woken: %+v; after: %+v", before, after)
	case code != messages.ExitFenced || !strings.Contains(first.text(), string(messages.CodeFenced)):
		return f, fmt.Errorf("the woken process ended with code %d, not %d, or without %s: %s", code, messages.ExitFenced, messages.CodeFenced, first.text())
	}
	f.Fenced = 1
	return f, b.owned(ctx, r)
}

// compared is how a target differs from the source.
type compared struct{ rows, lost, more int64 }

// compare compares whole rows, with their counts.
func (b *bed) compare(ctx context.Context, r round) (c compared, err error) {
	digests := func(url, table string) (map[string]int64, error) {
		out := map[string]int64{}
		err := b.at(ctx, url, func(conn *pgx.Conn) error {
			rows, err := conn.Query(ctx, "SELECT id || md5(name || pad), count(*) FROM "+table+" GROUP BY 1")
			if err != nil {
				return err
			}
			var key string
			var n int64
			_, err = pgx.ForEachRow(rows, []any{&key, &n}, func() error { out[key] = n; return nil })
			return err
		})
		return out, err
	}
	want, err := digests(b.source, "items")
	if err != nil {
		return c, err
	}
	got, err := digests(b.to, fmt.Sprintf("fence_%d", r.seed))
	if err != nil {
		return c, err
	}
	for key, n := range want {
		c.lost += max(0, n-got[key])
	}
	for key, n := range got {
		c.rows += n
		c.more += max(0, n-want[key])
	}
	return c, nil
}

// owned requires that the pipeline belongs to the second owner, at both ends, and that it
// has written the last receipt of each part.
func (b *bed) owned(ctx context.Context, r round) error {
	name := fmt.Sprintf("fence_%d", r.seed)
	return b.at(ctx, b.to, func(c *pgx.Conn) error {
		var epoch, receipts, others, sessions int64
		err := c.QueryRow(ctx, `SELECT o.epoch, count(*), count(*) FILTER (WHERE NOT r.final OR r.commit_no = 0)
			FROM _rapidbyte.owner o JOIN _rapidbyte.receipt r USING (pipeline_id) WHERE o.pipeline = $1 GROUP BY 1`, name).Scan(&epoch, &receipts, &others)
		if err != nil {
			return err
		}
		err = c.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity WHERE application_name =
			(SELECT format('rb:%s:e:1', left(pipeline_id::text, 8)) FROM _rapidbyte.owner WHERE pipeline = $1)`, name).Scan(&sessions)
		if err != nil {
			return err
		}
		if epoch != 2 || receipts == 0 || others > 0 || sessions > 0 {
			return fmt.Errorf("the destination is owned by epoch %d, expected 2; %d receipts, %d not final; %d sessions of epoch 1 are left", epoch, receipts, others, sessions)
		}
		return nil
	})
}

// process is one run of the program.
type process struct {
	cmd    *exec.Cmd
	out    bytes.Buffer // events and what it says; read when done is closed
	done   chan struct{}
	failed error
}

func (b *bed) start(ctx context.Context, dir string, env ...string) *process {
	p := &process{cmd: exec.CommandContext(ctx, b.binary, "run", "p.yaml", "--output", "plain", "--events", "-"), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, &p.out, &p.out
	p.cmd.Env = append(os.Environ(), env...)
	if p.failed = p.cmd.Start(); p.failed != nil {
		close(p.done)
		return p
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // how it ended is in ProcessState
	}()
	return p
}

// reached waits until the process is at its crash point; what it returns lets go.
func (p *process) reached(held net.Listener) (net.Conn, error) {
	type met struct {
		conn net.Conn
		err  error
	}
	at := make(chan met, 1)
	go func() {
		conn, err := held.Accept()
		if err == nil {
			_, err = bufio.NewReader(conn).ReadString('\n')
		}
		at <- met{conn, err}
	}()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case m := <-at:
		return m.conn, m.err
	case <-p.done:
		return nil, fmt.Errorf("the first process ended before it was at its crash point: %s", p.text())
	case <-limit.C:
		return nil, errors.New("the first process does not come to its crash point")
	}
}

func (p *process) wait() (code int, err error) {
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case <-p.done:
		if p.failed != nil {
			return -1, p.failed
		}
		return p.cmd.ProcessState.ExitCode(), nil
	case <-limit.C:
		return -1, fmt.Errorf("it has not ended for %v", patience)
	}
}

// end makes sure that nothing is left.
func (p *process) end() {
	if p.failed == nil {
		_ = p.cmd.Process.Kill() // also of one that stands still; it may have ended
		<-p.done
	}
}

// text returns what an ended process has said.
func (p *process) text() string {
	select {
	case <-p.done:
		return p.out.String()
	default:
		return "(it runs)"
	}
}

// firstTask returns when an ended process has started its first task.
func (p *process) firstTask() time.Time {
	for line := range strings.Lines(p.text()) {
		var e messages.Event
		if json.Unmarshal([]byte(line), &e) == nil && e.Kind == messages.EventTaskStarted {
			return e.Time
		}
	}
	return time.Time{}
}

package killtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// versions knows the contents that targets of a replace have had, by their digests.
type versions struct {
	mu         sync.Mutex
	generation int
	of         map[string]int // by stream and digest: the generation that has it
}

// digestSQL stands for all rows of a table, in any order.
const digestSQL = "SELECT count(*) || '/' || coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) FROM (SELECT id, name, qty, price, flag FROM %s) t"

// announce makes what the source holds now the next version.
func (v *versions) announce(ctx context.Context, e *ends, s scenario) error {
	digests := map[string]bool{}
	for _, st := range s.streams {
		var digest string
		if err := e.source.QueryRow(ctx, fmt.Sprintf(digestSQL, st.base())).Scan(&digest); err != nil {
			return err
		}
		digests[st.name+" "+digest] = true
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.generation++
	for d := range digests {
		v.of[d] = v.generation
	}
	return nil
}

func (v *versions) now() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.generation
}

// version returns which version a reader has seen, whose statement began when
// generation since was the newest. The one before that is what it may see as well.
func (v *versions) version(stream, digest string, since int) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	g, ok := v.of[stream+" "+digest]
	if !ok || g < since-1 {
		return g, fmt.Errorf("%s: a reader saw %s, which is no whole version (generation %d, now %d)", stream, digest, g, since)
	}
	return g, nil
}

// reader is a connection that looks at the targets of a replace, again and again (I5).
type reader struct {
	conn     *pgx.Conn
	random   *rand.Rand
	scenario scenario
	versions *versions
	last     map[string]int // by stream: the version that was seen last
	reads    int
	changes  int // of versions that were seen
}

// watch lets two readers look until the test ends.
func (c *campaign) watch() {
	c.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var readers []*reader
	for i := range 2 {
		r := &reader{
			conn: connected(c.t, c.ends.server, c.ends.to), random: rand.New(rand.NewPCG(c.seed, uint64(i))), //nolint:gosec // reproducible on purpose
			scenario: c.scenario, versions: c.versions, last: map[string]int{},
		}
		readers = append(readers, r)
		look := r.committed
		if c.scenario.swap == "mvcc" && i == 1 {
			look = r.repeatable
		}
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := look(c.t.Context()); err != nil && ctx.Err() == nil {
					c.t.Errorf("reader %d: %v", i, err)
					return
				}
			}
		})
	}
	c.stop = func() {
		cancel()
		wg.Wait()
		for _, r := range readers {
			c.sights.reads += r.reads
			c.sights.changes += r.changes
		}
		c.stop = func() {}
	}
	c.t.Cleanup(func() { c.stop() })
}

// pause lets the readers have a share of the machine that is bounded, however slow it is:
// a look takes about a millisecond.
func pause(look time.Duration) { time.Sleep(max(10*time.Millisecond, 8*look)) }

// committed reads each target in a transaction of its own.
func (r *reader) committed(ctx context.Context) error {
	for _, st := range r.scenario.streams {
		begin := time.Now()
		if _, err := r.see(ctx, r.conn, st.name, r.versions.now()); err != nil {
			return err
		}
		pause(time.Since(begin))
	}
	return nil
}

// repeatable reads the targets, in any order, under one snapshot, and reads them again.
func (r *reader) repeatable(ctx context.Context) error {
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	since := r.versions.now()
	return pgx.BeginTxFunc(ctx, r.conn, options, func(tx pgx.Tx) error {
		seen := map[string]int{}
		for range 3 {
			for _, i := range r.random.Perm(len(r.scenario.streams)) {
				name, begin := r.scenario.streams[i].name, time.Now()
				v, err := r.see(ctx, tx, name, since)
				if err != nil {
					return err
				}
				if before, ok := seen[name]; ok && v != before {
					return fmt.Errorf("%s: one snapshot shows version %d and then %d", name, before, v)
				}
				seen[name] = v
				pause(time.Since(begin))
			}
		}
		return nil
	})
}

// querier is a connection, or a transaction on it.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// see reads one target and judges it. since is the generation when it began to look.
func (r *reader) see(ctx context.Context, on querier, name string, since int) (int, error) {
	var digest string
	if err := on.QueryRow(ctx, fmt.Sprintf(digestSQL, name)).Scan(&digest); err != nil {
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	v, err := r.versions.version(name, digest, since)
	if err != nil {
		return v, err
	}
	last, ok := r.last[name]
	if ok && v < last {
		return v, fmt.Errorf("%s: version %d was seen before version %d", name, last, v)
	}
	if ok && v > last {
		r.changes++
	}
	r.reads++
	r.last[name] = v
	return v, nil
}

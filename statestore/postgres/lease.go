package postgres

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
)

// leases are what a Store holds, at most one of each pipeline. One goroutine renews them, on a connection of its own:
// saves that take long must not cost a lease.
type leases struct {
	pool  *pgxpool.Pool
	owner string
	ttl   time.Duration
	stop  context.CancelFunc
	done  chan struct{} // closed when the goroutine has ended

	mu    sync.Mutex
	clock func() time.Duration // since some moment; goes on while the machine sleeps
	held  map[messages.PipelineID]*held
	used  bool // something was asked for once
}

// held is a lease that is not lost, as far as is known.
type held struct {
	epoch    messages.Epoch
	deadline time.Duration // on the clock
	lost     chan struct{}
	timer    *time.Timer
}

func newLeases(pool *pgxpool.Pool, owner string, ttl time.Duration) *leases {
	ctx, cancel := context.WithCancel(context.Background())
	l := &leases{pool: pool, owner: owner, ttl: ttl, stop: cancel, done: make(chan struct{}), clock: sinceBoot, held: map[messages.PipelineID]*held{}}
	go l.run(ctx)
	return l
}

// add takes over a lease that was asked for at sent, as ask returned it.
func (l *leases) add(p messages.PipelineID, e messages.Epoch, sent time.Duration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if old := l.held[p]; old != nil {
		if old.epoch > e { // two claims at once: the other one is the owner by now
			return nil
		}
		l.lose(p, old)
	}
	left := sent + l.ttl - l.clock()
	if left <= 0 {
		return fmt.Errorf("the server took longer than the lease lasts, %s", l.ttl)
	}
	h := &held{epoch: e, deadline: sent + l.ttl, lost: make(chan struct{})}
	h.timer = time.AfterFunc(left, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.held[p] == h && l.clock() >= h.deadline {
			l.lose(p, h)
		}
	})
	l.held[p] = h
	return nil
}

// ask notes that a lease may be taken, so that it is given back even if nobody hears of
// it, and returns when.
func (l *leases) ask() (sent time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.used = true
	return l.clock()
}

// lose ends a lease. The caller has the lock.
func (l *leases) lose(p messages.PipelineID, h *held) {
	h.timer.Stop()
	close(h.lost)
	delete(l.held, p)
}

// find returns the lease of p under e if it is held. The caller has the lock.
func (l *leases) find(p messages.PipelineID, e messages.Epoch) *held {
	h := l.held[p]
	if h == nil || h.epoch != e {
		return nil
	}
	if l.clock() >= h.deadline {
		l.lose(p, h)
		return nil
	}
	return h
}

// run renews everything every third of the time to live; what fails is tried again soon.
func (l *leases) run(ctx context.Context) {
	defer close(l.done)
	timer := time.NewTimer(l.ttl / 3)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		begin := time.Now()
		next := l.ttl / 3
		if err := l.renew(ctx); err != nil {
			next = l.ttl / 15
		}
		timer.Reset(max(0, next-time.Since(begin)))
	}
}

const renewSQL = `UPDATE _rapidbyte_state.lease SET expires = clock_timestamp() + $3 * interval '1 microsecond'
	WHERE owner = $1 AND pipeline = ANY($2) RETURNING pipeline, epoch::text`

// renew extends all leases by one statement. One that the server does not return belongs
// to somebody else now.
func (l *leases) renew(ctx context.Context) error {
	l.mu.Lock()
	before := map[string]*held{}
	names := map[string]messages.PipelineID{}
	var ids [][]byte
	for p, h := range l.held {
		if id := rowOf(string(p)); l.find(p, h.epoch) != nil {
			ids, before[string(id)], names[string(id)] = append(ids, id), h, p
		}
	}
	sent := l.clock()
	l.mu.Unlock()
	if len(ids) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, l.ttl/3)
	defer cancel()
	rows, err := l.pool.Query(ctx, renewSQL, l.owner, ids, l.ttl.Microseconds())
	if err != nil {
		return err
	}
	type row struct {
		id    []byte
		epoch string
	}
	renewed, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (row row, err error) {
		return row, r.Scan(&row.id, &row.epoch)
	})
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range renewed {
		id := string(r.id)
		h, p := before[id], names[id]
		if h == nil || decimal(uint64(h.epoch)) != r.epoch {
			continue
		}
		delete(before, id)
		if l.held[p] == h && l.find(p, h.epoch) != nil {
			h.deadline = sent + l.ttl
			h.timer.Reset(h.deadline - l.clock())
		}
	}
	for id, h := range before {
		if p := names[id]; l.held[p] == h {
			l.lose(p, h)
		}
	}
	return nil
}

// close stops the goroutine and gives everything back. It closes no channel of Lost.
func (l *leases) close() error {
	l.stop()
	<-l.done
	l.mu.Lock()
	for p, h := range l.held {
		h.timer.Stop()
		delete(l.held, p)
	}
	used := l.used
	l.mu.Unlock()
	defer l.pool.Close()
	if !used {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), connectMax)
	defer cancel()
	_, err := l.pool.Exec(ctx, releaseSQL+" WHERE owner = $1", l.owner)
	return err
}

const releaseSQL = `UPDATE _rapidbyte_state.lease SET owner = '', expires = 'epoch'`

// Hold implements statestore.Leaser.
func (s *Store) Hold(p messages.PipelineID, e messages.Epoch) error {
	s.leases.mu.Lock()
	defer s.leases.mu.Unlock()
	if s.leases.find(p, e) == nil {
		return s.fail("hold the lease", p, fmt.Errorf("%w: the lease of epoch %d is lost or has run out", statestore.ErrFenced, e))
	}
	return nil
}

// Lost implements statestore.Leaser.
func (s *Store) Lost(p messages.PipelineID, e messages.Epoch) <-chan struct{} {
	s.leases.mu.Lock()
	defer s.leases.mu.Unlock()
	if h := s.leases.find(p, e); h != nil {
		return h.lost
	}
	return closedChannel
}

var closedChannel = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// Release implements statestore.Leaser.
func (s *Store) Release(ctx context.Context, p messages.PipelineID, e messages.Epoch) error {
	ctx, done, err := s.enter(ctx)
	if err != nil {
		return s.fail("release the lease", p, err)
	}
	defer done()
	s.leases.mu.Lock()
	h := s.leases.find(p, e)
	if h != nil {
		h.timer.Stop()
		delete(s.leases.held, p)
	}
	s.leases.mu.Unlock()
	if h == nil {
		return nil
	}
	_, err = s.leases.pool.Exec(ctx, releaseSQL+" WHERE owner = $1 AND pipeline = $2 AND epoch = $3::text::numeric", s.me, rowOf(string(p)), decimal(uint64(e)))
	if err != nil {
		return s.fail("release the lease", p, caused(ctx, err))
	}
	return nil
}

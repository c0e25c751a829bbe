package postgres_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors/postgres/pgtest"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
	"rapidbyte.io/node/statestore/postgres"
)

// place is a database for stores.
type place struct {
	*pgtest.Server
	db string
}

func newPlace(t *testing.T) place {
	t.Helper()
	s := pgtest.Shared(t)
	return place{s, s.Database(t)}
}

func (p place) config() postgres.Config { return postgres.Config{URL: p.URL(p.db)} }

func (p place) exec(t *testing.T, sql string) { t.Helper(); p.Exec(t, p.db, sql) }

// one returns the only value of a query.
func (p place) one(t *testing.T, sql string) string {
	t.Helper()
	rows := p.Query(t, p.db, sql)
	require.Len(t, rows, 1)
	return rows[0][0]
}

func (p place) ttl(ttl time.Duration) postgres.Config {
	c := p.config()
	c.TTL = ttl
	return c
}

func acquire(t *testing.T, s *postgres.Store, id messages.PipelineID) messages.Epoch {
	t.Helper()
	e, err := s.Acquire(t.Context(), id, statestore.Claim{})
	require.NoError(t, err)
	return e
}

// until fails the test when it does not become true in time.
func until(t *testing.T, what string, fn func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for end := time.Now().Add(30 * time.Second); !fn(); <-ticker.C {
		require.True(t, time.Now().Before(end), "never: %s", what)
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func commit(n uint64) statestore.Update {
	return statestore.Update{Receipts: []messages.Receipt{{Part: "orders/0", Load: "orders", Version: messages.Version{Load: 1, Commit: n}}}}
}

func TestPGALeaseIsHeldAndRenewed(t *testing.T) {
	p := newPlace(t)
	a, b := open(t, p.ttl(1500*time.Millisecond)), open(t, p.ttl(1500*time.Millisecond))
	e := acquire(t, a, "a")
	require.NoError(t, a.Hold("a", e))
	require.ErrorIs(t, a.Hold("a", e+1), statestore.ErrFenced)
	require.ErrorIs(t, a.Hold("b", e), statestore.ErrFenced)
	require.ErrorIs(t, b.Hold("a", e), statestore.ErrFenced, "another Store is another owner")
	require.True(t, isClosed(b.Lost("a", e)))
	lost := a.Lost("a", e)

	begin := time.Now()
	_, err := b.Acquire(t.Context(), "a", statestore.Claim{})
	require.ErrorIs(t, err, statestore.ErrHeld)
	require.Equal(t, messages.CodeStateHeld, statestore.CodeOf(err))
	host, _ := os.Hostname()
	require.ErrorContains(t, err, fmt.Sprintf("process %d (postgres.test) on host %s has the pipeline until 20", os.Getpid(), host))
	require.ErrorContains(t, err, "goes on renewing")
	require.Less(t, time.Since(begin), 1500*time.Millisecond, "as soon as the holder is seen to renew")

	// Longer than a lease lasts.
	first := p.one(t, "SELECT expires FROM _rapidbyte_state.lease")
	until(t, "renewed four times", func() bool {
		return p.one(t, "SELECT expires > '"+first+"'::timestamptz + interval '1900 ms' FROM _rapidbyte_state.lease") == "t"
	})
	require.NoError(t, a.Hold("a", e))
	require.False(t, isClosed(lost))
	require.NoError(t, a.Save(t.Context(), "a", e, commit(1)))
}

func TestPGAReleasedLeaseIsTakenAtOnce(t *testing.T) {
	p := newPlace(t)
	a, b := open(t, p.config()), open(t, p.config())
	e := acquire(t, a, "a")
	lost := a.Lost("a", e)
	require.NoError(t, a.Release(t.Context(), "a", e))
	require.NoError(t, a.Release(t.Context(), "a", e), "again")
	require.ErrorIs(t, a.Hold("a", e), statestore.ErrFenced)
	require.False(t, isClosed(lost), "giving back is not losing")
	require.Equal(t, e+1, acquire(t, b, "a"))
	require.NoError(t, a.Release(t.Context(), "a", e), "what is another's stays")
	require.NoError(t, b.Hold("a", e+1))
	require.ErrorIs(t, a.Save(t.Context(), "a", e, commit(1)), statestore.ErrFenced)
	_, err := a.Acquire(t.Context(), "a", statestore.Claim{Mine: e})
	require.ErrorIs(t, err, statestore.ErrFenced, "somebody has taken over meanwhile")

	require.NoError(t, b.Close())
	require.ErrorIs(t, b.Hold("a", e+1), statestore.ErrFenced)
	require.Equal(t, e+2, acquire(t, a, "a"), "Close gives everything back")
	old := a.Lost("a", e+2)
	require.Equal(t, e+3, acquire(t, a, "a"), "one's own lease is no obstacle")
	require.True(t, isClosed(old))
	require.ErrorIs(t, a.Hold("a", e+2), statestore.ErrFenced)
	require.NoError(t, a.Hold("a", e+3))
}

// A holder that cannot renew, as one that is cut off from the server.
func TestPGALeaseThatCannotBeRenewedIsLostInTime(t *testing.T) {
	p := newPlace(t)
	a, b := open(t, p.ttl(time.Second)), open(t, p.ttl(time.Second))
	e := acquire(t, a, "a")
	lost := a.Lost("a", e)
	conn, err := pgx.Connect(t.Context(), p.URL(p.db))
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(context.WithoutCancel(t.Context()))) }()
	tx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "LOCK TABLE _rapidbyte_state.lease IN SHARE MODE")
	require.NoError(t, err)
	begin := time.Now()
	<-lost
	require.Less(t, time.Since(begin), 10*time.Second)
	require.ErrorIs(t, a.Hold("a", e), statestore.ErrFenced)
	require.NoError(t, tx.Rollback(t.Context()))
	require.Equal(t, e+1, acquire(t, b, "a"), "a lease that is lost here is not renewed there")
	require.ErrorIs(t, a.Hold("a", e), statestore.ErrFenced, "for ever")
}

// A machine that slept past the lease must not go on when it wakes up: its timers have not
// noticed, and a renewal would be too late.
func TestPGALeaseIsLostWhileTheMachineSleeps(t *testing.T) {
	p := newPlace(t)
	s := open(t, p.ttl(time.Minute))
	e := acquire(t, s, "a")
	lost := s.Lost("a", e)
	s.Sleep(59 * time.Second)
	require.NoError(t, s.Hold("a", e))
	require.False(t, isClosed(lost))
	s.Sleep(time.Second)
	require.ErrorIs(t, s.Hold("a", e), statestore.ErrFenced)
	require.True(t, isClosed(lost))
	younger := acquire(t, s, "a")
	require.NoError(t, s.Hold("a", younger))
	require.ErrorIs(t, s.Hold("a", e), statestore.ErrFenced, "for ever")
}

func TestPGAnOwnerThatWasTakenOverLearnsIt(t *testing.T) {
	p := newPlace(t)
	a, b := open(t, p.ttl(2*time.Second)), open(t, p.ttl(2*time.Second))
	e := acquire(t, a, "a")
	lost := a.Lost("a", e)
	p.exec(t, "UPDATE _rapidbyte_state.lease SET expires = now() - interval '1 s'") // its clock was put forward
	require.Equal(t, e+1, acquire(t, b, "a"))
	require.ErrorIs(t, a.Save(t.Context(), "a", e, commit(1)), statestore.ErrFenced, "from that instant on")
	until(t, "the loss is noticed", func() bool { return isClosed(lost) })
	require.ErrorIs(t, a.Hold("a", e), statestore.ErrFenced)
	require.NoError(t, b.Hold("a", e+1))
}

// editOwner changes what a lease says of its owner.
func editOwner(t *testing.T, p place, change func(o map[string]any)) {
	t.Helper()
	var o map[string]any
	require.NoError(t, json.Unmarshal([]byte(p.one(t, "SELECT owner FROM _rapidbyte_state.lease")), &o))
	change(o)
	text, err := json.Marshal(o)
	require.NoError(t, err)
	p.exec(t, "UPDATE _rapidbyte_state.lease SET owner = '"+strings.ReplaceAll(string(text), "'", "''")+"', expires = now() + interval '1 hour'")
}

func TestPGOnlyAnOwnerOfThisMachineIsKnownToBeGone(t *testing.T) {
	child := startChild(t, "idle", "")
	pid := child.Process.Pid
	child.kill()
	for name, c := range map[string]struct {
		change func(o map[string]any)
		free   bool
	}{
		"ended":                {func(o map[string]any) { o["pid"] = pid }, true},
		"its number is reused": {func(o map[string]any) { o["started"] = "1" }, true},
		"it is this one":       {func(map[string]any) {}, false},
		"another machine":      {func(o map[string]any) { o["pid"], o["boot"] = pid, "another" }, false},
		"another container":    {func(o map[string]any) { o["pid"], o["space"] = pid, "pid:[1]" }, false},
		"no such knowledge":    {func(o map[string]any) { o["pid"] = pid; delete(o, "boot") }, false},
		"no text of ours":      {func(o map[string]any) { clear(o) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			a := open(t, p.config())
			acquire(t, a, "a")
			editOwner(t, p, c.change)
			config := p.config()
			config.Wait = time.Millisecond
			e, err := open(t, config).Acquire(t.Context(), "a", statestore.Claim{})
			if c.free {
				require.NoError(t, err)
				require.EqualValues(t, 2, e)
				return
			}
			require.ErrorIs(t, err, statestore.ErrHeld)
		})
	}
}

func TestPGAKilledOwnerIsNotWaitedFor(t *testing.T) {
	p := newPlace(t)
	child := startChild(t, "own", p.URL(p.db))
	child.line(t, "epoch")
	s := open(t, p.config())

	require.NoError(t, child.Process.Signal(syscall.SIGSTOP))
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("long enough"))
	defer cancel()
	_, err := s.Acquire(ctx, "a", statestore.Claim{})
	require.ErrorIs(t, err, statestore.ErrHeld, "a process that is stopped lives")
	require.ErrorContains(t, err, "long enough")
	require.ErrorContains(t, err, fmt.Sprintf("process %d", child.Process.Pid))

	require.NoError(t, child.Process.Kill())
	begin := time.Now()
	require.EqualValues(t, 2, acquire(t, s, "a"), "it is a zombie until it is waited for")
	require.Less(t, time.Since(begin), 5*time.Second, "not the whole lease of 15 s")
}

// A stopped process wakes up behind the end of its lease, when another one has begun.
func TestPGAStoppedOwnerFencesItself(t *testing.T) {
	p := newPlace(t)
	child := startChild(t, "wake", p.URL(p.db))
	child.line(t, "epoch 1")
	require.NoError(t, child.Process.Signal(syscall.SIGSTOP))
	s := open(t, p.ttl(time.Second))
	require.EqualValues(t, 2, acquire(t, s, "a"))
	require.NoError(t, s.Save(t.Context(), "a", 2, commit(1)))
	require.NoError(t, child.Process.Signal(syscall.SIGCONT))
	_, err := child.stdin.Write([]byte("go on\n"))
	require.NoError(t, err)
	child.line(t, "hold fenced, lost true, save fenced")
}

func TestPGConcurrentClaimsHaveOneOwnerAtATime(t *testing.T) {
	p := newPlace(t)
	const nodes, lives = 4, 5
	var owners, most, epochs atomic.Int64
	var wg sync.WaitGroup
	for range nodes {
		s := open(t, p.ttl(5*time.Second))
		wg.Go(func() {
			for done := 0; done < lives; {
				e, err := s.Acquire(t.Context(), "a", statestore.Claim{})
				if errors.Is(err, statestore.ErrHeld) {
					continue
				}
				if err != nil {
					t.Errorf("acquire: %v", err)
					return
				}
				done++
				if n := owners.Add(1); n > most.Load() {
					most.Store(n)
				}
				epochs.Add(1)
				err = errors.Join(s.Hold("a", e), s.Save(t.Context(), "a", e, commit(uint64(e))))
				owners.Add(-1)
				if err := errors.Join(err, s.Release(t.Context(), "a", e)); err != nil {
					t.Errorf("an owner: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, most.Load(), "two owners at once")
	require.EqualValues(t, nodes*lives, epochs.Load())
	st, err := open(t, p.config()).Load(t.Context(), "a")
	require.NoError(t, err)
	require.EqualValues(t, nodes*lives, st.Epoch)
}

package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rapidbyte.io/node/connectors/postgres/internal/wire"
)

// How long a server may say nothing before it is asked, over another connection, what it
// does. A connection that is dead is noticed within three times that: TCP alone notices
// one whose bytes are not acknowledged, and none that ends at a machine in between.
const (
	patienceMost  = 10 * time.Second
	patienceLeast = 2 * time.Second
	patienceAlive = time.Minute // between two looks at a server that is at work
)

// patience is connect_timeout within bounds: it is how long the network may take.
func (d *dialer) patience() time.Duration {
	if d.connectTimeout == 0 {
		return patienceMost
	}
	return min(max(d.connectTimeout, patienceLeast), patienceMost)
}

// whoSQL is the last statement of a login.
const whoSQL = `SELECT pg_backend_pid(), coalesce((SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())::text, ''), pg_postmaster_start_time()::text`

// newBackend reads what whoSQL has returned.
func newBackend(row [][]byte) (b wire.Backend, err error) {
	if len(row) != 3 {
		return b, errors.New("the server does not say who it is")
	}
	pid, err := strconv.ParseInt(string(row[0]), 10, 32)
	return wire.Backend{PID: int32(pid), Began: string(row[1]), Server: string(row[2])}, err //nolint:gosec // 32 bits
}

// vigil watches a connection during a call.
type vigil struct {
	dial  *dialer
	who   wire.Backend
	moved func() int64 // changes with what arrives and what goes out; negative: the server owes nothing
	kill  func(error)  // ends the connection
	done  chan struct{}

	mu    sync.Mutex
	timer *time.Timer // nil once stopped
	looks sync.WaitGroup

	wait   time.Duration // to the next look
	before int64         // what had moved at the last one
	since  time.Time     // when it had moved
	state  string        // of the server at the last look, when it waited for us
	dead   error         // why the connection was ended; valid after stop
}

// attendData begins the vigil of a connection for rows.
func (d *dialer) attendData(c *wire.Conn) *vigil {
	return d.attend(c.Backend(), c.Moved, c.Kill)
}

// attend begins a vigil.
func (d *dialer) attend(who wire.Backend, moved func() int64, kill func(error)) *vigil {
	v := &vigil{dial: d, who: who, moved: moved, kill: kill, done: make(chan struct{}), wait: d.patience(), before: moved(), since: time.Now()}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.timer = time.AfterFunc(v.wait, v.look)
	return v
}

// stop ends the vigil. It returns why the connection was ended, or else err.
func (v *vigil) stop(err error) error {
	v.mu.Lock()
	v.timer.Stop()
	v.timer = nil
	v.mu.Unlock()
	close(v.done)
	v.looks.Wait()
	if err != nil && v.dead != nil {
		return because(err, v.dead)
	}
	return err
}

// look judges the connection if nothing has moved since the last time.
func (v *vigil) look() {
	v.mu.Lock()
	if v.timer == nil {
		v.mu.Unlock()
		return
	}
	v.looks.Add(1)
	v.mu.Unlock()
	defer v.looks.Done()
	if now := v.moved(); now < 0 || now != v.before {
		v.before, v.state, v.since, v.wait = now, "", time.Now(), v.dial.patience()
	} else if v.dead = v.ask(); v.dead != nil {
		v.kill(v.dead)
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.timer != nil {
		v.timer.Reset(v.wait)
	}
}

// ask returns why the connection is dead; nil: it is not, or nobody knows.
func (v *vigil) ask() error {
	ctx, cancel := context.WithTimeout(context.Background(), v.dial.patience())
	defer cancel()
	v.looks.Go(func() {
		select {
		case <-v.done:
			cancel()
		case <-ctx.Done():
		}
	})
	conn, err := v.dial.plain(ctx)
	if err != nil {
		if _, said := errors.AsType[*pgconn.PgError](err); said || errors.Is(ctx.Err(), context.Canceled) {
			return nil // it lives, or nobody waits any more
		}
		return v.verdict(fmt.Sprintf("and a second connection is not to be had: %v", err))
	}
	defer closeConn(conn)
	gone, state, err := v.inspect(ctx, conn)
	switch {
	case err != nil:
		return nil
	case gone:
		return v.verdict(fmt.Sprintf("and the server's process %d has ended", v.who.PID))
	case state == "": // at work, or waiting for a lock
		v.state, v.wait = "", min(2*v.wait, patienceAlive)
		return nil
	case state != v.state:
		v.state, v.wait = state, v.dial.patience()
		return nil
	}
	if v.who.Began != "" { // it would keep its locks
		_, _ = conn.Exec(ctx, "SELECT pg_terminate_backend($1)", v.who.PID) // as well as it can
	}
	return v.verdict(fmt.Sprintf("and the server's process %d waits for this side: what is between them has lost the connection", v.who.PID))
}

func (v *vigil) verdict(what string) error {
	return &wire.LostError{Op: "wait", Err: fmt.Errorf("nothing has moved for %s, %s", time.Since(v.since).Round(time.Second), what)}
}

// inspect looks at the session. state is empty unless it waits for its client, or if this
// is not its server.
func (v *vigil) inspect(ctx context.Context, conn *pgx.Conn) (gone bool, state string, err error) {
	if _, err := conn.Exec(ctx, "SET ROLE NONE"); err != nil { // the login may see its sessions
		return false, "", err
	}
	var server string
	if err := conn.QueryRow(ctx, "SELECT pg_postmaster_start_time()::text").Scan(&server); err != nil || server != v.who.Server {
		return false, "", err
	}
	err = conn.QueryRow(ctx, `SELECT CASE WHEN wait_event_type = 'Client' THEN concat_ws(' ', state, wait_event, query_start, state_change) ELSE '' END
		FROM pg_stat_activity WHERE pid = $1 AND ($2 = '' OR backend_start::text = $2)`, v.who.PID, v.who.Began).Scan(&state)
	if errors.Is(err, pgx.ErrNoRows) {
		return true, "", nil
	}
	return false, state, err
}

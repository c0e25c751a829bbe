package postgres

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
)

// Acquire implements statestore.Store. Where another owner has the lease it waits until
// that runs out, but not for one who renews it. An owner whose process ran on this
// machine and has ended will not come back: nobody waits for it.
func (s *Store) Acquire(ctx context.Context, p messages.PipelineID, c statestore.Claim) (messages.Epoch, error) {
	epoch, err := messages.Epoch(0), statestore.CheckName("pipeline", string(p))
	if err == nil {
		epoch, err = s.acquire(ctx, p, c)
	}
	if err != nil {
		return 0, s.fail("acquire epoch", p, err)
	}
	return epoch, nil
}

func (s *Store) acquire(ctx context.Context, p messages.PipelineID, c statestore.Claim) (messages.Epoch, error) {
	deadline := time.Now().Add(s.config.Wait)
	poll := min(500*time.Millisecond, s.config.TTL/15)
	timer := time.NewTimer(0)
	defer timer.Stop()
	var first *heldError
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			if first != nil {
				return 0, fmt.Errorf("%w: %w", first, context.Cause(ctx))
			}
			return 0, context.Cause(ctx)
		}
		epoch, err := s.claim(ctx, p, c)
		held, ok := errors.AsType[*heldError](err)
		if !ok {
			return epoch, err
		}
		if first == nil {
			first = held
		}
		held.renewed = held.owner != first.owner || held.epoch != first.epoch || held.until.After(first.until)
		if held.renewed || !time.Now().Before(deadline) {
			return 0, held
		}
		timer.Reset(min(poll, max(0, held.left), max(0, time.Until(deadline))) + time.Millisecond)
	}
}

// heldError says who has the lease.
type heldError struct {
	lease
	renewed bool
}

func (e *heldError) Error() string {
	s := fmt.Sprintf("%v: %v has the pipeline until %s", statestore.ErrHeld, parseOwner(e.owner), e.until.UTC().Format("2006-01-02 15:04:05.000Z"))
	if e.renewed {
		s += " and goes on renewing that"
	}
	return s
}

func (*heldError) Unwrap() error { return statestore.ErrHeld }

// lease is a row of the table.
type lease struct {
	owner string // empty: given back
	epoch messages.Epoch
	until time.Time
	left  time.Duration // when it was read
}

const leaseSQL = `SELECT epoch::text, owner, expires, extract(epoch FROM expires - clock_timestamp())::double precision
	FROM _rapidbyte_state.lease WHERE pipeline = $1 FOR UPDATE`

func queueLease(b *pgx.Batch, into *lease, id []byte) {
	b.Queue(leaseSQL, id).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var epoch string
			var left float64
			if err := rows.Scan(&epoch, &into.owner, &into.until, &left); err != nil {
				return err
			}
			n, err := strconv.ParseUint(epoch, 10, 64)
			if err != nil {
				return damaged("the epoch of a lease: %v", err)
			}
			into.epoch, into.left = messages.Epoch(n), time.Duration(left*float64(time.Second))
		}
		return rows.Err()
	})
}

// claim tries once.
func (s *Store) claim(ctx context.Context, p messages.PipelineID, c statestore.Claim) (messages.Epoch, error) {
	ctx, done, err := s.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer done()
	var epoch messages.Epoch
	return epoch, s.transact(ctx, func(conn *pgxpool.Conn) error {
		k := &claim{store: s, conn: conn, p: p, id: rowOf(string(p))}
		if err := k.read(ctx); err != nil {
			return err
		}
		stored := max(k.record.Epoch, k.lease.epoch)
		if c.Mine > 0 && stored > c.Mine {
			return fmt.Errorf("%w: epoch %d was drawn, %d was presented", statestore.ErrFenced, stored, c.Mine)
		}
		if k.isHeld() {
			return &heldError{lease: k.lease}
		}
		highest := max(stored, c.Floor, c.Mine)
		if highest == math.MaxUint64 {
			return fmt.Errorf("%w: there is no epoch above %d", statestore.ErrInvalid, highest)
		}
		epoch = highest + 1
		return k.take(ctx, epoch)
	})
}

// claim is one try under way.
type claim struct {
	store  *Store
	conn   *pgxpool.Conn
	p      messages.PipelineID
	id     []byte
	st     storeRecord
	record pipelineRecord // zero: a new one
	known  bool
	lease  lease
}

// read locks what a claim changes. The row of the pipeline comes first, as in Save.
func (k *claim) read(ctx context.Context) error {
	var rows []cell
	b := &pgx.Batch{}
	begin(b)
	cells(b, &rows, pipelineSQL+" FOR UPDATE", k.id)
	queueLease(b, &k.lease, k.id)
	if err := k.conn.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	if len(rows) == 0 || k.store.config.Rebuild {
		return k.readAll(ctx)
	}
	var err error
	_, k.record, err = pipelines.open(string(k.p), rows[0])
	k.known = true
	return err
}

// readAll reads and proves everything of the pipeline. Whoever creates a pipeline, or
// sets one aside, holds the row that counts them, and locks it before anything else: what
// read has locked is let go.
func (k *claim) readAll(ctx context.Context) error {
	var i image
	k.lease = lease{}
	b := &pgx.Batch{}
	b.Queue("ROLLBACK")
	begin(b)
	b.Queue("SELECT version FROM _rapidbyte_state.store FOR UPDATE")
	b.Queue("SELECT id FROM _rapidbyte_state.pipeline WHERE id = $1 FOR UPDATE", k.id) // it may be there by now
	i.queue(b, k.p)
	queueLease(b, &k.lease, k.id)
	if err := k.conn.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	st, err := openStore(i.store)
	if err != nil {
		return err
	}
	k.st = st
	d, err := i.open(k.p)
	k.record, k.known = d.record, len(i.pipeline) > 0
	if errors.Is(err, statestore.ErrDamaged) && k.store.config.Rebuild {
		return k.setAside(ctx, i)
	}
	return err
}

// isHeld reports whether another owner has the lease.
func (k *claim) isHeld() bool {
	l := k.lease
	return l.owner != "" && l.owner != k.store.me && l.left > 0 && !parseOwner(l.owner).gone(k.store.here)
}

// takeSQL hands out the epoch and the lease at once, or nothing: the owner is still the
// one that was seen.
const takeSQL = `WITH lease AS (
		INSERT INTO _rapidbyte_state.lease AS l (pipeline, epoch, owner, expires)
		VALUES ($1, $2::text::numeric, $3, clock_timestamp() + $4 * interval '1 microsecond')
		ON CONFLICT (pipeline) DO UPDATE SET epoch = excluded.epoch, owner = excluded.owner, expires = excluded.expires
		WHERE l.owner = $5 AND l.epoch = $6::text::numeric
		RETURNING pipeline
	)
	INSERT INTO _rapidbyte_state.pipeline AS p (id, value, sum) SELECT $1, $7, $8 FROM lease
	ON CONFLICT (id) DO UPDATE SET value = excluded.value, sum = excluded.sum
	RETURNING p.id`

func (k *claim) take(ctx context.Context, epoch messages.Epoch) error {
	b := &pgx.Batch{}
	k.record.Name, k.record.Epoch = string(k.p), epoch
	_, row, err := pipelines.seal(string(k.p), k.record)
	if err != nil {
		return err
	}
	taken := 0
	b.Queue(takeSQL, k.id, decimal(uint64(epoch)), k.store.me, k.store.config.TTL.Microseconds(), k.lease.owner, decimal(uint64(k.lease.epoch)), row.value, row.sum).
		Query(func(rows pgx.Rows) error {
			for rows.Next() {
				taken++
			}
			return rows.Err()
		})
	if !k.known {
		k.st.Pipelines++
		_, row, err := stores.seal("", k.st)
		if err != nil {
			return err
		}
		b.Queue("UPDATE _rapidbyte_state.store SET value = $1, sum = $2", row.value, row.sum)
	}
	sent := k.store.leases.ask()
	if err := commit(ctx, k.conn, b); err != nil {
		return err
	}
	if taken != 1 {
		return errors.New("the lease was taken by another owner at the same time")
	}
	return k.store.leases.add(k.p, epoch, sent)
}

// Patience implements statestore.Leaser.
func (s *Store) Patience() time.Duration { return s.config.Wait }

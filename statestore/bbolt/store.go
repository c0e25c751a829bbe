package bbolt

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
)

// Store is a state store in one file. Open makes it; Close ends it.
type Store struct {
	path  string
	id    identity
	aside string   // of a rebuild; empty: none
	file  *os.File // of the database; db owns it once there is one
	db    *bolt.DB
	lock  *os.File
	now   func() time.Time

	writer chan struct{}         // capacity 1: full while a write transaction runs
	end    atomic.Pointer[error] // what ended the store; nil: usable
	stuck  atomic.Bool           // bbolt panicked: it may hold its own locks for ever

	using  sync.RWMutex // read-locked by every call; guards closed
	closed bool
}

var _ statestore.Store = (*Store)(nil)

// Identity implements statestore.Store.
func (s *Store) Identity() string { return s.id.Identity }

// Aside returns where Open moved a damaged database because of Config.Rebuild;
// empty when it found nothing to move.
func (s *Store) Aside() string { return s.aside }

// Acquire implements statestore.Store.
func (s *Store) Acquire(ctx context.Context, p messages.PipelineID, c statestore.Claim) (messages.Epoch, error) {
	var epoch messages.Epoch
	err := statestore.CheckName("pipeline", string(p))
	if err == nil {
		err = s.update(ctx, func(l *ledger) (err error) {
			epoch, err = l.acquire(p, c)
			return err
		})
	}
	if err != nil {
		return 0, s.fail("acquire epoch", p, err)
	}
	return epoch, nil
}

func (l *ledger) acquire(p messages.PipelineID, c statestore.Claim) (messages.Epoch, error) {
	b, err := l.tx.Bucket(bucketPipelines).CreateBucketIfNotExists([]byte(p))
	if err != nil {
		return 0, err
	}
	stored, err := readEpoch(b, p)
	if err != nil {
		return 0, err
	}
	if c.Mine > 0 && stored > c.Mine { // I4
		return 0, fmt.Errorf("%w: epoch %d was drawn, %d was presented", statestore.ErrFenced, stored, c.Mine)
	}
	highest := max(stored, c.Floor, c.Mine)
	if highest == math.MaxUint64 {
		return 0, fmt.Errorf("%w: there is no epoch above %d", statestore.ErrInvalid, highest)
	}
	return highest + 1, l.put(b, epochAddress(string(p)), highest+1)
}

// readEpoch returns the epoch of a pipeline; 0 when nobody has owned it, also
// when b is nil.
func readEpoch(b *bolt.Bucket, p messages.PipelineID) (messages.Epoch, error) {
	if b == nil {
		return 0, nil
	}
	value := b.Get(keyEpoch)
	if value == nil {
		return 0, nil
	}
	return decode[messages.Epoch](epochAddress(string(p)), value)
}

// Load implements statestore.Store.
func (s *Store) Load(ctx context.Context, p messages.PipelineID) (st statestore.State, err error) {
	err = s.view(ctx, func(tx *bolt.Tx) error {
		st, err = loadState(tx.Bucket(bucketPipelines).Bucket([]byte(p)), p)
		return err
	})
	if err != nil {
		return statestore.State{}, s.fail("load state", p, err)
	}
	return st, nil
}

func loadState(b *bolt.Bucket, p messages.PipelineID) (st statestore.State, err error) {
	if b == nil {
		return st, nil
	}
	if st.Epoch, err = readEpoch(b, p); err != nil {
		return st, err
	}
	err = each(b, p, kindReceipts, decodeReceipt, func(_ string, r messages.Receipt) {
		st.Receipts = append(st.Receipts, r)
	})
	if err != nil {
		return st, err
	}
	reached := map[string]uint64{}
	err = each(b, p, kindLoads, decode[loadRecord], func(name string, l loadRecord) {
		reached[name] = l.reached()
		if l.Finished > 0 {
			st.Finished = append(st.Finished, messages.LoadID{Name: name, Number: l.Finished})
		}
	})
	if err != nil {
		return st, err
	}
	runs, err := loadRuns(b, p)
	if err != nil {
		return st, err
	}
	if len(runs) > 0 && runs[0].Ended.IsZero() {
		st.Run = runs[0]
	}
	st.Orders, err = loadOrders(b, p, reached, st.Receipts)
	return st, err
}

// each decodes all values of one kind, sorted by key.
func each[T any](b *bolt.Bucket, p messages.PipelineID, kind string, decode func(address, []byte) (T, error), fn func(key string, v T)) error {
	values := b.Bucket([]byte(kind))
	if values == nil {
		return nil
	}
	return values.ForEach(func(key, value []byte) error {
		v, err := decode(address{string(p), kind, string(key)}, value)
		if err == nil {
			fn(string(key), v)
		}
		return err
	})
}

// loadRuns returns the runs, newest first.
func loadRuns(b *bolt.Bucket, p messages.PipelineID) ([]statestore.Run, error) {
	var runs []statestore.Run
	err := each(b, p, kindRuns, decodeRun, func(_ string, r statestore.Run) { runs = append(runs, r) })
	slices.SortFunc(runs, statestore.Run.Compare)
	return runs, err
}

// Runs implements statestore.Store.
func (s *Store) Runs(ctx context.Context, p messages.PipelineID, limit int) (runs []statestore.Run, err error) {
	err = s.view(ctx, func(tx *bolt.Tx) error {
		if b := tx.Bucket(bucketPipelines).Bucket([]byte(p)); b != nil {
			runs, err = loadRuns(b, p)
		}
		return err
	})
	if err != nil {
		return nil, s.fail("list runs", p, err)
	}
	return runs[:min(len(runs), max(0, limit))], nil
}

// Pipelines implements statestore.Store.
func (s *Store) Pipelines(ctx context.Context) (ids []messages.PipelineID, err error) {
	err = s.view(ctx, func(tx *bolt.Tx) error {
		return tx.Bucket(bucketPipelines).ForEachBucket(func(name []byte) error {
			ids = append(ids, messages.PipelineID(name))
			return nil
		})
	})
	if err != nil {
		return nil, s.fail("list pipelines", "", err)
	}
	return ids, nil
}

// Close implements statestore.Store. It waits for the calls that are under way.
func (s *Store) Close() error {
	s.using.Lock()
	defer s.using.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if err := errors.Join(s.shut(), s.lock.Close()); err != nil {
		return s.fail("close state store", "", err)
	}
	return nil
}

// shut closes the database. When bbolt is stuck only the file is closed, which
// gives it up for others.
func (s *Store) shut() error {
	if s.stuck.Load() || s.db == nil {
		// The memory map keeps the open file, and with it the lock, alive.
		err := unix.Flock(int(s.file.Fd()), unix.LOCK_UN) //nolint:gosec // a descriptor
		return errors.Join(err, s.file.Close())
	}
	return guarded(s.db.Close)
}

// fail says what was attempted, on what.
func (s *Store) fail(op string, p messages.PipelineID, err error) error {
	return statestore.Wrap(statestore.Error{Op: op, Path: s.path, Pipeline: p, Err: err})
}

package bbolt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"strings"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"rapidbyte.io/node/statestore"
)

// guarded runs fn and turns a panic into ErrDamaged, also a fault in the memory
// map: a file that somebody cuts off while it is mapped faults where it ends.
func guarded(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = &panicError{cause: r}
		}
	}()
	return fn()
}

// panicError is a panic of bbolt. Its locks may be held for ever.
type panicError struct{ cause any }

func (e *panicError) Error() string {
	return fmt.Sprintf("%v: the database could not be read: %v", statestore.ErrDamaged, e.cause)
}

func (*panicError) Unwrap() error { return statestore.ErrDamaged }

// view runs fn in a read transaction.
func (s *Store) view(ctx context.Context, fn func(*bolt.Tx) error) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.using.RUnlock()
	return s.judge(guarded(func() error { return s.db.View(fn) }))
}

// update runs fn in a write transaction and commits it if fn changed anything.
func (s *Store) update(ctx context.Context, fn func(*ledger) error) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.using.RUnlock()
	select {
	case s.writer <- struct{}{}:
		defer func() { <-s.writer }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := s.fatal(); err != nil { // of the writer before us
		return err
	}
	return s.judge(guarded(func() error { return s.transact(fn) }))
}

// enter begins the use of the database; on nil the caller gives s.using back.
func (s *Store) enter(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.using.RLock()
	err := s.fatal()
	if s.closed {
		err = fmt.Errorf("the store: %w", os.ErrClosed)
	}
	if err != nil {
		s.using.RUnlock()
	}
	return err
}

// judge keeps an error after which nothing may be done with the store.
func (s *Store) judge(err error) error {
	if _, ok := errors.AsType[*panicError](err); ok {
		s.stuck.Store(true)
	}
	if errors.Is(err, statestore.ErrDamaged) || errors.Is(err, statestore.ErrBroken) {
		s.end.CompareAndSwap(nil, &err)
	}
	return err
}

// fatal returns the error that ended the store; nil while it is usable.
func (s *Store) fatal() error {
	if err := s.end.Load(); err != nil {
		return *err
	}
	return nil
}

func (s *Store) transact(fn func(*ledger) error) error {
	tx, err := s.db.Begin(true)
	if err != nil {
		return fmt.Errorf("%w: %w", statestore.ErrBroken, err)
	}
	defer tx.Rollback() //nolint:errcheck // nothing to do after a commit; it says so
	id := tx.ID()
	l := &ledger{tx: tx}
	if err := fn(l); err != nil {
		return err
	}
	if !l.changed {
		return nil
	}
	if err := l.close(); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return s.commitFailed(id, err)
	}
	return nil
}

// commitFailed says what a failed commit of transaction id means. bbolt writes
// and syncs the data pages, then writes and syncs the meta page that makes them
// count. A write that found no space has changed nothing that counts. Anything
// else, above all a failed sync, leaves a file that only a new process, which
// reads it from the disk, can know (I1).
func (s *Store) commitFailed(id int, cause error) error {
	visible := true
	if err := s.db.View(func(tx *bolt.Tx) error {
		visible = tx.ID() >= id
		return nil
	}); err != nil {
		return fmt.Errorf("%w: %w", statestore.ErrBroken, errors.Join(cause, err))
	}
	_, write := errors.AsType[*fs.PathError](cause)
	// bbolt flattens the error of the call that makes the file longer.
	resize := strings.HasPrefix(cause.Error(), "file resize error: ")
	if !visible && (write && isFull(cause) || resize && mentionsFull(cause)) {
		return fmt.Errorf("%w: %w", statestore.ErrFull, cause)
	}
	return fmt.Errorf("%w: %w", statestore.ErrBroken, cause)
}

// fullErrnos are the ways in which a system says that there is no space.
var fullErrnos = []unix.Errno{unix.ENOSPC, unix.EDQUOT, unix.EFBIG}

func isFull(err error) bool {
	for _, no := range fullErrnos {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}

func mentionsFull(err error) bool {
	for _, no := range fullErrnos {
		if strings.HasSuffix(err.Error(), no.Error()) {
			return true
		}
	}
	return false
}

// markFull makes a lack of space known to errors.Is.
func markFull(err error) error {
	if isFull(err) && !errors.Is(err, statestore.ErrFull) && !errors.Is(err, statestore.ErrBroken) {
		return fmt.Errorf("%w: %w", statestore.ErrFull, err)
	}
	return err
}

// ledger changes values within one transaction and keeps the digest true.
type ledger struct {
	tx      *bolt.Tx
	changed bool
	summed  bool // sum was read
	sum     digest
}

// put stores v at a in b; the value that is there already changes nothing.
func (l *ledger) put(b *bolt.Bucket, a address, v any) error {
	value, err := encode(a, v)
	if err != nil {
		return err
	}
	old := b.Get([]byte(a.key))
	if string(old) == string(value) {
		return nil
	}
	if err := l.touch(); err != nil {
		return err
	}
	if old != nil {
		l.sum.remove(a, old)
	}
	l.sum.add(a, value)
	return b.Put([]byte(a.key), value)
}

// remove deletes the value at a from b, if there is one.
func (l *ledger) remove(b *bolt.Bucket, a address) error {
	old := b.Get([]byte(a.key))
	if old == nil {
		return nil
	}
	if err := l.touch(); err != nil {
		return err
	}
	l.sum.remove(a, old)
	return b.Delete([]byte(a.key))
}

// touch reads the digest before the first change.
func (l *ledger) touch() (err error) {
	l.changed = true
	if !l.summed {
		l.sum, err = readDigest(l.tx.Bucket(bucketMeta))
		l.summed = err == nil
	}
	return err
}

// close stores the digest. Nothing is changed after it.
func (l *ledger) close() error { return putMeta(l.tx.Bucket(bucketMeta), keyDigest, l.sum) }

package bbolt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"

	"rapidbyte.io/node/statestore"
)

// DefaultTimeout is how long Open waits for another process to give the store up.
const DefaultTimeout = 2 * time.Second

// Config says where a store is and how to open it.
type Config struct {
	// Path of the database. Folders that are missing are created for the owner alone.
	Path string
	// Timeout bounds the wait for another process. 0: DefaultTimeout.
	Timeout time.Duration
	// Rebuild sets a damaged database aside and begins an empty one with the same
	// identity, to be filled from the destinations' receipts. A sound one is opened
	// as always. It is the operator's word that this is wanted.
	Rebuild bool
	// Now is the clock. nil: time.Now.
	Now func() time.Time
}

func (c Config) withDefaults() Config {
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// Open opens the store at c.Path; where there never was one, it creates it. The
// error is ErrHeld, with the holder's name, when another process has the store;
// ErrDamaged when it cannot be trusted; ErrForeign when the file is something
// else; ErrFull.
func Open(ctx context.Context, c Config) (*Store, error) {
	c = c.withDefaults()
	s, err := open(ctx, c)
	if err != nil {
		return nil, &statestore.Error{Op: "open state store", Path: c.Path, Err: markFull(err)}
	}
	return s, nil
}

func open(ctx context.Context, c Config) (s *Store, err error) {
	if c.Path == "" {
		return nil, fmt.Errorf("%w: the path is empty", statestore.ErrInvalid)
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	if err := makeFolder(filepath.Dir(c.Path)); err != nil {
		return nil, err
	}
	deadline := time.Now().Add(c.Timeout)
	lock, err := takeLock(ctx, c.Path+lockSuffix, deadline, c.Now())
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Close())
		}
	}()
	id, idErr := readIdentity(c.Path + identitySuffix)
	if errors.Is(idErr, statestore.ErrForeign) {
		return nil, idErr
	}
	s, err = attachOrCreate(ctx, c, id, idErr, deadline)
	if err != nil {
		return nil, err
	}
	s.lock, s.now = lock, c.Now
	return s, nil
}

// attachOrCreate decides by what is there. idErr is nil for a readable identity
// file, fs.ErrNotExist for none.
func attachOrCreate(ctx context.Context, c Config, id identity, idErr error, deadline time.Time) (*Store, error) {
	known := !errors.Is(idErr, fs.ErrNotExist)
	s, err := attach(ctx, c.Path, deadline)
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrNotExist) && !known:
		return create(ctx, c, newIdentity(c.Now()), deadline)
	case errors.Is(err, fs.ErrNotExist):
		err = damaged("the database is gone, but %s says that there was one", c.Path+identitySuffix)
	case errors.Is(err, errUnknown) && known:
		err = damaged("it is not the database that %s speaks of", c.Path+identitySuffix)
	}
	if errors.Is(err, statestore.ErrDamaged) && c.Rebuild {
		return rebuild(ctx, c, id, idErr, deadline)
	}
	if err != nil {
		return nil, err
	}
	if idErr == nil && id.Identity != s.id.Identity {
		return nil, errors.Join(fmt.Errorf("%w: the database is of store %s, but %s is of store %s",
			statestore.ErrForeign, s.id.Identity, c.Path+identitySuffix, id.Identity), s.shut())
	}
	if idErr != nil { // the database is proven: it can restore its identity file
		if err := writeIdentity(c.Path+identitySuffix, s.id); err != nil {
			return nil, errors.Join(err, s.shut())
		}
	}
	return s, nil
}

// rebuild moves what is at the path out of the way and begins anew.
func rebuild(ctx context.Context, c Config, id identity, idErr error, deadline time.Time) (*Store, error) {
	aside, err := setAside(c.Path)
	if err != nil {
		return nil, err
	}
	if idErr != nil {
		id = newIdentity(c.Now())
	}
	s, err := create(ctx, c, id, deadline)
	if err != nil {
		return nil, err
	}
	s.aside = aside
	return s, nil
}

// setAside gives path a name that is free and returns it; "" if there is nothing.
func setAside(path string) (string, error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	for n := 1; ; n++ {
		aside := fmt.Sprintf("%s%s-%d", path, asideSuffix, n)
		if _, err := os.Lstat(aside); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := os.Rename(path, aside); err != nil {
			return "", err
		}
		return aside, syncFolder(filepath.Dir(path))
	}
}

// create makes the database, complete with its identity, then the identity file,
// and opens it. Nobody has used it before both are durable; a crash in between
// leaves a database that restores the file.
func create(ctx context.Context, c Config, id identity, deadline time.Time) (*Store, error) {
	if err := os.Remove(c.Path + newSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := guarded(func() error { return writeEmpty(c.Path+newSuffix, id) }); err != nil {
		return nil, err
	}
	if err := publish(c.Path); err != nil {
		return nil, err
	}
	if err := writeIdentity(c.Path+identitySuffix, id); err != nil {
		return nil, err
	}
	return attach(ctx, c.Path, deadline)
}

// writeEmpty writes a database that holds nothing but its identity.
func writeEmpty(path string, id identity) error {
	db, err := bolt.Open(path, 0o600, options(DefaultTimeout))
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		if _, err := tx.CreateBucket(bucketPipelines); err != nil {
			return err
		}
		m, err := tx.CreateBucket(bucketMeta)
		if err != nil {
			return err
		}
		return errors.Join(putMeta(m, keyIdentity, id), putMeta(m, keyDigest, digest{}))
	})
	return errors.Join(err, db.Close())
}

func putMeta(b *bolt.Bucket, key []byte, v any) error {
	value, err := encode(address{kind: kindMeta, key: string(key)}, v)
	if err != nil {
		return err
	}
	return b.Put(key, value)
}

func options(timeout time.Duration) *bolt.Options {
	return &bolt.Options{Timeout: timeout, FreelistType: bolt.FreelistMapType, NoStatistics: true}
}

// attach opens the database at path, which must be there, and proves it.
func attach(ctx context.Context, path string, deadline time.Time) (s *Store, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = f.Close() // bbolt may have closed it already; the first cause is err
		}
	}()
	if err := flock(ctx, f, deadline); err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: it is no plain file", errUnknown)
	}
	if err := inspect(f, st.Size()); err != nil {
		return nil, err
	}
	// What a killed process has written but not synced is not durable yet, though we
	// see it: make it so before anybody relies on it.
	if err := f.Sync(); err != nil {
		return nil, fmt.Errorf("%w: %w", statestore.ErrBroken, err)
	}
	s = &Store{path: path, file: f, writer: make(chan struct{}, 1)}
	if err := s.judge(guarded(s.load)); err != nil {
		return nil, errors.Join(err, s.shut())
	}
	return s, nil
}

// load hands the file to bbolt and verifies everything in it.
func (s *Store) load() error {
	o := options(time.Second)                                                            // we have the lock already
	o.OpenFile = func(string, int, os.FileMode) (*os.File, error) { return s.file, nil } // what was inspected
	db, err := bolt.Open(s.path, 0o600, o)
	if err != nil {
		return fmt.Errorf("map the database: %w", err)
	}
	s.db = db
	return db.View(s.verify)
}

package duckdb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/internal/duckarrow"
	"rapidbyte.io/node/messages"
)

// busyTime is how long a file that somebody else has open is tried.
const busyTime = 2 * time.Second

const busyPause = 50 * time.Millisecond

// registry holds the files that this process has open for writing. It is global
// because DuckDB's lock on a file is: the process has it, or not.
type registry struct {
	mu    sync.Mutex
	files map[string]*file // by resolved path
}

var opened = &registry{files: map[string]*file{}}

// file is one database that is open for writing.
type file struct {
	path string // as the first user wrote it
	key  string // resolved
	refs int    // sessions; under registry.mu

	opening sync.Mutex    // held while the database is opened
	db      *duckarrow.DB // nil until then, and after a failed opening

	// control is held for bookkeeping and COMMIT. A channel, because whoever waits
	// for it must be able to give up.
	control chan struct{}

	// Under control.
	epochs  map[messages.PipelineID]messages.Epoch
	writers map[writerKey]*Writer

	tables locks // upserts into one table come one after the other
}

type writerKey struct {
	pipeline messages.PipelineID
	part     messages.PartID
}

// options are the settings of a database that is written. All handles of a file
// in a process must have the same: the first one decides.
func options(memory connectors.ByteSize) map[string]string {
	if memory == 0 {
		memory = memoryDefault
	}
	return map[string]string{
		"threads": "2", "max_memory": strconv.FormatInt(int64(memory), 10) + "B", "autoinstall_known_extensions": "false", "autoload_known_extensions": "false",
	}
}

// acquire returns the open file, opening it if need be. Release it once.
func (r *registry) acquire(ctx context.Context, path string, memory connectors.ByteSize) (*file, error) {
	key := resolve(path)
	r.mu.Lock()
	f := r.files[key]
	if f == nil {
		f = &file{
			path: path, key: key, control: make(chan struct{}, 1), tables: locks{m: map[string]chan struct{}{}},
			epochs: map[messages.PipelineID]messages.Epoch{}, writers: map[writerKey]*Writer{},
		}
		r.files[key] = f
	}
	f.refs++
	r.mu.Unlock()

	f.opening.Lock()
	defer f.opening.Unlock()
	if f.db != nil {
		return f, nil
	}
	_, missing := os.Stat(key)
	db, err := openPatiently(ctx, key, options(memory))
	if err == nil && errors.Is(missing, fs.ErrNotExist) {
		if err = syncFolder(filepath.Dir(key)); err != nil { // DuckDB syncs the file, not its name
			db.Close()
		}
	}
	if err != nil {
		if errors.Is(missing, fs.ErrNotExist) && !isLocked(err) {
			_ = os.Remove(key) // half a database would be taken for a damaged one
		}
		r.release(f)
		return nil, classify(ctx, "open the database", path, err)
	}
	f.db = db
	return f, nil
}

// makePath creates a folder and what is missing above it, and makes the new names
// durable.
func makePath(name string, sync func(dir string) error) error {
	if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
		return err // nil too: what is there and no folder was refused before
	}
	parent := filepath.Dir(name)
	if err := makePath(parent, sync); err != nil {
		return err
	}
	if err := os.Mkdir(name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) { //nolint:gosec // a folder of the user's data, as a shell would make it
		return err
	}
	return sync(parent)
}

// syncFolder makes the names in a folder durable.
func syncFolder(name string) error {
	d, err := os.Open(filepath.Clean(name))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// release closes the database with its last user; DuckDB then merges the
// write-ahead log into the file.
func (r *registry) release(f *file) {
	r.mu.Lock()
	f.refs--
	last := f.refs == 0
	if last {
		delete(r.files, f.key)
	}
	r.mu.Unlock()
	if last && f.db != nil {
		f.db.Close()
	}
}

// writing reports whether this process has path open for writing.
func (r *registry) writing(path string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.files[resolve(path)] != nil
}

// openPatiently opens a database, waiting a little while somebody else has it.
func openPatiently(ctx context.Context, path string, options map[string]string) (*duckarrow.DB, error) {
	until := time.Now().Add(busyTime)
	for {
		db, err := duckarrow.Open(path, options)
		if err == nil || !isLocked(err) || time.Now().After(until) {
			return db, err
		}
		t := time.NewTimer(busyPause)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, context.Cause(ctx)
		case <-t.C:
		}
	}
}

// connect opens a connection with the settings of all of them.
func (f *file) connect(ctx context.Context) (*duckarrow.Conn, error) {
	conn, err := f.db.Connect()
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", f.path, err)
	}
	if _, err := conn.Exec(ctx, "SET TimeZone = 'UTC'"); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// lock takes control of the file; unlock gives it back.
func (f *file) lock(ctx context.Context) error {
	select {
	case f.control <- struct{}{}:
		return nil
	default:
	}
	select {
	case f.control <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (f *file) unlock() { <-f.control }

// fence ends every writer that old selects, and waits until it has rolled back.
// The caller has control.
func (f *file) fence(cause *connectors.FencedError, old func(writerKey, *Writer) bool) {
	for k, w := range f.writers {
		if old(k, w) {
			w.fence(cause)
			delete(f.writers, k)
		}
	}
}

// locks is a set of named locks that a waiter can give up on.
type locks struct {
	mu sync.Mutex
	m  map[string]chan struct{}
}

// lock takes the lock of name and returns its release.
func (l *locks) lock(ctx context.Context, name string) (release func(), err error) {
	l.mu.Lock()
	c := l.m[name]
	if c == nil {
		c = make(chan struct{}, 1)
		l.m[name] = c
	}
	l.mu.Unlock()
	select {
	case c <- struct{}{}:
		return func() { <-c }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

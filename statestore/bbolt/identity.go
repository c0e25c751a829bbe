package bbolt

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"rapidbyte.io/node/statestore"
)

const (
	format = 1 // of the database and of the identity file

	identitySuffix = ".id"
	lockSuffix     = ".lock"
	newSuffix      = ".new"     // a file that is being written; it gets its name when it is complete
	asideSuffix    = ".damaged" // and a number
)

// identity says which store this is. It is kept twice: in the database, and in a
// file beside it that knows that there was a store when the database is gone,
// cut off or empty (I11).
type identity struct {
	Format   int       `json:"format"`
	Identity string    `json:"identity"` // UUID
	Created  time.Time `json:"created"`
}

func newIdentity(now time.Time) identity {
	return identity{Format: format, Identity: uuid.NewString(), Created: now.UTC().Round(0)}
}

// check refuses an identity of another format version, and nonsense.
func (i identity) check() error {
	if i.Format != format {
		return fmt.Errorf("%w: it has format %d, this program knows format %d", statestore.ErrForeign, i.Format, format)
	}
	if _, err := uuid.Parse(i.Identity); err != nil {
		return fmt.Errorf("%w: identity %q: %w", statestore.ErrDamaged, i.Identity, err)
	}
	return nil
}

// identityFile is the text of the file: the checksum is over the rest.
type identityFile struct {
	identity
	Sum uint32 `json:"crc32c"`
}

var identityAddress = address{kind: kindMeta, key: "identity"}

func (i identity) sum() (uint32, error) {
	body, err := json.Marshal(i)
	return checksum(identityAddress, body), err
}

// readIdentity reads the identity file. The error is fs.ErrNotExist when there
// is none, ErrDamaged when it cannot be trusted, ErrForeign for another format.
func readIdentity(path string) (identity, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return identity{}, err
	}
	var f identityFile
	if err := json.Unmarshal(text, &f); err != nil {
		return identity{}, fmt.Errorf("%w: %s: %w", statestore.ErrDamaged, path, err)
	}
	sum, err := f.sum()
	if err != nil || sum != f.Sum {
		return identity{}, fmt.Errorf("%w: the checksum of %s does not hold", statestore.ErrDamaged, path)
	}
	return f.identity, f.check()
}

// writeIdentity writes the identity file, durably, all or nothing.
func writeIdentity(path string, i identity) error {
	sum, err := i.sum()
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(identityFile{identity: i, Sum: sum}, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path+newSuffix, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return publish(path)
}

// publish gives path+newSuffix its name, durably. Its content is on disk.
func publish(path string) error {
	if err := os.Rename(path+newSuffix, path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// syncFolder makes the names in a folder durable.
func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// makeFolder creates path and what is missing above it, for the owner alone, and
// makes the new names durable.
func makeFolder(path string) error {
	_, err := os.Stat(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return err // what is there already, perhaps not a folder, the next step finds out
	}
	parent := filepath.Dir(path)
	if err := makeFolder(parent); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncFolder(parent)
}

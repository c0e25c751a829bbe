package bbolt_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
	"rapidbyte.io/node/statestore/bbolt"
)

func TestANewStoreBelongsToItsOwnerAlone(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "a", "b")
	path := filepath.Join(folder, "state.db")
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	s, err := bbolt.Open(t.Context(), bbolt.Config{Path: path, Now: func() time.Time { return now }})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	for name, want := range map[string]os.FileMode{
		filepath.Dir(folder): 0o700, folder: 0o700, path: 0o600, path + ".id": 0o600, path + ".lock": 0o600,
	} {
		st, err := os.Stat(name)
		require.NoError(t, err)
		require.Equal(t, want, st.Mode().Perm(), name)
	}
	text, err := os.ReadFile(path + ".id")
	require.NoError(t, err)
	var id struct {
		Format   int
		Identity string
		Created  time.Time
	}
	require.NoError(t, json.Unmarshal(text, &id))
	require.Equal(t, 1, id.Format)
	require.Equal(t, s.Identity(), id.Identity)
	require.Equal(t, now, id.Created)
}

func TestTwoStoresHaveTwoIdentities(t *testing.T) {
	one, two := open(t, filepath.Join(t.TempDir(), "s")), open(t, filepath.Join(t.TempDir(), "s"))
	require.NotEqual(t, one.Identity(), two.Identity())
}

func TestAStoreThatVanishedIsNotTakenAsEmpty(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	first := open(t, path)
	id := first.Identity()
	require.NoError(t, first.Close())
	for what, remove := range map[string]func() error{
		"deleted": func() error { return os.Remove(path) },
		"emptied": func() error { return os.WriteFile(path, nil, 0o600) },
		"replaced by an empty database": func() error {
			if err := os.Remove(path); err != nil {
				return err
			}
			db, err := bolt.Open(path, 0o600, nil)
			if err != nil {
				return err
			}
			return db.Close()
		},
		"overwritten": func() error { return os.WriteFile(path, bytes.Repeat([]byte("x"), 65536), 0o600) },
	} {
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		require.NoError(t, remove())
		err := openError(t, bbolt.Config{Path: path})
		require.ErrorIs(t, err, statestore.ErrDamaged, what)
	}
	s, err := bbolt.Open(t.Context(), bbolt.Config{Path: path, Rebuild: true})
	require.NoError(t, err)
	require.Equal(t, id, s.Identity())
	require.NoError(t, s.Close())
}

func TestAnEmptyFileIsNoStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.ErrorIs(t, openError(t, bbolt.Config{Path: path}), statestore.ErrDamaged)
}

func TestASoundDatabaseRestoresItsIdentityFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, path)
	id := s.Identity()
	_, err := s.Acquire(t.Context(), "a", statestore.Claim{Floor: 41})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	good, err := os.ReadFile(path + ".id")
	require.NoError(t, err)
	for _, text := range [][]byte{nil, good[:20], bytes.Replace(good, []byte(id[:4]), []byte("beef"), 1), {}} {
		if text == nil {
			require.NoError(t, os.Remove(path+".id"))
		} else {
			require.NoError(t, os.WriteFile(path+".id", text, 0o600))
		}
		s := open(t, path)
		require.Equal(t, id, s.Identity())
		st, err := s.Load(t.Context(), "a")
		require.NoError(t, err)
		require.EqualValues(t, 42, st.Epoch)
		require.NoError(t, s.Close())
		restored, err := os.ReadFile(path + ".id")
		require.NoError(t, err)
		require.Equal(t, string(good), string(restored))
	}
}

func TestADamagedIdentityFileStillProvesThatThereWasAStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	require.NoError(t, os.WriteFile(path+".id", []byte("{"), 0o600))
	require.ErrorIs(t, openError(t, bbolt.Config{Path: path}), statestore.ErrDamaged)
	s, err := bbolt.Open(t.Context(), bbolt.Config{Path: path, Rebuild: true})
	require.NoError(t, err)
	require.NotEmpty(t, s.Identity())
	require.NoError(t, s.Close())
	require.Equal(t, s.Identity(), open(t, path).Identity())
}

func TestAForeignFileIsRefusedAndLeftAlone(t *testing.T) {
	folder := t.TempDir()
	other := filepath.Join(folder, "other.db")
	edit(t, other, func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte("things"))
		if err != nil {
			return err
		}
		return b.Put([]byte("k"), []byte("v"))
	})
	unsynced := filepath.Join(folder, "unsynced.db") // bbolt would rewrite it on opening
	db, err := bolt.Open(unsynced, 0o600, &bolt.Options{NoFreelistSync: true})
	require.NoError(t, err)
	require.NoError(t, db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucket([]byte("things"))
		return err
	}))
	require.NoError(t, db.Close())
	text := filepath.Join(folder, "pipeline.yaml")
	require.NoError(t, os.WriteFile(text, []byte("version: 1\n"), 0o600))
	large := filepath.Join(folder, "large.csv")
	require.NoError(t, os.WriteFile(large, bytes.Repeat([]byte("1,2,3\n"), 20000), 0o600))
	for _, path := range []string{other, unsynced, text, large} {
		before, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, rebuild := range []bool{false, true} {
			err := openError(t, bbolt.Config{Path: path, Rebuild: rebuild})
			require.ErrorIs(t, err, statestore.ErrForeign, path)
			require.Equal(t, messages.CodeStateForeign, statestore.CodeOf(err))
		}
		after, err := os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, bytes.Equal(before, after), path)
		require.NoFileExists(t, path+".id")
	}
	require.ErrorContains(t, openError(t, bbolt.Config{Path: folder}), "is a directory")
}

func TestAnotherStoresDatabaseIsRefused(t *testing.T) {
	mine, theirs := filepath.Join(t.TempDir(), "state.db"), filepath.Join(t.TempDir(), "state.db")
	mineID, theirID := open(t, mine).Identity(), open(t, theirs).Identity()
	copyFile(t, theirs, mine)
	err := openError(t, bbolt.Config{Path: mine, Rebuild: true, Timeout: time.Millisecond})
	require.ErrorIs(t, err, statestore.ErrHeld, "still open")

	third := filepath.Join(t.TempDir(), "state.db")
	copyFile(t, theirs, third)
	copyFile(t, mine+".id", third+".id")
	err = openError(t, bbolt.Config{Path: third, Rebuild: true})
	require.ErrorIs(t, err, statestore.ErrForeign)
	require.ErrorContains(t, err, mineID)
	require.ErrorContains(t, err, theirID)
}

func TestAnotherFormatIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s, err := bbolt.Open(t.Context(), bbolt.Config{Path: path})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.NoError(t, bbolt.WriteFormat(path, 2))
	err = openError(t, bbolt.Config{Path: path, Rebuild: true})
	require.ErrorIs(t, err, statestore.ErrForeign)
	require.ErrorContains(t, err, "format 2")
}

func TestAnOldCopyIsLegalAndTheFloorRaisesItsEpochs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, path)
	e, err := s.Acquire(t.Context(), "a", statestore.Claim{})
	require.NoError(t, err)
	require.NoError(t, s.Save(t.Context(), "a", e, small(1)))
	backup, err := os.ReadFile(path)
	require.NoError(t, err)
	for range 5 {
		e, err = s.Acquire(t.Context(), "a", statestore.Claim{})
		require.NoError(t, err)
	}
	require.NoError(t, s.Save(t.Context(), "a", e, small(2)))
	require.NoError(t, s.Close())

	require.NoError(t, os.WriteFile(path, backup, 0o600))
	s = open(t, path)
	require.EqualValues(t, 1, stored(t, s))
	again, err := s.Acquire(t.Context(), "a", statestore.Claim{Floor: e})
	require.NoError(t, err)
	require.Equal(t, e+1, again)
	require.NoError(t, s.Save(t.Context(), "a", again, small(2)))
	require.EqualValues(t, 2, stored(t, s))
}

func TestAnErrorOfASaveNamesPathAndPipeline(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, path)
	err := s.Save(t.Context(), "shop", 3, small(1))
	require.EqualError(t, err, "save checkpoint of pipeline shop, stream l, task p in "+path+": a newer owner has the pipeline: epoch 3 was presented, the pipeline has 0")
	require.ErrorIs(t, openError(t, bbolt.Config{}), statestore.ErrInvalid)
}

func TestAPathBelowAFileIsAPlainError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, []byte("x"), 0o600))
	err := openError(t, bbolt.Config{Path: filepath.Join(file, "state.db")})
	require.Equal(t, messages.CodeState, statestore.CodeOf(err))
}

package bbolt

// FD returns the descriptor of the database, for tests that break the disk under
// an open store.
func (s *Store) FD() int { return int(s.file.Fd()) }

// Stuck reports whether bbolt panicked in the store.
func (s *Store) Stuck() bool { return s.stuck.Load() }

// WriteFormat gives a closed store another format version, as a later program
// would.
func WriteFormat(path string, version int) error {
	id, err := readIdentity(path + identitySuffix)
	if err != nil {
		return err
	}
	id.Format = version
	return writeIdentity(path+identitySuffix, id)
}

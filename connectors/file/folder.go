package file

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/google/uuid"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/file/manifest"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/failpoint"
	"rapidbyte.io/node/runtime/mutant"
)

// bookkeeping is the folder of everything that is not data, inside the
// destination's path.
const bookkeeping = "_rapidbyte"

// manifestsKept is how many of the newest manifests stay. Readers need one; a
// writer that paused between looking and linking must find a younger one.
const manifestsKept = 4

// manifestBytesMax bounds what is read of one manifest.
const manifestBytesMax = 1 << 30

// The steps of a commit, in order. A test's hook can end the process, so to
// speak, before each of them.
const (
	stepWrite        = "file.write"
	stepSync         = "file.fsync"
	stepRename       = "file.rename"
	stepDirSync      = "dir.fsync"
	stepManifest     = "manifest.write"
	stepManifestSync = "manifest.fsync"
	stepLink         = "manifest.link"
	stepLinked       = "manifest.linked"
	stepLinkSync     = "manifest.dir.fsync"
	stepTrim         = "manifest.trim"
	stepRemove       = "file.remove"
)

// errStale says that another manifest of the same number, or one so much higher that
// nobody knows which came first, is there. Read again and decide again.
var errStale = errors.New("another manifest is newer")

// linkError is a failure at or after the link: the manifest may be there.
type linkError struct{ err error }

func (e *linkError) Error() string { return e.err.Error() }
func (e *linkError) Unwrap() error { return e.err }

// folder is the file system of one pipeline's destination. Everything goes
// through one os.Root: no name, link or mount of the pipeline leaves it. It holds
// no state and may be used concurrently.
type folder struct {
	root     *os.Root
	path     string // as configured, for messages
	pipeline messages.PipelineID
	hook     func(step string) error // of tests; nil otherwise
	flush    func(*os.File) error    // makes a file or folder durable
}

func (f *folder) own(name string) string {
	return path.Join(bookkeeping, string(f.pipeline), name)
}

func (f *folder) at(step string) error {
	if f.hook == nil {
		return nil
	}
	return f.hook(step)
}

// highest returns the newest manifest, the empty one when there is none. known
// is returned when it is still the newest; it may be nil.
func (f *folder) highest(known *manifest.Manifest) (*manifest.Manifest, error) {
	for range 100 {
		n, err := f.highestNumber()
		if err != nil {
			return nil, err
		}
		if known != nil && known.Number == n {
			return known, nil
		}
		if n == 0 {
			return manifest.Empty(f.pipeline), nil
		}
		m, err := f.read(n)
		if errors.Is(err, fs.ErrNotExist) {
			continue // trimmed since it was listed: there is a newer one
		}
		return m, err
	}
	return nil, destError("read the manifest", f.path, connectors.CommitNone, errors.New("it changes faster than it can be read"))
}

func (f *folder) highestNumber() (uint64, error) {
	numbers, err := f.numbers()
	if err != nil || len(numbers) == 0 {
		return 0, err
	}
	return slices.Max(numbers), nil
}

func (f *folder) numbers() ([]uint64, error) {
	entries, err := f.list(f.own(""))
	if err != nil {
		return nil, destError("list the manifests", f.path, connectors.CommitNone, err)
	}
	var out []uint64
	for _, name := range entries {
		if n, ok := manifest.ParseName(name); ok {
			out = append(out, n)
		}
	}
	return out, nil
}

func (f *folder) read(n uint64) (*manifest.Manifest, error) {
	name := f.own(manifest.Name(n))
	file, err := f.root.Open(name)
	if err != nil {
		return nil, destError("open the manifest", path.Join(f.path, name), connectors.CommitNone, err)
	}
	defer func() { _ = file.Close() }()
	b, err := io.ReadAll(io.LimitReader(file, manifestBytesMax))
	if err != nil {
		return nil, destError("read the manifest", path.Join(f.path, name), connectors.CommitNone, err)
	}
	m, err := manifest.Decode(b, n, f.pipeline)
	if err != nil {
		return nil, refused("read the manifest", messages.CodeDestDamaged, messages.Place{File: path.Join(f.path, name)}, "", err)
	}
	return m, nil
}

// publish makes m the newest manifest: whole, durable, and only if no other of
// its number exists. errStale asks to read again; a linkError leaves it open
// whether m is there.
func (f *folder) publish(m *manifest.Manifest) error {
	b, err := manifest.Encode(m)
	if err != nil {
		return err
	}
	tmp := f.own(path.Join("tmp", tmpName(m.Epoch)))
	if err := f.writeManifest(tmp, b); err != nil {
		f.remove(tmp)
		return err
	}
	err = f.linkManifest(tmp, m.Number)
	f.remove(tmp)
	if err != nil {
		return err
	}
	f.trim(m.Number)
	return nil
}

func (f *folder) writeManifest(tmp string, b []byte) error {
	if err := f.at(stepManifest); err != nil {
		return err
	}
	file, err := f.root.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := file.Write(b); err != nil {
		_ = file.Close() // the write failed first
		return err
	}
	if err := f.at(stepManifestSync); err != nil {
		_ = file.Close()
		return err
	}
	if err := f.flush(file); err != nil {
		_ = file.Close()
		return err
	}
	return file.Close()
}

// linkManifest is the commit: link(2) fails if the name exists, so of two owners
// one wins. A writer that was paused for long before the link could find its number
// free again, because old manifests are trimmed. A higher one alone does not say so:
// it may build on this one, when the pause was after the link.
func (f *folder) linkManifest(tmp string, n uint64) error {
	if err := f.at(stepLink); err != nil {
		return err
	}
	name := f.own(manifest.Name(n))
	if err := f.root.Link(tmp, name); err != nil {
		switch {
		case errors.Is(err, fs.ErrExist) && f.sameFile(tmp, name):
			// a network file system linked it and lost the answer
		case errors.Is(err, fs.ErrExist), errors.Is(err, fs.ErrNotExist): // or a younger owner has swept tmp
			return errStale
		case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EROFS):
			return err // certainly not there
		default:
			return &linkError{err}
		}
	}
	if err := f.at(stepLinked); err != nil {
		return &linkError{err}
	}
	if err := failpoint.Hit(failpoint.ManifestLink); err != nil {
		return &linkError{err}
	}
	highest, err := f.highestNumber()
	if err != nil {
		return &linkError{err}
	}
	if highest >= n+manifestsKept { // else n was never trimmed: whatever is higher builds on ours
		f.remove(name)
		return errStale
	}
	if err := f.at(stepLinkSync); err != nil {
		return &linkError{err}
	}
	if err := f.syncDir(f.own("")); err != nil {
		return &linkError{err}
	}
	return nil
}

func (f *folder) sameFile(a, b string) bool {
	x, errA := f.root.Stat(a)
	y, errB := f.root.Stat(b)
	return errA == nil && errB == nil && os.SameFile(x, y)
}

// trim removes manifests that nobody needs. It is best effort: what stays is
// removed by a later call.
func (f *folder) trim(n uint64) {
	if f.at(stepTrim) != nil || n <= manifestsKept {
		return
	}
	numbers, err := f.numbers()
	if err != nil {
		return
	}
	for _, old := range numbers {
		if old <= n-manifestsKept {
			f.remove(f.own(manifest.Name(old)))
		}
	}
}

// remove deletes a file that no manifest refers to. It is best effort: orphans are
// found again by sweep.
func (f *folder) remove(name string) {
	if f.at(stepRemove) == nil {
		_ = f.root.Remove(name) // see above
	}
}

// place moves a finished temporary file to its final name.
func (f *folder) place(tmp, target, name string) error {
	if err := f.at(stepRename); err != nil {
		return err
	}
	if err := f.root.Rename(tmp, path.Join(target, name)); err != nil {
		return err
	}
	return failpoint.Hit(failpoint.FileRename)
}

func (f *folder) syncTarget(target string) error {
	if err := f.at(stepDirSync); err != nil {
		return err
	}
	return f.syncDir(target)
}

func (f *folder) syncDir(name string) error {
	if mutant.On(mutant.NoFolderSync) {
		return nil
	}
	d, err := f.root.Open(name)
	if err != nil {
		return err
	}
	if err := errors.Join(f.flush(d), d.Close()); err != nil {
		return err
	}
	return failpoint.Hit(failpoint.DirSync)
}

// makePath creates a folder and what is missing above it, and makes the new names
// durable.
func makePath(name string, sync func(dir string) error) error {
	switch info, err := os.Stat(name); {
	case err == nil && !info.IsDir():
		return &os.PathError{Op: "mkdir", Path: name, Err: syscall.ENOTDIR}
	case !errors.Is(err, fs.ErrNotExist):
		return err
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

// syncPath makes the names in a folder outside of the root durable.
func (d *Destination) syncPath(name string) error {
	if mutant.On(mutant.NoFolderSync) {
		return nil
	}
	dir, err := os.Open(filepath.Clean(name))
	if err != nil {
		return err
	}
	return errors.Join(d.flush(dir), dir.Close())
}

// makeDir creates a folder and makes it durable.
func (f *folder) makeDir(name string) error {
	if err := f.root.MkdirAll(name, 0o755); err != nil {
		return err
	}
	for dir := name; dir != "."; {
		dir = path.Dir(dir)
		if err := f.syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// sweep removes what writers of older epochs left behind: temporary files, and
// data files of this pipeline that m does not refer to. Files of this epoch may
// belong to another node's session and stay.
func (f *folder) sweep(m *manifest.Manifest) error {
	tmp, err := f.list(f.own("tmp"))
	if err != nil {
		return err
	}
	for _, name := range tmp {
		if e, ok := tmpEpoch(name); ok && e < m.Epoch {
			f.remove(f.own(path.Join("tmp", name)))
		}
	}
	keep := make(map[string]bool) // of all targets: two names of them can be one folder
	for target := range m.Targets {
		maps.Copy(keep, m.Names(target))
	}
	for target := range m.Targets {
		names, err := f.list(target)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			if e, ok := dataEpoch(name, f.pipeline); ok && e < m.Epoch && !keep[name] {
				f.remove(path.Join(target, name))
			}
		}
	}
	return nil
}

func (f *folder) list(dir string) ([]string, error) {
	d, err := f.root.Open(dir)
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	return names, errors.Join(err, d.Close())
}

func tmpName(e messages.Epoch) string { return fmt.Sprintf("%d-%s", e, uuid.NewString()) }

func tmpEpoch(name string) (messages.Epoch, bool) {
	digits, _, ok := strings.Cut(name, "-")
	e, err := strconv.ParseUint(digits, 10, 64)
	return messages.Epoch(e), ok && err == nil
}

// dataName is the name of a data file: pipeline, load, part, commit, number
// within the commit, epoch, attempt, content. It sorts by load and then by part
// and commit. Epoch and attempt make it the name of one writer alone, so that a
// fenced one that cleans up never removes what its successor has committed.
func dataName(p messages.PipelineID, r messages.Receipt, index int, sha, ext string) string {
	return fmt.Sprintf("%s-%06d-%s-%08d-%03d-e%d-a%d-%s%s", shortHash(string(p)), r.Version.Load, shortHash(string(r.Part)),
		r.Version.Commit, index, r.Token.Epoch, r.Token.Attempt, sha[:16], ext)
}

// dataEpoch returns the epoch in a data file's name; ok is false for the files of
// others.
func dataEpoch(name string, p messages.PipelineID) (messages.Epoch, bool) {
	fields := strings.Split(name, "-")
	if len(fields) != 8 || fields[0] != shortHash(string(p)) {
		return 0, false
	}
	digits, ok := strings.CutPrefix(fields[5], "e")
	e, err := strconv.ParseUint(digits, 10, 64)
	return messages.Epoch(e), ok && err == nil
}

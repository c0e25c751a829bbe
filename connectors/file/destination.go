package file

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/file/manifest"
	"rapidbyte.io/node/messages"
)

// targetBytesMax bounds the name of a target: data file names stay below the 255
// bytes of file systems by themselves, a folder's name must.
const targetBytesMax = 200

var pipelineName = regexp.MustCompile(`^[a-z0-9_-]{1,128}$`)

// Destination writes files into a folder. It holds nothing but its configuration.
type Destination struct {
	config DestinationConfig
	flush  func(*os.File) error    // makes a file or folder durable
	hook   func(step string) error // of tests
}

// NewDestination returns a destination, or an error that lists everything wrong
// with c. It does no I/O.
func NewDestination(c DestinationConfig) (*Destination, error) {
	if err := configError("destination", c.Problems()); err != nil {
		return nil, err
	}
	return &Destination{config: c.withDefaults(), flush: (*os.File).Sync}, nil
}

// Check implements connectors.Destination.
func (d *Destination) Check(_ context.Context, loads []connectors.Load) ([]connectors.Finding, error) {
	found := d.checkFolder()
	for _, l := range loads {
		if err := d.checkLoad(l); err != nil {
			found = append(found, findingOf(err))
		}
	}
	return found, nil
}

// Open implements connectors.Destination.
func (d *Destination) Open(_ context.Context, r connectors.SessionRequest) (connectors.Session, error) {
	if !pipelineName.MatchString(string(r.Pipeline)) {
		return nil, refused("open the folder", messages.CodeDocValue, messages.Place{}, "",
			fmt.Errorf("pipeline name %q cannot be a folder: want [a-z0-9_-]{1,128}", r.Pipeline))
	}
	f, err := d.folder(r.Pipeline)
	if err != nil {
		return nil, err
	}
	s := &session{config: d.config, folder: f, epoch: r.Epoch, users: 1}
	if err := s.takeOver(r); err != nil {
		return nil, errors.Join(err, f.root.Close())
	}
	return s, nil
}

// Survey implements connectors.Surveyor.
func (d *Destination) Survey(_ context.Context, p messages.PipelineID) (out connectors.Surveyed, err error) {
	root, err := os.OpenRoot(d.config.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return out, openError(d.config.Path, err)
	}
	defer func() { _ = root.Close() }() // nothing was written
	f := &folder{root: root, path: d.config.Path, pipeline: p}
	if _, err := root.Stat(f.own("")); errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	m, err := f.highest(nil)
	if err != nil {
		return out, err
	}
	return connectors.Surveyed{Recovered: m.Recovered(), Epoch: m.Epoch, Store: m.Store}, nil
}

// folder creates what is missing and opens it.
func (d *Destination) folder(p messages.PipelineID) (*folder, error) {
	if err := makePath(filepath.Clean(d.config.Path), d.syncPath); err != nil {
		return nil, openError(d.config.Path, err)
	}
	root, err := os.OpenRoot(d.config.Path)
	if err != nil {
		return nil, openError(d.config.Path, err)
	}
	f := &folder{root: root, path: d.config.Path, pipeline: p, hook: d.hook, flush: d.flush}
	if err := f.makeDir(f.own("tmp")); err != nil {
		return nil, errors.Join(openError(d.config.Path, err), root.Close())
	}
	return f, nil
}

// openError says why there is no folder.
func openError(p string, err error) error {
	e, ok := errors.AsType[*connectors.Error](destError("open the folder", p, connectors.CommitNone, err))
	if ok && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist)) {
		e.Kind, e.Code = connectors.KindConfig, messages.CodeDestMissing
	}
	return e
}

// checkFolder looks whether the folder can be written, without touching it.
func (d *Destination) checkFolder() []connectors.Finding {
	at := filepath.Clean(d.config.Path)
	for {
		info, err := os.Stat(at)
		switch {
		case err == nil && !info.IsDir():
			return []connectors.Finding{{
				Severity: connectors.SeverityError, Code: messages.CodeDestMissing, Where: messages.Place{File: at},
				Message: at + " is a file, not a folder",
			}}
		case err == nil:
			if err := unix.Access(at, unix.W_OK|unix.X_OK); err != nil {
				return []connectors.Finding{findingOf(destError("look at the folder", at, connectors.CommitNone, err))}
			}
			return nil
		case !errors.Is(err, fs.ErrNotExist):
			return []connectors.Finding{findingOf(openError(at, err))}
		}
		parent := filepath.Dir(at)
		if parent == at {
			return nil
		}
		at = parent
	}
}

// checkLoad refuses what no folder can take, whatever is in it.
func (d *Destination) checkLoad(l connectors.Load) error {
	switch l.Mode {
	case connectors.ModeAppend, connectors.ModeReplace:
	case connectors.ModeUpsert:
		return refused("begin load "+l.ID.Name, messages.CodeDocConflict, messages.Place{Stream: messages.StreamID(l.ID.Name)},
			"Set `write_mode: append` or `write_mode: replace`.",
			errors.New("files cannot be updated in place: the file destination has no upsert"))
	default:
		return refused("begin load "+l.ID.Name, messages.CodeDocValue, messages.Place{}, "", fmt.Errorf("unknown write mode %q", l.Mode))
	}
	folded := make(map[string]string)
	for _, s := range l.Streams {
		if err := checkTarget(s); err != nil {
			return err
		}
		if other, ok := folded[strings.ToLower(s.Target)]; ok {
			return refused("begin load "+l.ID.Name, messages.CodeSchemaName, messages.Place{Stream: s.Stream}, "",
				fmt.Errorf("targets %q and %q are one folder", other, s.Target))
		}
		folded[strings.ToLower(s.Target)] = s.Target
		if err := checkSchema(d.config.Format, s.Stream, s.Schema); err != nil {
			return err
		}
	}
	return nil
}

// checkTarget refuses names that are not one plain folder below the path.
func checkTarget(s connectors.StreamPlan) error {
	bad := func(why string) error {
		return refused("begin stream "+string(s.Stream), messages.CodeSchemaName, messages.Place{Stream: s.Stream},
			"Set `target:` for the stream.", fmt.Errorf("target %q cannot be a folder: it %s", s.Target, why))
	}
	switch t := s.Target; {
	case t == "":
		return bad("is empty")
	case len(t) > targetBytesMax:
		return bad(fmt.Sprintf("has %d bytes, %d are allowed", len(t), targetBytesMax))
	case !utf8.ValidString(t):
		return bad("is not valid UTF-8")
	case strings.ContainsAny(t, `/\`):
		return bad("holds a path separator")
	case t[0] == '.':
		return bad("begins with a dot")
	case strings.EqualFold(t, bookkeeping):
		return bad("is where the manifests are")
	case strings.ContainsFunc(t, unicode.IsControl):
		return bad("holds a control character")
	}
	return nil
}

func findingOf(err error) connectors.Finding {
	f := connectors.Finding{Severity: connectors.SeverityError, Message: err.Error()}
	if e, ok := errors.AsType[*connectors.Error](err); ok {
		f.Code, f.Where, f.Remedy = e.Code, e.Place, e.Next
		f.Message = e.Op
		if e.Err != nil {
			f.Message += ": " + e.Err.Error()
		}
	}
	return f
}

func shortHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:4])
}

// Committed is what readers of a folder may trust: the files that the newest
// manifest of one pipeline lists.
type Committed struct {
	Number  uint64 // of the manifest; grows with each commit
	Epoch   messages.Epoch
	Targets map[string]manifest.Target
	Dead    []manifest.File // dead letters, in _rapidbyte/<pipeline>/dead
	root    string
}

// ReadCommitted reads the newest manifest of pipeline p in the destination folder
// dir. It takes no lock and may run beside a writer. A file that is gone when it
// is opened was replaced since: read again.
func ReadCommitted(dir string, p messages.PipelineID) (Committed, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Committed{}, openError(dir, err)
	}
	defer func() { _ = root.Close() }()
	f := &folder{root: root, path: dir, pipeline: p}
	m, err := f.highest(nil)
	if err != nil {
		return Committed{}, err
	}
	return Committed{Number: m.Number, Epoch: m.Epoch, Targets: m.Targets, Dead: m.Dead, root: dir}, nil
}

// Files returns the paths of the committed files of target, in commit order of
// each part.
func (c Committed) Files(target string) []string {
	var out []string
	for _, f := range c.Targets[target].Files {
		out = append(out, filepath.Join(c.root, target, f.Name))
	}
	return out
}

// Rows returns how many rows target has.
func (c Committed) Rows(target string) (rows int64) {
	for _, f := range c.Targets[target].Files {
		rows += f.Rows
	}
	return rows
}

func (f *folder) deadDir() string { return path.Join(bookkeeping, string(f.pipeline), "dead") }

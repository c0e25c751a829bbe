package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// match is one regular file that a pattern leads to.
type match struct {
	path string // absolute
	rel  string // below the fixed part of the pattern, with slashes
}

// expand lists the regular files of a pattern, sorted by path. A path that exists
// is taken literally, whatever characters it has; of a folder all files count but
// those whose name, or a folder below it, begins with a dot or an underscore.
func expand(pattern string) ([]match, error) {
	if pattern == "" {
		return nil, refused("look for files", messages.CodeSourceMissing, messages.Place{},
			"Set `path:` in the source's config or for the stream.", errors.New("no path is given"))
	}
	abs, err := filepath.Abs(pattern)
	if err != nil {
		return nil, sourceError("look for files", pattern, err)
	}
	info, err := os.Stat(abs)
	switch {
	case err == nil && info.IsDir():
		return matching(pattern, abs, "**/*")
	case err == nil && info.Mode().IsRegular():
		return []match{{path: abs, rel: filepath.Base(abs)}}, nil
	case err == nil:
		return nil, refused("look for files", messages.CodeSourceMissing, messages.Place{File: pattern}, "", errors.New("it is not a regular file"))
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrInvalid):
		return nil, sourceError("look for files", pattern, err)
	}
	base, rest := doublestar.SplitPattern(filepath.ToSlash(abs))
	return matching(pattern, base, rest)
}

// matching lists what matches rest below base.
func matching(pattern, base, rest string) ([]match, error) {
	names, err := doublestar.Glob(os.DirFS(base), rest, doublestar.WithFilesOnly(), doublestar.WithFailOnIOErrors())
	if err != nil {
		if errors.Is(err, doublestar.ErrBadPattern) {
			return nil, refused("look for files", messages.CodeDocValue, messages.Place{File: pattern}, "", err)
		}
		return nil, sourceError("look for files", pattern, err)
	}
	slices.Sort(names)
	var out []match
	for _, name := range slices.Compact(names) {
		if rest == "**/*" && isHidden(name) {
			continue
		}
		path := filepath.Join(base, filepath.FromSlash(name))
		info, err := os.Stat(path)
		if err != nil {
			return nil, sourceError("look at the file", path, err)
		}
		if info.Mode().IsRegular() {
			out = append(out, match{path: path, rel: name})
		}
	}
	if len(out) == 0 {
		return nil, noFiles(pattern)
	}
	return out, nil
}

func noFiles(pattern string) error {
	return refused("look for files", messages.CodeSourceMissing, messages.Place{File: pattern}, "",
		fmt.Errorf("no file matches the pattern %q", pattern))
}

func isHidden(name string) bool {
	return slices.ContainsFunc(strings.Split(name, "/"), func(s string) bool { return s[0] == '.' || s[0] == '_' })
}

// filesOf returns the files of one stream: those of its own path, or those of the
// configured path that are called like it. A document whose only stream has no
// path and no file of its name means all files.
func (s *Source) filesOf(spec connectors.StreamSpec, only bool) ([]match, error) {
	if spec.Path != "" {
		return expand(spec.Path)
	}
	all, err := expand(s.config.Path)
	if err != nil {
		return nil, err
	}
	var named []match
	streams := make(map[string]bool)
	for _, m := range all {
		name := baseName(filepath.ToSlash(m.path))
		streams[name] = true
		if name == string(spec.Stream) {
			named = append(named, m)
		}
	}
	if len(named) > 0 {
		return named, nil
	}
	if only {
		return all, nil
	}
	names := make([]string, 0, len(streams))
	for name := range streams {
		names = append(names, name)
	}
	slices.Sort(names)
	return nil, refused("look for files of the stream", messages.CodeStreamUnknown, messages.Place{Stream: spec.Stream},
		"Name the stream like one of its files, or set `path:` for it.",
		fmt.Errorf("no file of %q is called %s; there are: %s", s.config.Path, spec.Stream, strings.Join(names[:min(len(names), 20)], ", ")))
}

// discovered groups the files of the configured path into streams by name.
func (s *Source) discovered() ([]connectors.StreamSpec, map[messages.StreamID][]match, error) {
	all, err := expand(s.config.Path)
	if err != nil {
		return nil, nil, err
	}
	files := make(map[messages.StreamID][]match)
	for _, m := range all {
		id := messages.StreamID(baseName(filepath.ToSlash(m.path)))
		files[id] = append(files[id], m)
	}
	specs := make([]connectors.StreamSpec, 0, len(files))
	for id := range files {
		specs = append(specs, connectors.StreamSpec{Stream: id, Sync: connectors.SyncFullRefresh, Mode: connectors.ModeAppend})
	}
	slices.SortFunc(specs, func(a, b connectors.StreamSpec) int { return strings.Compare(string(a.Stream), string(b.Stream)) })
	return specs, files, nil
}

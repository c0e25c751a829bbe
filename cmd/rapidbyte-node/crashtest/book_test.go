package crashtest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// entry is a finished cell of a commit.
type entry struct {
	Commit string `json:"commit"`
	Cell   string `json:"cell"`
	figures
}

// verdict is a finished sweep.
type verdict struct {
	Commit string             `json:"commit"`
	All    figures            `json:"all"`
	Modes  map[string]figures `json:"modes"`
}

// book keeps the cells of a full sweep, so that it may be done in several slices.
type book struct {
	dir    string // docs/reliability
	commit string

	mu   sync.Mutex
	done map[string]figures
}

// openBook reads what is done of this commit. Figures of a changed tree would belong to none.
func openBook() (*book, error) {
	commit, err := git("rev-parse", "HEAD")
	if err != nil {
		return nil, err
	}
	root, err := git("rev-parse", "--show-toplevel")
	if err != nil {
		return nil, err
	}
	changed, err := git("status", "--porcelain", "--untracked-files=no")
	if err == nil && changed != "" {
		err = fmt.Errorf("the figures of a full sweep belong to a commit, and the tree is changed:\n%s", changed)
	}
	if err != nil {
		return nil, err
	}
	b := &book{dir: filepath.Join(root, "docs", "reliability"), commit: commit, done: map[string]figures{}}
	if err := os.MkdirAll(b.dir, 0o750); err != nil {
		return nil, err
	}
	f, err := os.Open(b.cells())
	if errors.Is(err, os.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var e entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, fmt.Errorf("%s: %w", b.cells(), err)
		}
		if e.Commit == commit {
			b.done[e.Cell] = e.figures
		}
	}
	return b, lines.Err()
}

func git(args ...string) (string, error) {
	out, err := exec.Command("git", args...).Output()
	return strings.TrimSpace(string(out)), err
}

func (b *book) cells() string { return filepath.Join(b.dir, "crash.cells") }

func (b *book) has(c cell) bool {
	_, ok := b.done[c.String()]
	return ok
}

func (b *book) add(c cell, f figures) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done[c.String()] = f
	return appendLine(b.cells(), entry{Commit: b.commit, Cell: c.String(), figures: f})
}

// conclude appends the figures of the finished sweep.
func (b *book) conclude() error {
	v := verdict{Commit: b.commit, Modes: map[string]figures{}}
	for name, f := range b.done {
		mode, _, _ := strings.Cut(name, "/")
		of := v.Modes[mode]
		of.add(f)
		v.Modes[mode] = of
		v.All.add(f)
	}
	return appendLine(filepath.Join(b.dir, "crash.jsonl"), v)
}

func appendLine(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644) //nolint:gosec // figures for everybody
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	return errors.Join(err, f.Close())
}

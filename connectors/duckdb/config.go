package duckdb

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

const (
	schemaDefault = "main"

	memoryDefault connectors.ByteSize = 256 << 20
	memoryMin     connectors.ByteSize = 64 << 20
)

// SourceConfig is the document's config of a `use: duckdb` source.
type SourceConfig struct {
	Path   string `yaml:"path" jsonschema:"required" jsonschema_description:"Database file. It is opened read-only."`
	Schema string `yaml:"schema" jsonschema_description:"Schema whose tables and views are discovered; default: every schema. A stream name may be qualified."`
	// MaxMemory comes on top of resources.max_memory.
	MaxMemory connectors.ByteSize `yaml:"max_memory" jsonschema:"default=256mb" jsonschema_description:"Memory that the database engine may use, beside resources.max_memory."`
}

// Problems returns everything that is wrong with c.
func (c SourceConfig) Problems() []connectors.Problem { return problems(c.Path, c.Schema, c.MaxMemory) }

// DestinationConfig is the document's config of a `use: duckdb` destination.
type DestinationConfig struct {
	Path   string `yaml:"path" jsonschema:"required" jsonschema_description:"Database file; it and its folder are created when missing."`
	Schema string `yaml:"schema" jsonschema:"default=main" jsonschema_description:"Schema of the target tables; created when it does not exist."`
	// MaxMemory comes on top of resources.max_memory. The indexes of an upsert must fit.
	MaxMemory connectors.ByteSize `yaml:"max_memory" jsonschema:"default=256mb" jsonschema_description:"Memory that the database engine may use, beside resources.max_memory; the key index of an upsert must fit."`
}

// Problems returns everything that is wrong with c.
func (c DestinationConfig) Problems() []connectors.Problem {
	out := problems(c.Path, c.Schema, c.MaxMemory)
	if strings.EqualFold(c.Schema, bookkeeping) {
		out = append(out, connectors.Problem{Path: "schema", Message: "is the schema of the engine's bookkeeping: choose another one"})
	}
	return out
}

func problems(path, schema string, memory connectors.ByteSize) []connectors.Problem {
	var out []connectors.Problem
	if memory != 0 && memory < memoryMin {
		out = append(out, connectors.Problem{Path: "max_memory", Message: fmt.Sprintf("is %s, at least %s is needed", memory, memoryMin)})
	}
	switch {
	case strings.TrimSpace(path) == "":
		out = append(out, connectors.Problem{Path: "path", Message: "is empty: want a database file"})
	case strings.HasPrefix(path, ":memory:"):
		out = append(out, connectors.Problem{Path: "path", Message: "is a database in memory, which nothing else could read: want a file"})
	case strings.Contains(path, "://"), strings.HasPrefix(path, "md:"):
		out = append(out, connectors.Problem{Path: "path", Message: "is not a local file"})
	case strings.ContainsRune(path, 0):
		out = append(out, connectors.Problem{Path: "path", Message: "contains a NUL character"})
	}
	if strings.ContainsRune(schema, 0) {
		out = append(out, connectors.Problem{Path: "schema", Message: "contains a NUL character"})
	}
	return out
}

func configError(op string, problems []connectors.Problem) error {
	errs := make([]error, len(problems))
	for i, p := range problems {
		errs[i] = errors.New(p.Path + " " + p.Message)
	}
	return &connectors.Error{Op: op, Kind: connectors.KindConfig, Code: messages.CodeDocValue, Err: errors.Join(errs...)}
}

// SameFile returns an error of KindConfig when both ends of a pipeline are one
// file: DuckDB cannot read a file while it is open for writing elsewhere.
func SameFile(s SourceConfig, d DestinationConfig) error {
	if resolve(s.Path) != resolve(d.Path) {
		return nil
	}
	return &connectors.Error{
		Op: "check source and destination", Kind: connectors.KindConfig, Code: messages.CodeDocConflict,
		Place: messages.Place{File: d.Path}, Err: errors.New("source and destination are the same DuckDB file"),
		Next: "Write to another file.",
	}
}

// resolve returns the one name of a file: absolute, without symbolic links, also
// when it does not exist yet.
func resolve(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		return real
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		return filepath.Join(dir, filepath.Base(abs))
	}
	return abs
}

// checkFolder says what stands in the way of creating the file.
func checkFolder(path string) error {
	dir := filepath.Dir(path)
	info, err := os.Stat(dir)
	for errors.Is(err, os.ErrNotExist) && dir != filepath.Dir(dir) { // Open creates what is missing
		dir = filepath.Dir(dir)
		info, err = os.Stat(dir)
	}
	switch {
	case err != nil && os.IsPermission(err):
		return destError("open the database", connectors.KindConfig, messages.CodeDestDenied, path, err)
	case err != nil:
		return destError("open the database", connectors.KindConfig, messages.CodeDestMissing, path, fmt.Errorf("its folder: %w", err))
	case !info.IsDir():
		return destError("open the database", connectors.KindConfig, messages.CodeDestMissing, path, fmt.Errorf("%s is not a folder", dir))
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return destError("open the database", connectors.KindConfig, messages.CodeDestMissing, path, errors.New("it is not a file"))
	}
	return nil
}

func destError(op string, kind connectors.Kind, code messages.Code, path string, err error) *connectors.Error {
	return &connectors.Error{
		Op: op, Kind: kind, Code: code, Place: messages.Place{File: path, Stage: connectors.StageDestination}, Err: err,
	}
}

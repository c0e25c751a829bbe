package sqltransform

import (
	"fmt"
	"strings"

	"rapidbyte.io/node/connectors"
)

const (
	memoryMin     connectors.ByteSize = 16 << 20
	memoryDefault connectors.ByteSize = 256 << 20
	threadsMax                        = 64
	queryBytesMax                     = 1 << 20
)

// Config is the document's config of `use: sql`.
type Config struct {
	Query     string              `yaml:"query" jsonschema:"required" jsonschema_description:"One SELECT over the stream's name; row-wise: projection, filter, expressions, unnest."`
	MaxMemory connectors.ByteSize `yaml:"max_memory" jsonschema:"default=256mb" jsonschema_description:"Memory that the embedded SQL engine may use, for all tasks of this transform together."`
	Threads   int                 `yaml:"threads" jsonschema:"default=1,minimum=1,maximum=64" jsonschema_description:"Threads of the embedded SQL engine besides the tasks' own."`
}

// Problems returns everything that is wrong with c.
func (c Config) Problems() []connectors.Problem {
	var out []connectors.Problem
	add := func(path, format string, args ...any) {
		out = append(out, connectors.Problem{Path: path, Message: fmt.Sprintf(format, args...)})
	}
	if strings.TrimSpace(c.Query) == "" {
		add("query", "is empty: want one SELECT over the stream's name")
	}
	if len(c.Query) > queryBytesMax {
		add("query", "has %d bytes, at most %d are allowed", len(c.Query), queryBytesMax)
	}
	if strings.ContainsRune(c.Query, 0) {
		add("query", "contains a NUL character")
	}
	if c.MaxMemory != 0 && c.MaxMemory < memoryMin {
		add("max_memory", "is %s, at least %s is needed", c.MaxMemory, memoryMin)
	}
	if c.Threads < 0 || c.Threads > threadsMax {
		add("threads", "is %d: want 1 to %d", c.Threads, threadsMax)
	}
	return out
}

// withDefaults fills what the document leaves out.
func (c Config) withDefaults() Config {
	if c.MaxMemory == 0 {
		c.MaxMemory = memoryDefault
	}
	c.Threads = max(c.Threads, 1)
	return c
}

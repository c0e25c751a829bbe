package config

import (
	"cmp"
	"errors"
	"strconv"
	"strings"
	"time"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// Backend names a kind of state store.
type Backend string

// The backends.
const (
	BackendBolt     Backend = "bbolt"
	BackendPostgres Backend = "postgres"
)

// DefaultStatePath is where the embedded state store lies unless the document
// says otherwise; relative to the working directory.
const DefaultStatePath = ".rapidbyte/state.db"

// State says where checkpoints are kept.
type State struct {
	Backend Backend `yaml:"backend" jsonschema:"enum=bbolt,enum=postgres" jsonschema_description:"Kind of state store; default bbolt, or postgres when connection is a postgres URL."`
	// Connection is a path or a URL with a password in it, so it is never printed.
	Connection connectors.Secret `yaml:"connection" jsonschema_description:"Path of the bbolt file, or a postgres URL."`
	// LeaseTTL is how long a node that is cut off keeps others waiting.
	LeaseTTL time.Duration `yaml:"lease_ttl" jsonschema:"default=15s" jsonschema_description:"How long an owner of the pipeline that has gone silent keeps it, from 1s to 10m; postgres only."`
}

// Path returns the file of a bbolt store, "" for another backend.
func (s State) Path() string {
	switch {
	case s.Backend != BackendBolt:
		return ""
	case s.Connection.IsZero():
		return DefaultStatePath
	}
	return s.Connection.Reveal()
}

// Resources are the limits of one run and the pins of its tuning.
type Resources struct {
	MaxMemory                 connectors.ByteSize `yaml:"max_memory" jsonschema:"minimum=1mb,default=256mb" jsonschema_description:"Hard cap on bytes in flight."`
	MaxBatchBytes             connectors.ByteSize `yaml:"max_batch_bytes" jsonschema:"minimum=1,default=64mb" jsonschema_description:"Upper bound of a batch; the engine picks smaller ones."`
	MaxRowBytes               connectors.ByteSize `yaml:"max_row_bytes" jsonschema:"minimum=1,default=16mb" jsonschema_description:"A larger row is an error that names it."`
	Parallelism               Parallelism         `yaml:"parallelism" jsonschema:"default=auto" expect:"auto or a number from 1 to 1024" jsonschema_description:"Tasks at a time."`
	CheckpointIntervalBytes   connectors.ByteSize `yaml:"checkpoint_interval_bytes" jsonschema:"default=64mb" jsonschema_description:"Bytes between checkpoints; 0 is off."`
	CheckpointIntervalRows    int64               `yaml:"checkpoint_interval_rows" jsonschema:"minimum=0,default=0" jsonschema_description:"Rows between checkpoints; 0 is off."`
	CheckpointIntervalSeconds int                 `yaml:"checkpoint_interval_seconds" jsonschema:"minimum=0,maximum=86400,default=0" jsonschema_description:"Seconds between checkpoints; 0 is off."`
	MaxRetries                int                 `yaml:"max_retries" jsonschema:"minimum=0,maximum=1000,default=3" jsonschema_description:"Retries of a task after a transient error."`
	Compression               string              `yaml:"compression" jsonschema:"enum=none,enum=lz4,enum=zstd,default=none" jsonschema_description:"Of plugin frames and spill."`
	MaxInflightBatches        int                 `yaml:"max_inflight_batches" jsonschema:"minimum=1,maximum=65536,default=16" jsonschema_description:"Upper bound of batches between two stages."`
	StallTimeoutSeconds       int                 `yaml:"stall_timeout_seconds" jsonschema:"minimum=0,maximum=604800,default=900" jsonschema_description:"Seconds without progress that end a run; 0 is off."`
	Passthrough               Passthrough         `yaml:"passthrough" jsonschema:"enum=auto,enum=off,default=auto" jsonschema_description:"Whether rows pass undecoded from one PostgreSQL server to another, where both hold the same types and nothing needs a value."`
	Autotune                  Autotune            `yaml:"autotune" jsonschema_description:"Pins of what the engine would choose."`
}

// CheckpointInterval returns the time between checkpoints, 0 for none.
func (r Resources) CheckpointInterval() time.Duration {
	return time.Duration(r.CheckpointIntervalSeconds) * time.Second
}

// StallTimeout returns the time without progress that ends a run, 0 for none.
func (r Resources) StallTimeout() time.Duration {
	return time.Duration(r.StallTimeoutSeconds) * time.Second
}

// Passthrough says whether rows may travel undecoded.
type Passthrough string

// The answers.
const (
	PassthroughAuto Passthrough = "auto" // wherever that writes the same
	PassthroughOff  Passthrough = "off"
)

// Autotune pins decisions of the engine. Zero leaves a decision to it.
type Autotune struct {
	Enabled       bool                `yaml:"enabled" jsonschema:"default=true"`
	Parallelism   int                 `yaml:"parallelism" jsonschema:"minimum=1,maximum=1024" jsonschema_description:"Tasks at a time; resources.parallelism wins over it."`
	PartitionMode string              `yaml:"partition_mode" jsonschema:"enum=mod,enum=mod_hash,enum=range" jsonschema_description:"How a stream is split."`
	FlushBytes    connectors.ByteSize `yaml:"flush_bytes" jsonschema:"minimum=1" jsonschema_description:"Bytes that a destination collects before it sends them."`
}

// Parallelism is a number of tasks; 0 is auto.
type Parallelism int

const parallelismMax = 1024

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Parallelism) UnmarshalText(b []byte) error {
	if string(b) == "auto" {
		*p = 0
		return nil
	}
	n, err := strconv.Atoi(string(b))
	if err != nil || n < 1 || n > parallelismMax {
		return errors.New("want auto or a number from 1 to 1024")
	}
	*p = Parallelism(n)
	return nil
}

// String implements fmt.Stringer.
func (p Parallelism) String() string {
	if p == 0 {
		return "auto"
	}
	return strconv.Itoa(int(p))
}

// Count returns the number of tasks: the pin, then autotune's, then auto.
func (r Resources) Count(auto int) int {
	switch {
	case r.Parallelism > 0:
		return int(r.Parallelism)
	case r.Autotune.Parallelism > 0:
		return r.Autotune.Parallelism
	}
	return max(1, auto)
}

// Pinned returns the key that says how many tasks run at a time; "": none does.
func (r Resources) Pinned() string {
	switch {
	case r.Parallelism > 0:
		return "resources.parallelism"
	case r.Autotune.Parallelism > 0:
		return "resources.autotune.parallelism"
	}
	return ""
}

// settle completes what depends on other keys. A bound that the document does not
// state shrinks with max_memory; one that it states must fit.
func (doc *Document) settle(r *report) {
	res := &doc.Resources
	for _, b := range []struct {
		key  string
		size *connectors.ByteSize
	}{{"max_batch_bytes", &res.MaxBatchBytes}, {"max_row_bytes", &res.MaxRowBytes}} {
		path := "resources." + b.key
		switch {
		case !r.sound(path) || !r.sound("resources.max_memory") || *b.size <= res.MaxMemory:
		case !r.has(path):
			*b.size = res.MaxMemory
		default:
			r.add(problem{
				code: messages.CodeDocConflict, path: path,
				what: b.key + " is larger than max_memory (" + cmp.Or(r.shown["resources.max_memory"], res.MaxMemory.String()) + ")",
				next: "raise max_memory or lower " + b.key,
			})
		}
	}
	if doc.Destination.SchemaEvolution.RemovedColumn == "add" {
		doc.Destination.SchemaEvolution.RemovedColumn = "ignore"
	}
	for i := range doc.Source.Streams {
		doc.Source.Streams[i].path = itemOf("source.streams", i)
	}
	doc.State.settle(r)
}

// Bounds of a lease.
const (
	leaseMin = time.Second
	leaseMax = 10 * time.Minute
)

// settle finds out which store a connection means.
func (s *State) settle(r *report) {
	const backend, connection, lease = "state.backend", "state.connection", "state.lease_ttl"
	if r.has(lease) && r.sound(lease) && (s.LeaseTTL < leaseMin || s.LeaseTTL > leaseMax) {
		r.add(problem{
			code: messages.CodeDocValue, path: lease, what: "found " + cmp.Or(r.shown[lease], s.LeaseTTL.String()) + ", expected a duration from 1s to 10m",
		})
	}
	if !r.sound(connection) || !r.sound(backend) {
		return
	}
	url := isPostgresURL(s.Connection.Reveal())
	switch {
	case s.Backend == "" && url:
		s.Backend = BackendPostgres
	case s.Backend == "":
		s.Backend = BackendBolt
	case s.Backend == BackendBolt && url:
		r.add(problem{
			code: messages.CodeDocConflict, path: connection, what: "found a postgres URL, but the backend is bbolt",
			next: "set `backend: postgres`, or give the path of a file",
		})
		return
	case s.Backend == BackendPostgres && !url:
		r.add(problem{
			code: messages.CodeDocConflict, path: connection, what: "the postgres backend needs a connection of the form postgres://user@host/database",
		})
		return
	}
	if s.Backend == BackendBolt && r.has(lease) && r.sound(lease) {
		r.add(problem{
			code: messages.CodeDocConflict, path: lease, what: "a bbolt store is held for as long as its process lives and has no leases",
			next: "remove it, or use a postgres store",
		})
	}
	if s.Backend == BackendBolt && strings.Contains(s.Connection.Reveal(), "://") {
		r.add(problem{
			code: messages.CodeDocValue, path: connection, what: "found a URL that names no known state store, expected a path or a postgres URL",
			next: "use bbolt or postgres",
		})
	}
}

func isPostgresURL(s string) bool {
	return strings.HasPrefix(s, "postgres://") || strings.HasPrefix(s, "postgresql://")
}

package config

import (
	"time"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// Document is a validated pipeline document with every default filled in. It is
// immutable: nobody changes a field, a slice or a map of it after Parse. It may
// be shared between goroutines.
type Document struct {
	Version     string              `yaml:"version" jsonschema:"required,enum=1.0" jsonschema_description:"Version of the document's format."`
	Pipeline    messages.PipelineID `yaml:"pipeline" jsonschema:"required,pattern=^[a-z0-9_-]{1\\,128}$" expect:"1 to 128 characters of a-z, 0-9, _ and -" jsonschema_description:"Name of the pipeline and namespace of its state."`
	Source      Source              `yaml:"source" jsonschema:"required" jsonschema_description:"Where rows are read."`
	Transforms  []Transform         `yaml:"transforms" jsonschema:"maxItems=64" jsonschema_description:"Steps between source and destination, in order."`
	Destination Destination         `yaml:"destination" jsonschema:"required" jsonschema_description:"Where rows are written."`
	State       State               `yaml:"state" jsonschema_description:"Where checkpoints are kept."`
	Resources   Resources           `yaml:"resources" jsonschema_description:"Limits and pins of the run."`

	report  report
	vault   []messages.Failure
	targets map[messages.StreamID]string
}

// Stage is one use of a connector.
type Stage struct {
	Use         string       `yaml:"use" jsonschema:"required" expect:"the name of a connector" jsonschema_description:"A built-in connector, or a plugin reference."`
	Config      any          `yaml:"config,deferred" jsonschema_description:"Settings of the connector."`
	Permissions *Permissions `yaml:"permissions" jsonschema_description:"Narrows what a plugin's manifest asks for; never widens it."`
	Limits      *StageLimits `yaml:"limits" jsonschema_description:"Narrows the limits of a plugin."`

	// Name is the connector's name, whatever alias Use holds; empty: Use is a plugin
	// reference and Config a map[string]any. Otherwise Config is the connector's own
	// Config struct, by value.
	Name string `yaml:"-"`

	connector Connector
}

// Permissions narrow a plugin. A nil list leaves the manifest's as it is, an empty
// one grants nothing.
type Permissions struct {
	Network NetworkPermissions `yaml:"network"`
	Env     EnvPermissions     `yaml:"env"`
	FS      FSPermissions      `yaml:"fs"`
}

// NetworkPermissions say where a plugin may connect to.
type NetworkPermissions struct {
	AllowedHosts []string `yaml:"allowed_hosts" jsonschema:"pattern=^(\\*\\.)?[A-Za-z0-9_.:\\[\\]-]+$" expect:"a host name, an address or *.domain, with or without :port" jsonschema_description:"Host names, addresses or *.domain."`
}

// EnvPermissions say which environment variables a plugin may read.
type EnvPermissions struct {
	AllowedVars []string `yaml:"allowed_vars" jsonschema:"pattern=^[A-Za-z_][A-Za-z0-9_]*$" expect:"the name of an environment variable"`
}

// FSPermissions say which folders a plugin may open.
type FSPermissions struct {
	AllowedPreopens []string `yaml:"allowed_preopens" jsonschema:"pattern=^/" expect:"an absolute path" jsonschema_description:"Absolute paths of folders."`
}

// StageLimits narrow what a plugin may use. Zero leaves the manifest's limit.
type StageLimits struct {
	MaxMemory      connectors.ByteSize `yaml:"max_memory" jsonschema:"minimum=1mb"`
	TimeoutSeconds int                 `yaml:"timeout_seconds" jsonschema:"minimum=1,maximum=86400"`
}

// Source is the reading end.
type Source struct {
	Stage   `yaml:",inline"`
	Streams []Stream `yaml:"streams" jsonschema:"required,minItems=1,maxItems=1024" expect:"a list of at least one stream" jsonschema_description:"What is read."`
}

// CursorMode says how an incremental stream guards against rows that commit late.
type CursorMode string

// The cursor modes.
const (
	CursorStrict   CursorMode = "strict"   // waits for writers that were open
	CursorLookback CursorMode = "lookback" // reads a window again
	CursorRaw      CursorMode = "raw"      // trusts the cursor
)

// LostSnapshot says what an append does when a crash has ended its snapshot.
type LostSnapshot string

// The answers.
const (
	LostContinue LostSnapshot = "continue" // go on under a new snapshot
	LostFail     LostSnapshot = "fail"
	LostRestart  LostSnapshot = "restart" // begin the load again
)

// Stream is what is read of one table, file set or topic. Its name may be a
// pattern until Document.Expand has replaced it.
type Stream struct {
	Name           string               `yaml:"name" jsonschema:"required,maxLength=1024" expect:"the name of a stream of 1 to 1024 characters" jsonschema_description:"Name of the stream, qualified by a schema or not; a glob stands for all that it matches: orders_* in the default schema, public.* in one, *.* in all."`
	SyncMode       connectors.SyncMode  `yaml:"sync_mode" jsonschema:"enum=full_refresh,enum=incremental,enum=cdc,default=full_refresh" jsonschema_description:"Which rows are read."`
	CursorField    string               `yaml:"cursor_field" jsonschema_description:"Column that grows with each change; required for incremental."`
	TieBreaker     string               `yaml:"tie_breaker_field" jsonschema_description:"Unique column that orders rows with equal cursors."`
	CursorMode     CursorMode           `yaml:"cursor_mode" jsonschema:"enum=strict,enum=lookback,enum=raw,default=strict" jsonschema_description:"How rows that commit late are found."`
	Lookback       time.Duration        `yaml:"lookback" jsonschema_description:"Window that cursor_mode lookback reads again, such as 10m."`
	NullCursor     string               `yaml:"null_cursor" jsonschema:"enum=fail,enum=first,enum=ignore,default=fail" jsonschema_description:"What happens to rows without a cursor."`
	Columns        []string             `yaml:"columns" jsonschema:"minLength=1,uniqueItems=true" jsonschema_description:"Columns to read; default all."`
	Filter         string               `yaml:"filter" jsonschema_description:"Row filter in the source's language."`
	PartitionKey   string               `yaml:"partition_key" jsonschema_description:"Column by whose range the stream is split."`
	Path           string               `yaml:"path" jsonschema_description:"Files of this stream; a glob."`
	Target         string               `yaml:"target" jsonschema_description:"Name at the destination; a template over {schema} and {table}."`
	WriteMode      connectors.WriteMode `yaml:"write_mode" jsonschema:"enum=append,enum=replace,enum=upsert" jsonschema_description:"Overrides destination.write_mode."`
	OnLostSnapshot LostSnapshot         `yaml:"on_lost_snapshot" jsonschema:"enum=continue,enum=fail,enum=restart,default=continue" jsonschema_description:"What an unfinished load does when its snapshot is gone."`
	Exclude        []string             `yaml:"exclude" jsonschema:"minLength=1" jsonschema_description:"Globs of names that a pattern in name leaves out; without a schema, in whatever schema."`

	path string // key path in the document
}

// Transform is one step between source and destination.
type Transform struct {
	Stage   `yaml:",inline"`
	Streams []string `yaml:"streams" jsonschema:"minLength=1" jsonschema_description:"Streams it applies to, globs allowed; default all."`
}

// Destination is the writing end.
type Destination struct {
	Stage           `yaml:",inline"`
	WriteMode       connectors.WriteMode       `yaml:"write_mode" jsonschema:"enum=append,enum=replace,enum=upsert" jsonschema_description:"What a load does to its target."`
	PrimaryKey      []string                   `yaml:"primary_key" jsonschema:"minLength=1,uniqueItems=true,oneof_type=string;array" jsonschema_description:"Key columns of an upsert; default the source's primary key."`
	DeleteMode      string                     `yaml:"delete_mode" jsonschema:"enum=hard,enum=soft,enum=ignore,default=hard" jsonschema_description:"What a deleted row does to its target; of cdc."`
	OnDataError     connectors.DataErrorPolicy `yaml:"on_data_error" jsonschema:"enum=fail,enum=skip,enum=dlq,default=fail" jsonschema_description:"What happens to a row that cannot be written."`
	MaxDLQRows      *int64                     `yaml:"max_dlq_rows" jsonschema:"minimum=0" jsonschema_description:"More dead letters than this stop the run."`
	MaxDLQRatio     *float64                   `yaml:"max_dlq_ratio" jsonschema:"minimum=0,maximum=1" jsonschema_description:"A larger share of dead letters stops the run."`
	SchemaEvolution SchemaEvolution            `yaml:"schema_evolution" jsonschema_description:"What happens when a stream changes its shape."`
	MetadataColumns bool                       `yaml:"metadata_columns" jsonschema:"default=false" jsonschema_description:"Adds _rb_run and _rb_loaded_at."`
	Target          string                     `yaml:"target" jsonschema_description:"Name of each stream at the destination; a template over {schema} and {table}."`
}

// SchemaEvolution holds one policy per kind of change. RemovedColumn add acts as
// ignore, and is ignore in a Document.
type SchemaEvolution struct {
	NewColumn         connectors.ColumnPolicy `yaml:"new_column" jsonschema:"enum=add,enum=ignore,enum=fail,default=add"`
	RemovedColumn     string                  `yaml:"removed_column" jsonschema:"enum=ignore,enum=fail,enum=add,default=ignore"`
	TypeChange        string                  `yaml:"type_change" jsonschema:"enum=fail,enum=coerce,enum=null,default=fail"`
	NullabilityChange string                  `yaml:"nullability_change" jsonschema:"enum=allow,enum=fail,default=allow"`
}

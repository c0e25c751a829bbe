package plugin

import (
	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/duckdb"
	"rapidbyte.io/node/connectors/file"
	"rapidbyte.io/node/connectors/generator"
	"rapidbyte.io/node/connectors/postgres"
	"rapidbyte.io/node/connectors/sqltransform"
	"rapidbyte.io/node/connectors/validate"
	"rapidbyte.io/node/runtime/config"
)

// Builtins returns the connectors of this version, in the order in which they are
// listed to people. Each call returns a new slice.
func Builtins() config.Catalogue {
	modes := func(m ...connectors.WriteMode) []connectors.WriteMode { return m }
	return config.Catalogue{
		{
			Name: "file", Aliases: []string{"source-file"}, Role: config.RoleSource,
			Shape: file.SourceConfig{}, Files: true,
		},
		{
			Name: "duckdb", Aliases: []string{"source-duckdb"}, Role: config.RoleSource,
			Shape: duckdb.SourceConfig{}, Filter: true, Schemas: true, DefaultSchema: "main",
		},
		{
			Name: "generator", Aliases: []string{"source-generator"}, Role: config.RoleSource,
			Shape: generator.SourceConfig{},
		},
		{
			Name: "postgres", Aliases: []string{"source-postgres"}, Role: config.RoleSource,
			Shape: postgres.SourceConfig{}, Incremental: true, Filter: true, Schemas: true,
		},
		{
			Name: "sql", Aliases: []string{"transform-sql"}, Role: config.RoleTransform,
			Shape: sqltransform.Config{},
		},
		{
			Name: "validate", Aliases: []string{"transform-validate"}, Role: config.RoleTransform,
			Shape: validate.Config{}, Planned: true,
		},
		{
			Name: "file", Aliases: []string{"dest-file"}, Role: config.RoleDestination,
			Shape: file.DestinationConfig{}, Modes: modes(connectors.ModeAppend, connectors.ModeReplace),
		},
		{
			Name: "duckdb", Aliases: []string{"dest-duckdb"}, Role: config.RoleDestination,
			Shape: duckdb.DestinationConfig{}, Modes: modes(connectors.ModeAppend, connectors.ModeReplace, connectors.ModeUpsert),
		},
		{
			Name: "blackhole", Aliases: []string{"dest-blackhole"}, Role: config.RoleDestination,
			Shape: generator.DestinationConfig{}, Modes: modes(connectors.ModeAppend, connectors.ModeReplace, connectors.ModeUpsert),
		},
		{
			Name: "postgres", Aliases: []string{"dest-postgres"}, Role: config.RoleDestination,
			Shape: postgres.DestinationConfig{}, Modes: modes(connectors.ModeAppend, connectors.ModeReplace, connectors.ModeUpsert),
			DeadLetters: true, Metadata: true, NewColumns: []connectors.ColumnPolicy{connectors.ColumnIgnore, connectors.ColumnFail},
		},
	}
}
